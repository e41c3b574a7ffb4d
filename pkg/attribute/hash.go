package attribute

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"golang.org/x/sys/unix"
)

// version is one content of an executable's inode.
type version struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func versionOf(st *unix.Stat_t) version {
	return version{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// hasher hashes executables and remembers the results by inode version: all of
// recent, and what of old was asked for again.
type hasher struct {
	mu          sync.Mutex
	recent, old map[version]event.Hash
}

const (
	maxHashes = 4096
	// settled is how long a file must not have changed for its path to stand for
	// what an ended process ran: an inode number can be given again at once.
	settled = time.Minute
)

var errOtherExe = errors.New("another file is there")

func newHasher() *hasher { return &hasher{recent: map[version]event.Hash{}} }

// exe hashes the executable that pid runs, through /proc/PID/exe, which leads to
// the inode itself, also of a deleted file or a memfd. If the process is gone the
// path is tried. Either must be the inode asked for.
func (h *hasher) exe(pid uint32, path string, dev, ino uint64) (event.Hash, error) {
	sum, err := h.file("/proc/"+strconv.FormatUint(uint64(pid), 10)+"/exe", dev, ino, 0)
	if err == nil || path == "" || path[0] != '/' {
		return sum, err
	}
	return h.file(path, dev, ino, settled)
}

func (h *hasher) file(path string, dev, ino uint64, age time.Duration) (event.Hash, error) {
	var none event.Hash
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return none, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return none, fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || !sameInode(kernelDev(st.Dev), st.Ino, dev, ino) {
		return none, fmt.Errorf("hash %s: %w", path, errOtherExe)
	}
	if age > 0 && time.Since(time.Unix(st.Ctim.Unix())) < age {
		return none, fmt.Errorf("hash %s: it changed since the process ran", path)
	}
	v := versionOf(&st)
	if sum, ok := h.known(v); ok {
		return sum, nil
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return none, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	sum, _, err := digest.Reader(reader(fd))
	if err != nil {
		return none, fmt.Errorf("read %s: %w", path, err)
	}
	if err := unix.Fstat(fd, &st); err != nil {
		return none, fmt.Errorf("stat %s: %w", path, err)
	}
	if versionOf(&st) != v {
		return none, fmt.Errorf("hash %s: it changed while it was read", path)
	}
	h.keep(v, sum)
	return sum, nil
}

func (h *hasher) known(v version) (event.Hash, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sum, ok := h.recent[v]; ok {
		return sum, true
	}
	sum, ok := h.old[v]
	if ok {
		h.put(v, sum)
	}
	return sum, ok
}

func (h *hasher) keep(v version, sum event.Hash) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.put(v, sum)
}

func (h *hasher) put(v version, sum event.Hash) {
	if len(h.recent) >= maxHashes/2 {
		h.old, h.recent = h.recent, map[version]event.Hash{}
	}
	h.recent[v] = sum
}

// reader reads a descriptor that it does not own.
type reader int

func (r reader) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(r), p)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
