package pipeline

import (
	"bytes"
	"context"
	"errors"

	"github.com/holdfast/holdfast/pkg/accounts"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
)

// meaning tells what a change of a file of accounts did, at both names of a rename.
func (p *Pipeline) meaning(ctx context.Context, c *event.Change, f *rehash.Finding) []string {
	if c.Blocked {
		return nil
	}
	out := p.meaningOf(ctx, f.Path, &f.Before, &f.After, f.Content)
	if f.From != nil {
		out = append(out, p.meaningOf(ctx, f.From.Path, &f.From.Before, &f.From.After, nil)...)
	}
	return out
}

func (p *Pipeline) meaningOf(ctx context.Context, path string, before, after *event.State, read rehash.Intake) []string {
	if !accounts.Known(path) || before.Exists == after.Exists && before.Hash == after.Hash && before.Type == after.Type && bytes.Equal(before.Target, after.Target) {
		return nil
	}
	kept := func(h event.Hash) ([]byte, error) {
		if p.o.Vault == nil {
			return nil, errNoVault
		}
		return p.o.Vault.Content(h, accounts.MaxSize)
	}
	now := func(h event.Hash) ([]byte, error) {
		if in, ok := read.(interface{ Bytes() ([]byte, bool) }); ok {
			if b, ok := in.Bytes(); ok {
				return b, nil
			}
		}
		if b, err := kept(h); err == nil {
			return b, nil
		}
		return p.live(ctx, path, h)
	}
	return accounts.Meaning(path, accounts.SideOf(before, kept), accounts.SideOf(after, now))
}

var (
	errNoVault = errors.New("nothing is kept")
	errElse    = errors.New("something else is there by now")
)

// live reads a path whose content was h when it was looked at.
func (p *Pipeline) live(ctx context.Context, path string, h event.Hash) ([]byte, error) {
	var b bounded
	s, err := p.states.Read(ctx, path, &b)
	switch {
	case err != nil:
		return nil, err
	case s.Hash != h || b.over:
		return nil, errElse
	}
	return b.b, nil
}

// bounded keeps as much as accounts reads.
type bounded struct {
	b    []byte
	over bool
}

func (w *bounded) Write(p []byte) (int, error) {
	if w.over = w.over || len(w.b)+len(p) > accounts.MaxSize; !w.over {
		w.b = append(w.b, p...)
	}
	return len(p), nil
}

// Reset begins again: the file changed while it was read.
func (w *bounded) Reset() { w.b, w.over = nil, false }
