package rollback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// ErrNoMerge says that a Merger cannot keep apart what the cause did and what
// others did: the file is none that it knows, or both changed the same record.
var ErrNoMerge = errors.New("it cannot be merged")

// Merger takes one change out of a content and leaves what others changed.
type Merger interface {
	// Merge takes back in now, the content of path as it is, what changed before
	// into left. kept says in words for people what of others stays. An error that
	// wraps ErrNoMerge makes a conflict of it.
	Merge(path string, left, before, now []byte) (merged []byte, kept []string, err error)
}

// mergeMax is the longest content that is merged.
const mergeMax = 4 << 20

// stretch is a change by the cause, without a change by others within.
type stretch struct {
	before, after *event.State
}

// merge plans to take back what the cause did to a path and to keep what others did
// since. Its changes are taken out one by one, the newest first. It reports
// whether that could be done.
func (u *undo) merge(n name, t *touch, have *event.State) (bool, error) {
	if u.o.Merger == nil || have.Type != event.TypeRegular || have.Unread != "" || have.Size > mergeMax {
		return false, nil
	}
	now := &limited{max: mergeMax}
	st, err := digest.ReadPath(u.ctx, u.now(n), now)
	if err != nil || st.Hash != have.Hash || now.over {
		return false, u.ctx.Err()
	}
	text, want := now.b, *have
	var kept []string
	for i := len(t.spans) - 1; i >= 0; i-- {
		s := &t.spans[i]
		left, err := u.s.contentOf(u.ctx, s.after)
		var before []byte
		if err == nil {
			before, err = u.s.contentOf(u.ctx, s.before)
		}
		if err != nil {
			t.noMerge = err.Error()
			return false, u.ctx.Err()
		}
		if left == nil || before == nil {
			return false, nil
		}
		var k []string
		text, k, err = u.o.Merger.Merge(n.path, left, before, text)
		if errors.Is(err, ErrNoMerge) {
			t.noMerge = err.Error()
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("merge %q: %w", n.path, err)
		}
		kept = append(kept, k...)
		revert(&want, s.before, s.after)
	}
	if !bytes.Equal(text, now.b) {
		want.Hash, want.Size, want.Mtime = digest.Sum(text), uint64(len(text)), event.TimeOf(u.s.now())
	}
	step := Step{Path: n.path, Want: want, Have: *have, Content: append([]byte{}, text...), Reason: "undo of " + t.record + ", merged"}
	if len(kept) > 0 {
		step.Reason += "; stays: " + strings.Join(kept, ", ")
	}
	step.Action = actionFor(have, &want)
	t.step = &step
	return true, nil
}

// revert gives metadata back that the cause changed and nobody else since.
func revert(want, before, after *event.State) {
	if want.Mode == after.Mode {
		want.Mode = before.Mode
	}
	if want.UID == after.UID {
		want.UID, want.User = before.UID, before.User
	}
	if want.GID == after.GID {
		want.GID, want.Group = before.GID, before.Group
	}
	if want.Flags == after.Flags {
		want.Flags = before.Flags
	}
	if x := (event.State{Exists: true, Xattrs: after.Xattrs}); len(x.Diff(&event.State{Exists: true, Xattrs: want.Xattrs})) == 0 {
		want.Xattrs = before.Xattrs
	}
}

// contentOf returns the content of a state, nil if it is no file, too long, or
// not in the vault.
func (s *Store) contentOf(ctx context.Context, st *event.State) ([]byte, error) {
	switch {
	case st == nil, !st.Exists, st.Type != event.TypeRegular || st.Hash.IsZero() || st.Size > mergeMax:
		return nil, ctx.Err()
	}
	if ok, err := s.Has(st.Hash); !ok {
		return nil, errors.Join(err, ctx.Err())
	}
	r, err := s.Content(st.Hash)
	if err != nil {
		return nil, fmt.Errorf("content %s: %w", st.Hash, err)
	}
	b, err := io.ReadAll(r)
	if b == nil {
		b = []byte{}
	}
	return b, errors.Join(err, r.Close())
}

// limited keeps up to max bytes that it is given.
type limited struct {
	max  int
	b    []byte
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > l.max {
		l.over = true
	} else {
		l.b = append(l.b, p...)
	}
	return len(p), nil
}

// Reset begins again: the file changed while it was read.
func (l *limited) Reset() { l.b, l.over = l.b[:0], false }
