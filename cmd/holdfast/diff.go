package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback"
)

func (a *app) diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "print what differs in content and metadata between two versions of a path",
		ArgsUsage: "PATH",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Value: "trusted", Usage: "the older `VERSION`: a number, trusted, latest or now"},
			&cli.StringFlag{Name: "to", Value: "now", Usage: "the newer `VERSION`: a number, trusted, latest or now"},
			jsonFlag(),
		},
		Action: a.diff,
	}
}

// maxDiff is the largest content that is compared line by line.
const maxDiff = 4 << 20

// side is one side of a comparison: content in the vault, or the live file.
type side struct {
	name  string
	state event.State
	hash  event.Hash
	vault *rollback.Store // keeps the content of hash
	live  *capped         // or: content that was just read
}

func (s *side) open() (io.ReadCloser, error) {
	switch {
	case s.hash.IsZero():
		return io.NopCloser(bytes.NewReader(nil)), nil
	case s.live != nil:
		return io.NopCloser(bytes.NewReader(s.live.b)), nil
	}
	return s.vault.Content(s.hash)
}

// capped keeps the first bytes that it is given.
type capped struct {
	b []byte
}

func (c *capped) Write(p []byte) (int, error) {
	c.b = append(c.b, p[:min(len(p), maxDiff+1-min(len(c.b), maxDiff+1))]...)
	return len(p), nil
}

// Reset begins again: the file changed while it was read.
func (c *capped) Reset() { c.b = c.b[:0] }

// difference is what diff --json prints.
type difference struct {
	Path    string       `json:"path"`
	From    string       `json:"from"`
	To      string       `json:"to"`
	Same    bool         `json:"same"`
	Changed []string     `json:"changed"`
	Before  *event.State `json:"before"`
	After   *event.State `json:"after"`
}

func (a *app) diff(c *cli.Context) (err error) {
	vault, path, err := a.vaultPath(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vault.Close()) }()
	old, err := pick(c.Context, vault, path, c.String("from"))
	if err != nil {
		return err
	}
	now, err := pick(c.Context, vault, path, c.String("to"))
	if err != nil {
		return err
	}
	changed := old.state.Diff(&now.state)
	if c.Bool("json") {
		return a.json(difference{Path: event.Text([]byte(path)), From: old.name, To: now.name, Same: len(changed) == 0, Changed: append([]string{}, changed...), Before: &old.state, After: &now.state})
	}
	if len(changed) == 0 {
		a.linef("%s: %s and %s are the same", shellQuote(path), old.name, now.name)
		return nil
	}
	a.linef("%s: %s → %s", shellQuote(path), old.name, now.name)
	for _, name := range changed {
		a.metaDiff(name, &old.state, &now.state)
	}
	if old.hash == now.hash {
		return nil
	}
	return a.contentDiff(path, &old, &now)
}

// pick resolves what --from and --to name.
func pick(ctx context.Context, vault *rollback.Store, path, what string) (side, error) {
	s := side{vault: vault}
	var v rollback.Version
	var ok bool
	switch what {
	case "now":
		live := &capped{}
		st, err := digest.ReadPath(ctx, path, live)
		if err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return s, hint(fmt.Errorf("diff: %w", err), "run as root")
			}
			return s, fmt.Errorf("diff: %w", err)
		}
		return side{name: "now", state: st, hash: st.Hash, live: live}, nil
	case "trusted":
		v, ok = vault.Trusted(path)
	case "latest":
		v, ok = vault.Latest(path)
	default:
		id, err := strconv.ParseUint(what, 10, 64)
		if err != nil {
			return s, hint(usagef("diff: %q is no version", what), "use a number from holdfast versions, trusted, latest or now")
		}
		v, ok = vault.Version(path, id)
	}
	if !ok && len(vault.Versions(path)) == 0 {
		return s, noVersions(vault, path)
	}
	if !ok {
		return s, hint(fmt.Errorf("%s: %w: version %s", shellQuote(path), errNotFound, what), "holdfast versions "+shellQuote(path)+" lists them")
	}
	s.name, s.state, s.hash = fmt.Sprintf("version %d", v.ID), v.State, v.State.Hash
	if what == "trusted" {
		s.name += " (trusted)"
	}
	return s, nil
}

// metaDiff prints one field that differs.
func (a *app) metaDiff(name string, old, now *event.State) {
	show := func(s *event.State) string { return fieldText(name, s) }
	if name == "xattrs" {
		a.xattrDiff(old, now)
		return
	}
	a.linef("  %s%s → %s", a.color(dim, pad(name, 8)), show(old), show(now))
}

func fieldText(name string, s *event.State) string {
	switch name {
	case "exists":
		if s.Exists {
			return stateText(s)
		}
		return "nothing there"
	case "type":
		return s.Type
	case "hash":
		if s.Hash.IsZero() {
			return "none"
		}
		return s.Hash.String()
	case "target":
		return shellQuote(string(s.Target))
	case "rdev":
		return fmt.Sprintf("%#x", s.Rdev)
	case "size":
		return fmt.Sprint(s.Size)
	case "mode":
		return s.Mode.String()
	case "uid":
		return fmt.Sprintf("%d (%s)", s.UID, printableText(s.User))
	case "gid":
		return fmt.Sprintf("%d (%s)", s.GID, printableText(s.Group))
	case "mtime":
		return s.Mtime.String()
	case "project":
		return fmt.Sprint(s.Project)
	case "flags":
		if t := s.FlagsText(); t != "" {
			return t
		}
		return "none"
	}
	return ""
}

// xattrDiff prints each attribute that differs; ACLs and capabilities as text.
func (a *app) xattrDiff(old, now *event.State) {
	show := func(s *event.State, name string) string {
		b, ok := s.Xattrs[name]
		switch {
		case !ok:
			return "none"
		case name == event.XattrACL && s.ACLText() != "":
			return printableText(s.ACLText())
		case name == event.XattrCaps && s.CapsText() != "":
			return printableText(s.CapsText())
		}
		return shellQuote(string(b))
	}
	names := old.XattrNames()
	for _, n := range now.XattrNames() {
		if _, ok := old.Xattrs[n]; !ok {
			names = append(names, n)
		}
	}
	for _, n := range names {
		if x, y := show(old, n), show(now, n); x != y {
			a.linef("  %s %s → %s", a.color(dim, printableText(n)), x, y)
		}
	}
}
