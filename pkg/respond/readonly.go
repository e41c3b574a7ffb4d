package respond

import (
	"errors"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// readOnly are the paths that cannot be put back because their file system is
// read-only, or has become so (errors=remount-ro).
type readOnly struct {
	mu    sync.Mutex
	paths map[string]bool
}

// The paths that wait at once at most, and how long until the next look whether their
// file system can be written to. Beyond the bound a path is tried like after any other
// failure.
const (
	maxReadOnly   = 16384
	readOnlyPause = uint64(5 * time.Second)
)

// onReadOnly reports whether a path lies on a file system that is mounted read-only;
// what is not there is looked for where it would be.
func onReadOnly(p string) bool {
	for dir := path.Dir(p); ; dir = path.Dir(dir) {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); !errors.Is(err, unix.ENOENT) || dir == "/" {
			return err == nil && st.Flags&unix.ST_RDONLY != 0
		}
	}
}

// note has a path wait if that is why a step failed.
func (r *readOnly) note(p string, err error, is func(string) bool) bool {
	if !errors.Is(err, unix.EROFS) || !is(p) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.paths) >= maxReadOnly {
		return false
	}
	if r.paths == nil {
		r.paths = make(map[string]bool)
	}
	r.paths[p] = true
	return true
}

// Waits reports whether a path still cannot be put back because its file system is
// read-only, and when (ns since boot) to ask again. It writes no record: the first
// failure has one.
func (r *Responder) Waits(p string) (again uint64, waits bool) {
	r.readOnly.mu.Lock()
	defer r.readOnly.mu.Unlock()
	if !r.readOnly.paths[p] {
		return 0, false
	}
	if r.o.ReadOnly(p) {
		return r.o.Now() + readOnlyPause, true
	}
	delete(r.readOnly.paths, p)
	return 0, false
}

// Forget ends the waiting of a path that is not to be put back any more.
func (r *Responder) Forget(p string) {
	r.readOnly.mu.Lock()
	defer r.readOnly.mu.Unlock()
	delete(r.readOnly.paths, p)
}

// ReadOnly tells how many paths wait, and one of them.
func (r *Responder) ReadOnly() (n int, one string) {
	r.readOnly.mu.Lock()
	defer r.readOnly.mu.Unlock()
	for p := range r.readOnly.paths {
		if one == "" || p < one {
			one = p
		}
	}
	return len(r.readOnly.paths), one
}
