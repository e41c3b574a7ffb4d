package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

func TestActs(t *testing.T) {
	ops := event.OpNames()
	seen := map[string]bool{}
	for _, a := range acts() {
		t.Run(a.name, func(t *testing.T) {
			if seen[a.name] {
				t.Error("the name appears twice")
			}
			seen[a.name] = true
			if !slices.Contains(ops, a.op) {
				t.Errorf("records know no op %q", a.op)
			}
			if a.from == none || a.do == nil {
				t.Error("it has no path or does nothing")
			}
		})
	}
}

func TestContentActsLeaveWhatTheySay(t *testing.T) {
	for _, a := range contentActs() {
		t.Run(a.name, func(t *testing.T) {
			path, _ := a.paths(t.TempDir(), "")
			if err := makeThing(path, a.have); err != nil {
				t.Fatal(err)
			}
			_, content, err := stateOf(path)
			if err != nil {
				t.Fatal(err)
			}
			o, err := a.do(path, "", content)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != string(o.content) {
				t.Errorf("%s holds %q, %v; the act says %q", filepath.Base(path), got, err, o.content)
			}
		})
	}
}
