package journal

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pollEvery is how often a follower looks where inotify cannot be had.
const pollEvery = 200 * time.Millisecond

// watch waits for a change of the checkpoint file, which is written at each commit.
type watch struct{ f *os.File } // f is nil: poll

// newWatch watches the directory, not the file: the file is replaced now and then.
func newWatch(dir string) *watch {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &watch{}
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_MOVED_TO|unix.IN_CREATE); err != nil {
		// Polling does the same with more work; a descriptor that cannot be closed is none.
		_ = unix.Close(fd)
		return &watch{}
	}
	return &watch{f: os.NewFile(uintptr(fd), "inotify")}
}

// wait returns after a change, when the time is over, or with ctx's error.
func (w *watch) wait(ctx context.Context, atMost time.Duration) error {
	if w.f == nil {
		t := time.NewTimer(min(atMost, pollEvery))
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := w.f.SetReadDeadline(time.Now().Add(atMost)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		// A past deadline ends the read; its only error is that the file is closed, which ends it too.
		_ = w.f.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	var events [4096]byte
	_, err := w.f.Read(events[:])
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func (w *watch) close() error {
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}

// await waits until the log may have grown. The watch is set before the last look at the
// end, so that no commit falls between.
func (r *Reader) await(ctx context.Context) error {
	if r.watch == nil {
		r.watch = newWatch(r.dir)
		return nil // look again first
	}
	return r.watch.wait(ctx, 5*time.Second)
}
