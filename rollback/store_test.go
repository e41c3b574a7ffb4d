package rollback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

func TestVersionsAreKeptInOrderAndSurviveReopening(t *testing.T) {
	p := places(t)[0]
	at := time.Unix(1000, 0)
	s := open1(t, p.vault, Options{Now: func() time.Time { at = at.Add(time.Second); return at }})
	file := filepath.Join(p.dir, "f\xff\n")
	var ids []uint64
	for i := range 4 {
		write(t, file, fmt.Sprint("content ", i))
		v, err := s.Capture(t.Context(), file, Provenance{Record: fmt.Sprint("r", i), Reason: "because", Trust: i == 1})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, v.ID)
		again, err := s.Capture(t.Context(), file, Provenance{})
		if err != nil || again.ID != v.ID {
			t.Errorf("an unchanged file became version %d, %v", again.ID, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	gone, err := s.Capture(t.Context(), file, Provenance{})
	if err != nil || gone.State.Exists || gone.ID != 5 {
		t.Errorf("captured nothing as %+v, %v", gone, err)
	}
	check := func(s *Store) {
		t.Helper()
		if !reflect.DeepEqual(ids, []uint64{1, 2, 3, 4}) {
			t.Errorf("ids %v", ids)
		}
		if v, ok := s.Trusted(file); !ok || v.ID != 2 || !v.Trusted || v.Record != "r1" {
			t.Errorf("trusted %+v", v)
		}
		if v, ok := s.Latest(file); !ok || v.ID != 5 || v.Trusted {
			t.Errorf("latest %+v", v)
		}
		v3, _ := s.Version(file, 3)
		if v, ok := s.At(file, v3.Time); !ok || v.ID != 3 {
			t.Errorf("at the time of version 3: %+v", v)
		}
		if _, ok := s.At(file, event.TimeOf(time.Unix(999, 0))); ok {
			t.Error("there is a version from before the first one")
		}
		trusted := 0
		for _, v := range s.Versions(file) {
			if v.Trusted {
				trusted++
			}
			if !v.State.Exists {
				continue
			}
			r, err := s.Content(v.State.Hash)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if want := fmt.Sprint("content ", v.ID-1); err != nil || string(b) != want {
				t.Errorf("content of version %d: %q, %v", v.ID, b, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if trusted != 1 || len(s.Versions(file)) != 5 {
			t.Errorf("%d trusted of %d versions", trusted, len(s.Versions(file)))
		}
		clean(t, s)
	}
	check(s)
	before := s.Versions(file)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open1(t, p.vault, Options{})
	check(s)
	if after := s.Versions(file); !reflect.DeepEqual(before, after) {
		t.Errorf("versions were\n%+v\nand are\n%+v", before, after)
	}
	if v, err := s.Promote(file, 4, Provenance{Reason: "reviewed"}); err != nil || !v.Trusted {
		t.Errorf("promote: %+v, %v", v, err)
	}
	if _, err := s.Promote(file, 9, Provenance{}); !errors.Is(err, ErrNoVersion) {
		t.Errorf("promote of a version that is not there: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReadOnly(p.vault)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if v, _ := r.Trusted(file); v.ID != 4 {
		t.Errorf("after reopening version %d is trusted", v.ID)
	}
}

func TestPathsAreComparedByComponent(t *testing.T) {
	s := open1(t, places(t)[1].vault, Options{})
	for _, p := range []string{"/a", "/a/b", "/a/bc", "/ab", "/a/b/c"} {
		if _, err := s.Absent(p, Provenance{}); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{
		"":     "[/a /a/b /a/b/c /a/bc /ab]",
		"/":    "[/a /a/b /a/b/c /a/bc /ab]",
		"/a":   "[/a /a/b /a/b/c /a/bc]",
		"/a/b": "[/a/b /a/b/c]",
		"/x":   "[]",
	} {
		if got := fmt.Sprint(s.Paths(prefix)); got != want {
			t.Errorf("Paths(%q) = %s, want %s", prefix, got, want)
		}
	}
}

func TestOneProcessWritesAndOthersRead(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	if _, err := Open(p.vault, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second writer: %v", err)
	}
	file := filepath.Join(p.dir, "f")
	write(t, file, "x")
	capture(t, s, file)
	look := func() int {
		r, err := OpenReadOnly(p.vault)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		clean(t, r)
		if _, err := r.Capture(t.Context(), file, Provenance{}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("capture by a reader: %v", err)
		}
		if _, err := r.RestorePath(t.Context(), file, Version{}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("restore by a reader: %v", err)
		}
		return len(r.Paths(""))
	}
	if n := look(); n != 0 {
		t.Errorf("a reader sees %d paths that are not durable", n)
	}
	sync1(t, s)
	if n := look(); n != 1 {
		t.Errorf("a reader sees %d paths", n)
	}
	if _, err := OpenReadOnly(filepath.Join(p.dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading a vault that is not there: %v", err)
	}
}

func TestTheRecordOfAVersionComesBackAsItWasNamed(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	f := filepath.Join(p.dir, "f")
	ids := []string{"host/boot/1", "host/boot/2", "", "host/boot/007", "no number", "12", "host/boot/0", "a/18446744073709551615", "a/18446744073709551616"}
	for i, id := range ids {
		write(t, f, fmt.Sprint(i))
		v, err := s.Capture(context.Background(), f, Provenance{Record: id, Reason: "r"})
		if err != nil || v.Record != id {
			t.Fatalf("captured for record %q, it says %q: %v", id, v.Record, err)
		}
	}
	sync1(t, s)
	other, err := OpenReadOnly(p.vault)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, st := range []*Store{s, other} {
		for i, v := range st.Versions(f) {
			if v.Record != ids[i] {
				t.Errorf("version %d was made by record %q, it says %q", v.ID, ids[i], v.Record)
			}
		}
	}
}

// What is kept count of is what another process counts when it opens the vault.
func TestStatsAreKept(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	f := filepath.Join(p.dir, "f")
	for i, content := range []string{"one", "two", "one", strings.Repeat("three", 1<<18), "two", "four"} {
		write(t, f, content)
		capture(t, s, f)
		if i%2 == 0 {
			sync1(t, s)
		}
		if i == 4 { // a content that is damaged gives way: it goes, and comes anew
			if err := s.objects.Remove(event.Hash(digest.Sum([]byte("one")))); err != nil {
				t.Fatal(err)
			}
			write(t, f, "one")
			capture(t, s, f)
		}
		sync1(t, s)
		other, err := OpenReadOnly(p.vault)
		if err != nil {
			t.Fatal(err)
		}
		got, want := s.Stats(), other.Stats()
		got.Reserve = 0
		if got != want || got.Objects == 0 {
			t.Errorf("after %d captures it keeps %+v, what is there is %+v", i+1, got, want)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCaptureOfAStateThatWasJustRead(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	in := s.Intake()
	if _, err := in.Write(bytes.Repeat([]byte("x"), 3<<20)); err != nil {
		t.Fatal(err)
	}
	in.Reset()
	if _, err := in.Write([]byte("short")); err != nil {
		t.Fatal(err)
	}
	st := event.State{Exists: true, Type: event.TypeRegular, Size: 5, Mode: 0o600, Hash: digest.Sum([]byte("short"))}
	if _, err := s.CaptureState("/some/where", st, in, Provenance{Trust: true}); err != nil {
		t.Fatal(err)
	}
	st.Hash = event.Hash{}
	if _, err := s.CaptureState("/some/where", st, s.Intake(), Provenance{}); err == nil {
		t.Error("a state whose content was not read became a version")
	}
	sync1(t, s)
	if left := storetest.Run(t, "find", filepath.Join(p.vault, "tmp"), "-type", "f"); left != "" {
		t.Errorf("left in tmp: %s", left)
	}
	clean(t, s)
}

func TestCaptureStopsWhenItIsTold(t *testing.T) {
	p := places(t)[1]
	s := open1(t, p.vault, Options{})
	file := filepath.Join(p.dir, "f")
	write(t, file, "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Capture(ctx, file, Provenance{}); !errors.Is(err, context.Canceled) {
		t.Errorf("capture: %v", err)
	}
	if _, err := s.Capture(t.Context(), "relative", Provenance{}); err == nil {
		t.Error("captured a relative path")
	}
}

func FuzzReadFrames(f *testing.F) {
	enc, err := newEncoding()
	if err != nil {
		f.Fatal(err)
	}
	var whole []byte
	for i := range 3 {
		st := event.State{Exists: true, Type: event.TypeRegular, Size: uint64(i), Mode: 0o644, Xattrs: map[string]event.Bytes{"user.a": {1}}}
		if whole, err = appendFrame(whole, enc, &entry{Kind: entryVersion, Path: []byte("/p"), ID: uint64(i + 1), State: &st, Trusted: true}); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append(append([]byte{}, whole[3:]...), whole...))
	f.Add([]byte("HFVLHFVLHFVL"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newCatalog()
		sum, last := 0, 0
		end := readFrames(b, func(off int, body []byte) {
			if off < last {
				t.Fatalf("frame at %d after %d", off, last)
			}
			last = off + frameHead + len(body)
			sum += frameHead + len(body)
			if e, err := decodeEntry(body); err == nil {
				if c.apply(e) == nil {
					// What was taken can be written again and says the same.
					again, err := appendFrame(nil, enc, e)
					if err != nil {
						t.Fatal(err)
					}
					body2, ok := frameAt(again)
					if !ok {
						t.Fatal("a frame of ours is not valid")
					}
					e2, err := decodeEntry(body2)
					if err != nil || e2.ID != e.ID || !bytes.Equal(e2.Path, e.Path) {
						t.Fatalf("%+v came back as %+v, %v", e, e2, err)
					}
				}
			}
		}, func(_, n int) { sum += n })
		if sum != end || end > len(b) {
			t.Fatalf("frames and damage add up to %d, the end is %d of %d", sum, end, len(b))
		}
	})
}

func TestTheLogGoesOnInANewSegmentWhenOneIsFull(t *testing.T) {
	dir := storetest.Temp(t)
	vault := filepath.Join(dir, "vault")
	s := open1(t, vault, Options{})
	const n = 40_000
	st := event.State{Exists: true, Type: event.TypeDir, Mode: 0o755, User: "root", Group: "root"}
	for i := range n {
		if _, err := s.record(fmt.Sprint("/some/directory/", i), st, nil, Provenance{Trust: true, Reason: strings.Repeat("because ", 20)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := os.ReadDir(filepath.Join(vault, "versions"))
	if err != nil || len(segments) < 2 {
		t.Errorf("%d segments, %v", len(segments), err)
	}
	s = open1(t, vault, Options{})
	if got := len(s.Paths("")); got != n || len(s.Opened().Damage) > 0 {
		t.Errorf("%d paths, damage %v", got, s.Opened().Damage)
	}
	clean(t, s)
}
