package rollback

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/rollback/cas"
)

// reserve is a file that holds back disk space. When a write of ours finds the
// disk full, the space is freed and the write tried once more; refill takes it
// back when there is room again.
type reserve struct {
	path string
	want int64
	disk cas.Disk

	mu   sync.Mutex
	have int64
}

func openReserve(path string, want int64, disk cas.Disk) (*reserve, error) {
	r := &reserve{path: path, want: want, disk: disk}
	var st unix.Stat_t
	if err := digest.Again(func() error { return unix.Lstat(path, &st) }); err == nil {
		r.have = st.Size
	} else if !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("stat reserve: %w", err)
	}
	return r, r.refill()
}

// use calls f, and once more without the reserve if f found the disk full.
func (r *reserve) use(f func() error) error {
	err := f()
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	r.mu.Lock()
	free := r.have > 0
	if free {
		if uerr := r.disk.Unlink(unix.AT_FDCWD, r.path, 0); uerr != nil {
			free, err = false, errors.Join(err, uerr)
		} else {
			r.have = 0
		}
	}
	r.mu.Unlock()
	if !free {
		return err
	}
	return f()
}

// refill makes the reserve if it is gone or of another size, provided that twice
// its size stays free beside it: it must not be what fills the disk.
func (r *reserve) refill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have == r.want {
		return nil
	}
	if r.have > 0 {
		if err := r.disk.Unlink(unix.AT_FDCWD, r.path, 0); err != nil {
			return err
		}
		r.have = 0
	}
	if r.want == 0 {
		return nil
	}
	fd, err := r.disk.Create(unix.AT_FDCWD, r.path, 0o600)
	if err != nil {
		return fmt.Errorf("make reserve: %w", err)
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := digest.Again(func() error { return unix.Fstatfs(fd, &fs) }); err != nil {
		return fmt.Errorf("make reserve: %w", err)
	}
	if int64(fs.Bavail)*fs.Bsize < 3*r.want {
		return r.disk.Unlink(unix.AT_FDCWD, r.path, 0)
	}
	if err := r.disk.Allocate(fd, r.path, r.want); err != nil {
		if uerr := r.disk.Unlink(unix.AT_FDCWD, r.path, 0); uerr != nil || !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("make reserve: %w", errors.Join(err, uerr))
		}
		return nil
	}
	r.have = r.want
	return nil
}

func (r *reserve) held() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.have
}
