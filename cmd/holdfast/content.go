package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/rollback"
)

// contentDiff prints how two contents differ, on a terminal in colour.
func (a *app) contentDiff(old, now *side) (err error) {
	x, err := old.open()
	if err != nil {
		return fmt.Errorf("diff: %s: %w", old.name, err)
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	y, err := now.open()
	if err != nil {
		return fmt.Errorf("diff: %s: %w", now.name, err)
	}
	defer func() { err = errors.Join(err, y.Close()) }()
	var out bytes.Buffer
	if _, err := rollback.DiffText(&out, x, y, rollback.DiffOptions{OldName: old.name, NewName: now.name, Max: maxDiff}); err != nil {
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
