# coverage.sh is what a run of the coverage does in the guest, after lib.sh: every
# act, on the file system $FS, in the tier $TIER, first in an observed tree, then,
# in a tier that can block, in a blocked one. For each of both it leaves in /out:
# MODE.truth (what the acts say), MODE.before and MODE.after (pictures by the acts'
# own code, the second after a new mount), MODE.log (records), MODE.status.

IMAGE=/var/coverage.img

# make_fs mounts a new file system of kind $FS at $1. Below an overlay it is ext4.
make_fs() {
	local kind=${FS/overlay/ext4}
	mkdir -p "$1"
	case $kind in
	tmpfs) mount -t tmpfs -o size=256m coverage "$1"; return ;;
	ext4) set -- "$1" mkfs.ext4 -q -F -O verity,encrypt,project -I 256 ;;
	xfs) set -- "$1" mkfs.xfs -q -f ;;
	btrfs) set -- "$1" mkfs.btrfs -q -f ;;
	esac
	rm -f $IMAGE
	truncate -s 600M $IMAGE
	"${@:2}" $IMAGE
	BELOW=$1
	[ $FS = overlay ] && BELOW=/below && mkdir -p $BELOW
	DEVICE=$(losetup --find --show $IMAGE)
	mount "$DEVICE" $BELOW
	[ $FS != overlay ] || mkdir $BELOW/lower $BELOW/upper $BELOW/work
}

# mount_again mounts the file system anew, so that nothing of it is remembered.
mount_again() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	[ $FS != tmpfs ] || return 0
	unmount "$1"
	mount "$DEVICE" $BELOW
	over_it "$1"
}

# over_it puts the overlay over what is below it, if that is what is wanted.
over_it() {
	[ $FS = overlay ] || return 0
	mount -t overlay -o lowerdir=$BELOW/lower,upperdir=$BELOW/upper,workdir=$BELOW/work overlay "$1"
}

unmount() {
	local d
	for d in "$1" ${BELOW:-}; do
		while mountpoint -q "$d"; do umount -R "$d" || { umount -l "$d"; echo "unmount: somebody held $d"; }; done
	done
}

# acts_in MODE does everything for one mode.
acts_in() {
	local mode=$1 root=/srv/$1 tree outside ctl=/run/coverage.$1
	tree=$root/top/tree outside=$root/outside
	STATE=/var/lib/holdfast.$mode
	make_fs "$root"
	if [ $FS = overlay ]; then
		acts fixture $BELOW/lower/top/tree $BELOW/lower/outside
		over_it "$root"
	else
		acts fixture $tree $outside
	fi
	acts hold $tree $outside $ctl
	if [ "$mode" != plain ]; then
		start_daemon $tree=$mode
		trap - EXIT
		export DAEMON
	fi
	acts picture $tree >/out/$mode.before
	acts matrix $tree $outside $ctl >/out/$mode.truth
	if [ "$mode" != plain ]; then
		settle
		hf status --json >/out/$mode.status || true
		hf log --json --limit 0 >/out/$mode.log
		stop_daemon
	fi
	mount_again "$root"
	acts picture $tree >/out/$mode.after
	unmount "$root"
	[ -z "${DEVICE:-}" ] || losetup -d "$DEVICE"
}
