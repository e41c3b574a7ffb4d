package storetest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// PowerDisk is a block device that remembers each write and each flush, in order, so
// that it can be had as a power cut at any moment might have left it. It is a loop
// device on a file whose file system (FUSE) is this process: what the loop device
// writes and syncs arrives here as it was asked for.
type PowerDisk struct {
	Device string // /dev/loopN

	fd   int // of /dev/fuse
	file string
	done chan struct{}

	mu    sync.Mutex
	base  []byte // as it was at first
	now   []byte
	log   []written
	fails []string
}

// written is one write, or a flush if data is nil.
type written struct {
	off  int64
	data []byte
}

// sector is what a disk writes whole or not at all, in bytes: of smaller ones ext4 itself
// cannot be mounted after some cuts, for its superblock then has a wrong checksum.
const sector = 4096

// NewPowerDisk returns a disk that holds what is in image.
func NewPowerDisk(t testing.TB, image []byte) *PowerDisk {
	t.Helper()
	d := &PowerDisk{file: filepath.Join(t.TempDir(), "disk"), done: make(chan struct{}), base: image, now: append([]byte(nil), image...)}
	if err := os.WriteFile(d.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	opts := fmt.Sprintf("fd=%d,rootmode=100600,user_id=0,group_id=0", d.fd)
	if err := unix.Mount("holdfast-test", d.file, "fuse", unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		t.Fatal("mount fuse: ", err)
	}
	go d.serve()
	t.Cleanup(func() { // after the caller has unmounted what is on the device
		if d.Device != "" {
			Run(t, "losetup", "-d", d.Device)
		}
		Unmount(t, d.file)
		<-d.done
		unix.Close(d.fd)
		if len(d.fails) > 0 {
			t.Error(d.fails)
		}
	})
	d.Device = strings.TrimSpace(Run(t, "losetup", "-f", "--show", d.file))
	return d
}

// Unmount unmounts what is at path, and waits a while for others who look at it.
func Unmount(t testing.TB, path string) {
	t.Helper()
	Sh(t, `for i in 1 2 3 4 5 6 7 8 9; do umount "$1" 2>/dev/null && exit 0; sleep 0.2; done; umount "$1"`, path)
}

// Writes is how many writes and flushes there were.
func (d *PowerDisk) Writes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

// After returns the disk as a power cut after n writes and flushes may have left it: what
// was written before the last flush is there, of what came later any part, sector by
// sector, as rnd has it.
func (d *PowerDisk) After(n int, rnd *rand.Rand) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	image := append([]byte(nil), d.base...)
	flushed := 0
	for i, w := range d.log[:n] {
		if w.data == nil {
			flushed = i
		}
	}
	odds := rnd.IntN(5) // of 4, that a sector got there
	for i, w := range d.log[:n] {
		if i < flushed {
			copy(image[w.off:], w.data)
			continue
		}
		for at := 0; at < len(w.data); at += sector {
			if rnd.IntN(4) < odds {
				copy(image[w.off+int64(at):], w.data[at:min(at+sector, len(w.data))])
			}
		}
	}
	return image
}

// The requests that come for a single file (linux include/uapi/linux/fuse.h).
const (
	fuseForget      = 2
	fuseGetattr     = 3
	fuseSetattr     = 4
	fuseOpen        = 14
	fuseRead        = 15
	fuseWrite       = 16
	fuseStatfs      = 17
	fuseRelease     = 18
	fuseFsync       = 20
	fuseFlush       = 25
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseDestroy     = 38
	fuseBatchForget = 42

	fuseInHeader  = 40
	fuseWriteIn   = 40
	fuseBigWrites = 1 << 5
	fuseDirectIO  = 1 // of an open file: past the page cache
)

// serve answers until the file is unmounted.
func (d *PowerDisk) serve() {
	defer close(d.done)
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(d.fd, buf)
		if err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT {
			continue
		}
		if err != nil || n < fuseInHeader {
			if err != unix.ENODEV {
				d.fails = append(d.fails, fmt.Sprintf("read fuse: %d bytes, %v", n, err))
			}
			return
		}
		op := binary.LittleEndian.Uint32(buf[4:])
		if op == fuseForget || op == fuseBatchForget || op == fuseInterrupt {
			continue // no answer is expected
		}
		body, errno := d.answer(op, buf[fuseInHeader:n])
		head := make([]byte, 16, 16+len(body))
		binary.LittleEndian.PutUint32(head, uint32(16+len(body)))
		binary.LittleEndian.PutUint32(head[4:], uint32(-int32(errno)))
		copy(head[8:16], buf[8:16])
		if _, err := unix.Write(d.fd, append(head, body...)); err != nil && err != unix.ENOENT {
			d.fails = append(d.fails, fmt.Sprintf("answer fuse request %d: %v", op, err))
		}
		if op == fuseDestroy {
			return
		}
	}
}

func (d *PowerDisk) answer(op uint32, in []byte) (out []byte, errno unix.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	le := binary.LittleEndian
	switch op {
	case fuseInit:
		out = make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[8:], 1<<17)
		le.PutUint32(out[12:], fuseBigWrites)
		le.PutUint16(out[16:], 16)
		le.PutUint16(out[18:], 12)
		le.PutUint32(out[20:], 1<<17)
		le.PutUint32(out[24:], 1)
	case fuseGetattr, fuseSetattr:
		out = make([]byte, 104)
		le.PutUint64(out, 3600)
		le.PutUint64(out[16:], 1)
		le.PutUint64(out[24:], uint64(len(d.now)))
		le.PutUint64(out[32:], uint64(len(d.now)/512))
		le.PutUint32(out[76:], unix.S_IFREG|0o600)
		le.PutUint32(out[80:], 1)
		le.PutUint32(out[96:], 4096)
	case fuseOpen:
		out = make([]byte, 16)
		le.PutUint32(out[8:], fuseDirectIO)
	case fuseRead:
		off, size := int64(le.Uint64(in[8:])), int64(le.Uint32(in[16:]))
		end := min(off+size, int64(len(d.now)))
		if off < end {
			out = append(out, d.now[off:end]...)
		}
	case fuseWrite:
		off, data := int64(le.Uint64(in[8:])), in[fuseWriteIn:]
		if off+int64(len(data)) > int64(len(d.now)) {
			return nil, unix.ENOSPC
		}
		copy(d.now[off:], data)
		d.log = append(d.log, written{off, append([]byte{}, data...)})
		out = make([]byte, 8)
		le.PutUint32(out, uint32(len(data)))
	case fuseFsync:
		d.log = append(d.log, written{})
	case fuseStatfs:
		out = make([]byte, 80)
	case fuseFlush, fuseRelease, fuseDestroy:
	default:
		return nil, unix.ENOSYS
	}
	return out, 0
}
