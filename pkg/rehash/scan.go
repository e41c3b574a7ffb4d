package rehash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// Tree is a watched directory or file.
type Tree struct {
	Root string
	Skip func(path string) bool // excepted paths; nil: none
	// Mount tells of a mount point below the root, or of the root, whether what is
	// mounted there belongs to the tree; nil: it does not.
	Mount func(path string) bool
	// Pace is told what Enrol has read and returns when it may read on; nil: at once.
	Pace func(ctx context.Context, bytes uint64)
}

// crosses reports whether the tree goes on in a directory.
func (t Tree) crosses(path string) bool {
	return !isMount(path) || t.Mount != nil && t.Mount(path)
}

func (t Tree) skips(path string) bool { return t.Skip != nil && t.Skip(path) }

// Scan reads everything at and below a tree's root and hands each state to visit,
// parents before their children, one call at a time. A path that cannot be read
// comes with its error. The states are not taken as known.
func (r *Rehash) Scan(ctx context.Context, t Tree, visit func(path string, s event.State, err error)) error {
	return r.scan(ctx, t, func(ctx context.Context, path string) look { return r.read(ctx, path, nil) },
		func(path string, l look) { visit(path, l.state, l.err) })
}

// pathCost is what a path costs beside its content, for Pace.
const pathCost = 4096

// Enrol scans a tree, keeps the content of all of it and takes it as known. It
// returns how many paths exist and the errors of those that could not be kept.
// The root is kept last: that it is kept says that the scan came to its end.
func (r *Rehash) Enrol(ctx context.Context, t Tree) (int, []error, error) {
	n := 0
	var errs []error
	read := func(ctx context.Context, path string) look { return r.read(ctx, path, nil) }
	keep := read
	if r.o.Keep != nil {
		keep = func(ctx context.Context, path string) look {
			l := r.readBy(path, func() (event.State, error) { return r.o.Keep(ctx, path) })
			if t.Pace != nil {
				t.Pace(ctx, l.state.Size+pathCost)
			}
			return l
		}
	}
	visit := func(path string, l look) {
		if l.err != nil {
			errs = append(errs, fmt.Errorf("enrol %q: %w", path, l.err))
		}
		if l.state.Exists {
			r.put(path, l, false)
			n++
		}
	}
	err := r.scan(ctx, t, func(ctx context.Context, path string) look {
		if path == t.Root {
			return read(ctx, path)
		}
		return keep(ctx, path)
	}, visit)
	if err == nil && n > 0 {
		n--
		visit(t.Root, keep(ctx, t.Root))
	}
	return n, errs, err
}

// scan walks with Options.Workers reads at a time. Directories are handed out
// while their entries are still to be listed, so parents come first.
func (r *Rehash) scan(ctx context.Context, t Tree, read func(context.Context, string) look, visit func(string, look)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	paths := make(chan string, 64)
	var wg sync.WaitGroup
	var mu sync.Mutex // serialises visit
	for range r.o.Workers {
		wg.Go(func() {
			for p := range paths {
				if ctx.Err() != nil {
					continue
				}
				l := read(ctx, p)
				mu.Lock()
				visit(p, l)
				mu.Unlock()
			}
		})
	}
	err := walk(ctx, t, func(path string, dir bool) error {
		if dir {
			l := read(ctx, path)
			mu.Lock()
			visit(path, l)
			mu.Unlock()
			return ctx.Err()
		}
		select {
		case paths <- path:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	close(paths)
	wg.Wait()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("scan %q: %w", t.Root, err)
	}
	return nil
}

// walk lists a tree, parents first. A directory that disappears is passed over.
func walk(ctx context.Context, t Tree, visit func(path string, dir bool) error) error {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, t.Root, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || t.skips(t.Root) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := uint32(st.Mode)&unix.S_IFMT == unix.S_IFDIR
	if err := visit(t.Root, dir); err != nil || !dir || t.Mount != nil && !t.crosses(t.Root) {
		return err
	}
	return walkDir(ctx, t, t.Root, visit)
}

func walkDir(ctx context.Context, t Tree, dir string, visit func(path string, dir bool) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	list, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range list {
		p := filepath.Join(dir, d.Name())
		if t.skips(p) {
			continue
		}
		if !d.IsDir() {
			if err := visit(p, false); err != nil {
				return err
			}
			continue
		}
		if !t.crosses(p) {
			continue
		}
		if err := visit(p, true); err != nil {
			return err
		}
		if err := walkDir(ctx, t, p, visit); err != nil {
			return err
		}
	}
	return nil
}

// isMount reports whether a directory is the top of a mount (linux v5.8 statx
// STATX_ATTR_MOUNT_ROOT).
func isMount(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &st)
	return err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// Suspects lists what may not be as known in a tree: paths that a glance does not
// prove untouched, new ones parents first, then ones that are gone children first.
// It returns how many paths it compared.
func (r *Rehash) Suspects(ctx context.Context, t Tree, visit func(path string) error) (int, error) {
	found := make(map[string]bool)
	err := walk(ctx, t, func(path string, _ bool) error {
		found[path] = true
		e, ok := r.known.Get(path)
		if ok && e.State.Exists && r.untouched(path, e) {
			r.spared.Add(1)
			return nil
		}
		return visit(path)
	})
	if err != nil {
		return len(found), fmt.Errorf("rescan %q: %w", t.Root, err)
	}
	var gone []string
	r.known.Walk(t.Root, func(path string, _ *event.State) {
		if !found[path] && !t.skips(path) {
			gone = append(gone, path)
		}
	})
	slices.Reverse(gone)
	for _, p := range gone {
		if err := visit(p); err != nil {
			return len(found), err
		}
	}
	return len(found) + len(gone), nil
}
