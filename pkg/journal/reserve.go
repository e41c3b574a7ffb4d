package journal

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/internal/regular"
)

// reserve is a file that holds nothing but space. It is emptied when a critical
// record does not fit on the disk, and filled again when there is room for it twice.
// In between only critical records are written, with what was queued before them.
type reserve struct {
	f     *os.File
	want  int64
	held  int64
	spent bool      // emptied, and not filled since
	next  time.Time // no attempt to fill before
}

func openReserve(dir string, want int64) (reserve, error) {
	if want <= 0 {
		return reserve{}, nil
	}
	f, _, err := regular.Make(filepath.Join(dir, reserveName), os.O_RDWR, 0o600)
	if err != nil {
		return reserve{}, err
	}
	st, err := f.Stat()
	if err != nil {
		return reserve{}, errors.Join(err, f.Close())
	}
	r := reserve{f: f, want: want, held: st.Size()}
	if r.held > want {
		if err := f.Truncate(want); err != nil {
			return reserve{}, errors.Join(err, f.Close())
		}
		r.held = want
	}
	r.refill()
	return r, nil
}

func (r *reserve) lacking() bool { return r.f != nil && r.held < r.want }

// release gives the space back to the file system; false if there was none.
func (r *reserve) release() bool {
	if r.held == 0 {
		return false
	}
	r.held, r.spent = 0, true
	return r.f.Truncate(0) == nil
}

// refill takes the space again if the disk has it twice over. Without success it
// tries again after a second; Stats.Reserve shows what is held.
func (r *reserve) refill() {
	if !r.lacking() || time.Now().Before(r.next) {
		return
	}
	r.next = time.Now().Add(time.Second)
	var fs unix.Statfs_t
	if unix.Fstatfs(int(r.f.Fd()), &fs) != nil || int64(fs.Bavail)*fs.Bsize < 2*r.want {
		return
	}
	err := unix.Fallocate(int(r.f.Fd()), 0, 0, r.want)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = r.f.WriteAt(make([]byte, r.want), 0)
	}
	if err == nil {
		r.held, r.spent = r.want, false
	} else if r.f.Truncate(0) == nil {
		r.held = 0
	}
}

func (r *reserve) close() error {
	if r.f == nil {
		return nil
	}
	return r.f.Close()
}
