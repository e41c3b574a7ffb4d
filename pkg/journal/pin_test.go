package journal

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast/holdfast/pkg/event"
)

// pinOf is what an audit keeps of a log of n records.
func pinOf(t testing.TB, n int) *Pin {
	t.Helper()
	dir := t.TempDir()
	j, err := Open(filepath.Join(dir, "journal"), filepath.Join(dir, "keys"), Options{HostID: "h", Host: "h", Boot: "b", KeyEvery: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := j.AppendDurable(context.Background(), &event.Record{Kind: event.RecChange, Time: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	notes, err := Handovers(filepath.Join(dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	last, err := LatestCheckpoint(filepath.Join(dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAudit("h", "", nil, false, append(notes, last), func(p Problem) { t.Error(p.Text) })
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenReader(filepath.Join(dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		e, err := r.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		a.Record(e.Bytes)
	}
	sum, pin := a.End()
	if err := r.Close(); err != nil || pin == nil || sum.Proven != uint64(n) {
		t.Fatalf("%+v, %v, %v", sum, pin, err)
	}
	return pin
}

func TestWhatAnAuditKeptIsTakenOnlyAsItWrote(t *testing.T) {
	dir, p := t.TempDir(), pinOf(t, 11)
	if err := p.Write(dir); err != nil {
		t.Fatal(err)
	}
	if back, err := ReadPin(dir, "h"); err != nil || !reflect.DeepEqual(back, p) {
		t.Fatalf("%+v, %v, want %+v", back, err, p)
	}
	if ids, err := Pinned(dir); err != nil || len(ids) != 1 || ids[0] != "h" {
		t.Errorf("%q, %v", ids, err)
	}
	if none, err := ReadPin(dir, "another"); none != nil || err != nil {
		t.Errorf("of another host: %v, %v", none, err)
	}
	for name, edit := range map[string]func(*Pin){
		"another origin":             func(p *Pin) { p.Origin += "2" },
		"another key":                func(p *Pin) { p.Key = p.First },
		"no key":                     func(p *Pin) { p.Key = "" },
		"a key that begins later":    func(p *Pin) { p.Since = 12 },
		"another hash in the edge":   func(p *Pin) { p.Edge[1][0] ^= 1 },
		"an edge that is too short":  func(p *Pin) { p.Edge = p.Edge[1:] },
		"an edge that is too long":   func(p *Pin) { p.Edge = append(p.Edge, tlog.Hash{}) },
		"a note that nobody signed":  func(p *Pin) { p.Note = "holdfast.journal/h\n" + p.Note[len("holdfast.journal/h\n")+1:] },
		"no note":                    func(p *Pin) { p.Note = "" },
		"a first key that is no key": func(p *Pin) { p.First = "x" },
	} {
		bad := *p
		bad.Edge = append([]tlog.Hash{}, p.Edge...)
		edit(&bad)
		b, err := json.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "h.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPin(dir, "h"); !errors.Is(err, ErrPin) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoHostIdLeavesTheDirectoryOfPins(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"h", "h~2", "", ".", "..", "../h", "a/b", "a b", ".h", "sha256-h", "\x00", string(make([]byte, 4000)), "é"} {
		name := pinName(origin(id))
		if name != filepath.Base(name) || len(name) > 140 || name[0] == '.' {
			t.Errorf("%q: %q", id, name)
		}
		if other, ok := seen[name]; ok && origin(other) != origin(id) {
			t.Errorf("%q and %q are both %q", other, id, name)
		}
		seen[name] = id
	}
}

func FuzzPin(f *testing.F) {
	b, err := json.Marshal(pinOf(f, 5))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"edge":[],"note":"","key":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := new(Pin)
		if json.Unmarshal(b, p) != nil {
			return
		}
		if tree, c, err := p.check(); err == nil && (tree.root() != c.Root || uint64(tree.size) != c.Size) {
			t.Errorf("taken: %s", b)
		}
	})
}
