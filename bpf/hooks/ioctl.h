/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Control commands that change a file or a directory without an operation of
 * their own. Flags and project ids have one, vfs_fileattr_set, which hooks can
 * follow. The others are told of ahead by them (EF_AHEAD). Three of them change a second file, named by a descriptor in what they are
 * given, and those of btrfs a name in the directory that they are given. Those of
 * a block device write to it.
 */
#ifndef HOLDFAST_IOCTL_H
#define HOLDFAST_IOCTL_H

/* include/uapi/linux/{fs,fsverity,fscrypt,btrfs}.h, fs/ext4/ext4.h, fs/xfs/libxfs/xfs_fs.h, linux v6.12 */
#define FS_IOC_SETFLAGS 0x40086602
#define FS_IOC32_SETFLAGS 0x40046602
#define FS_IOC_FSSETXATTR 0x401c5820
#define FS_IOC_SETVERSION 0x40087602
#define FS_IOC32_SETVERSION 0x40047602
#define EXT4_IOC_SETVERSION 0x40086604
#define EXT4_IOC32_SETVERSION 0x40046604
#define FS_IOC_ENABLE_VERITY 0x40806685
#define FS_IOC_SET_ENCRYPTION_POLICY 0x800c6613
#define BTRFS_IOC_SUBVOL_SETFLAGS 0x4008941a
#define EXT4_IOC_SWAP_BOOT 0x6611
#define EXT4_IOC_MOVE_EXT 0xc028660f
#define XFS_IOC_SWAPEXT 0xc0c0586d
#define XFS_IOC_EXCHANGE_RANGE 0x40285881
#define BTRFS_IOC_SNAP_CREATE 0x50009401
#define BTRFS_IOC_SUBVOL_CREATE 0x5000940e
#define BTRFS_IOC_SNAP_DESTROY 0x5000940f
#define BTRFS_IOC_SNAP_CREATE_V2 0x50009417
#define BTRFS_IOC_SUBVOL_CREATE_V2 0x50009418
#define BTRFS_IOC_SNAP_DESTROY_V2 0x5000943f

/* include/uapi/linux/fs.h: what they take away is no write, and passes no other hook */
#define BLKDISCARD 0x1277
#define BLKSECDISCARD 0x127d
#define BLKZEROOUT 0x127f

#define NO_FIELD 0xff

struct command {
	u8 op;	/* OP_NONE: changes nothing */
	u8 told;	/* a hook tells when it is done */
	u8 fd;	/* where the descriptor of the second file is in the argument, NO_FIELD: nowhere */
	u8 name;	/* the same for the name below the directory */
};

static __always_inline struct command command(u32 cmd)
{
	struct command c = { .op = OP_NONE, .fd = NO_FIELD, .name = NO_FIELD };

	switch (cmd) {
	case BLKDISCARD:
	case BLKSECDISCARD:
	case BLKZEROOUT:
		c.op = OP_RAW_WRITE;
		break;
	case FS_IOC_SETFLAGS:
	case FS_IOC32_SETFLAGS:
	case FS_IOC_FSSETXATTR:
		c.told = has_fileattr();
		c.op = OP_SETFLAGS;
		break;
	case FS_IOC_SETVERSION:
	case FS_IOC32_SETVERSION:
	case EXT4_IOC_SETVERSION:
	case EXT4_IOC32_SETVERSION:
	case FS_IOC_ENABLE_VERITY:
	case FS_IOC_SET_ENCRYPTION_POLICY:
	case BTRFS_IOC_SUBVOL_SETFLAGS:
		c.op = OP_SETFLAGS;
		break;
	case EXT4_IOC_SWAP_BOOT:
		c.op = OP_WRITE;
		break;
	case EXT4_IOC_MOVE_EXT:
		c.op = OP_WRITE;
		c.fd = 4;
		break;
	case XFS_IOC_SWAPEXT:
		c.op = OP_WRITE;
		c.fd = 16;
		break;
	case XFS_IOC_EXCHANGE_RANGE:
		c.op = OP_WRITE;
		c.fd = 0;
		break;
	case BTRFS_IOC_SNAP_CREATE:
	case BTRFS_IOC_SUBVOL_CREATE:
		c.op = OP_MKDIR;
		c.name = 8;
		break;
	case BTRFS_IOC_SNAP_CREATE_V2:
	case BTRFS_IOC_SUBVOL_CREATE_V2:
		c.op = OP_MKDIR;
		c.name = 56;
		break;
	case BTRFS_IOC_SNAP_DESTROY:
		c.op = OP_RMDIR;
		c.name = 8;
		break;
	case BTRFS_IOC_SNAP_DESTROY_V2:
		c.op = OP_RMDIR;
		c.name = 56;
		break;
	}
	return c;
}

#endif
