package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/holdfast/holdfast/pkg/accounts"
	"github.com/holdfast/holdfast/rollback"
)

// contentDiff prints how two contents of path differ, on a terminal in colour. Hashes of
// passwords and key material are not shown.
func (a *app) contentDiff(path string, old, now *side) error {
	x, err := old.read()
	if err != nil {
		return err
	}
	y, err := now.read()
	if err != nil {
		return err
	}
	if max(len(x), len(y)) <= maxDiff { // else nothing of them is shown
		shownX, shownY := accounts.Redact(path, x, y)
		if !bytes.Equal(x, shownX) || !bytes.Equal(y, shownY) {
			fmt.Fprintln(a.err, "note: hashes and keys are not shown, but numbered or named by their fingerprints")
		}
		x, y = shownX, shownY
	}
	var out bytes.Buffer
	if _, err := rollback.DiffText(&out, bytes.NewReader(x), bytes.NewReader(y), rollback.DiffOptions{OldName: old.name, NewName: now.name, Max: maxDiff}); err != nil {
		return err
	}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		color := ""
		switch {
		case strings.HasPrefix(line, "+"):
			color = green
		case strings.HasPrefix(line, "-"):
			color = red
		}
		if a.terminal { // a file or a pipe gets the bytes as they are, for patch
			line = printableText(line)
		}
		if color != "" {
			line = a.color(color, line)
		}
		a.line(line)
	}
	return nil
}

// read returns the content of a side, cut behind maxDiff.
func (s *side) read() (b []byte, err error) {
	r, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("diff: %s: %w", s.name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if b, err = io.ReadAll(io.LimitReader(r, maxDiff+1)); err != nil {
		err = fmt.Errorf("diff: %s: %w", s.name, err)
	}
	return b, err
}
