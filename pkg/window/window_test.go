package window

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

const minute = int64(time.Minute)

// at is a machine whose clocks a test sets.
type at struct {
	boot string
	now  int64
	wall event.Time
}

func (a *at) open(t *testing.T, name string) *Set {
	t.Helper()
	s, err := Open(a.options(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (a *at) options(name string) Options {
	return Options{
		File: name, Boot: a.boot, Now: func() int64 { return a.now }, Wall: func() event.Time { return a.wall },
		MntNS: "mnt:[1]", Vouch: func(*Window) error { return nil },
	}
}

func (a *at) pass(d time.Duration) { a.now, a.wall = a.now+int64(d), a.wall+event.Time(d) }

func noon() *at {
	return &at{boot: "b1", now: 100 * minute, wall: event.TimeOf(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))}
}

func (s *Set) must(t *testing.T, w Window, long time.Duration) Window {
	t.Helper()
	w, err := s.New(w, long)
	w.Record = fmt.Sprint("h/b1/", w.Number)
	if err := errors.Join(err, s.Add(w)); err != nil {
		t.Fatal(err)
	}
	return w
}

func alice() *event.Actor { return &event.Actor{User: "alice", Loginuid: 1000} }

func vim() *event.Process {
	return &event.Process{Exe: "/usr/bin/vim.basic", MntNS: "mnt:[1]"}
}

func TestWhatAWindowCovers(t *testing.T) {
	script := &event.Process{Exe: "/usr/bin/python3.11", Script: "/opt/deploy", MntNS: "mnt:[1]"}
	elsewhere := &event.Process{Exe: "/usr/bin/vim.basic", MntNS: "mnt:[2]"}
	for _, tt := range []struct {
		name  string
		w     Window
		paths []string
		actor *event.Actor
		proc  *event.Process
		want  bool
	}{
		{"a window for everything covers a change by nobody who is known", Window{}, []string{"/srv/a"}, event.Nobody(), nil, true},
		{"a path covers itself", Window{Path: "/srv/a"}, []string{"/srv/a"}, alice(), vim(), true},
		{"a path covers what is below it", Window{Path: "/srv/a"}, []string{"/srv/a/b/c"}, alice(), vim(), true},
		{"a path does not cover what begins with its name", Window{Path: "/srv/a"}, []string{"/srv/ab"}, alice(), vim(), false},
		{"all names have to be covered", Window{Path: "/srv/a"}, []string{"/srv/a/b", "/srv/c"}, alice(), vim(), false},
		{"a change without a path is not covered", Window{}, nil, alice(), vim(), false},
		{"a pattern covers a name", Window{Path: "/srv/*.conf"}, []string{"/srv/a.conf"}, alice(), vim(), true},
		{"a pattern covers what is below a name", Window{Path: "/srv/*.d"}, []string{"/srv/a.d/x/y"}, alice(), vim(), true},
		{"a pattern does not cross a slash", Window{Path: "/srv/*.conf"}, []string{"/srv/a/b.conf"}, alice(), vim(), false},
		{"a pattern in the middle", Window{Path: "/srv/*/conf"}, []string{"/srv/a/conf/x"}, alice(), vim(), true},
		{"a pattern does not cover what is above it", Window{Path: "/srv/*/conf"}, []string{"/srv/a"}, alice(), vim(), false},
		{"a person by name", Window{User: "alice"}, []string{"/a"}, alice(), vim(), true},
		{"a person by number", Window{User: "1000"}, []string{"/a"}, alice(), vim(), true},
		{"another person", Window{User: "bob"}, []string{"/a"}, alice(), vim(), false},
		{"nobody is no person", Window{User: "alice"}, []string{"/a"}, event.Nobody(), vim(), false},
		{"the number of nobody is no person", Window{User: "4294967295"}, []string{"/a"}, event.Nobody(), vim(), false},
		{"a program", Window{Exe: "/usr/bin/vim.basic"}, []string{"/a"}, event.Nobody(), vim(), true},
		{"another program", Window{Exe: "/usr/bin/vim"}, []string{"/a"}, alice(), vim(), false},
		{"a program that is not known", Window{Exe: "/usr/bin/vim"}, []string{"/a"}, alice(), nil, false},
		{"a script", Window{Exe: "/opt/deploy"}, []string{"/a"}, alice(), script, true},
		{"its interpreter", Window{Exe: "/usr/bin/python3.11"}, []string{"/a"}, alice(), script, true},
		{"a path in another mount namespace may be another program", Window{Exe: "/usr/bin/vim.basic"}, []string{"/a"}, alice(), elsewhere, false},
		{"all that is given has to match", Window{User: "alice", Exe: "/usr/bin/vim.basic", Path: "/srv"}, []string{"/a"}, alice(), vim(), false},
		{"all that is given matches", Window{User: "alice", Exe: "/usr/bin/vim.basic", Path: "/srv"}, []string{"/srv/a"}, alice(), vim(), true},
		{"bytes that are no text", Window{Path: "/srv/\xff"}, []string{"/srv/\xff/x"}, alice(), vim(), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := noon()
			s := m.open(t, filepath.Join(t.TempDir(), "windows"))
			tt.w.Ticket = "T-1"
			w := s.must(t, tt.w, time.Hour)
			m.pass(time.Minute)
			c := Change{Paths: tt.paths, Actor: tt.actor, Process: tt.proc, First: m.now, Last: m.now}
			if got, ok := s.Covering(&c); ok != tt.want || ok && got.Number != w.Number {
				t.Errorf("covered by %+v, %v", got, ok)
			}
			for _, p := range tt.paths {
				if tt.want && !s.May(p) {
					t.Errorf("%s is covered, and may not be", p)
				}
			}
		})
	}
}

// It counts when a change was done, not when it is asked about.
func TestTheTimeOfTheChangeDecides(t *testing.T) {
	m := noon()
	s := m.open(t, filepath.Join(t.TempDir(), "windows"))
	w := s.must(t, Window{Ticket: "T"}, 10*time.Minute)
	covered := func(first, last int64) bool {
		_, ok := s.Covering(&Change{Paths: []string{"/a"}, First: w.From + first, Last: w.From + last})
		return ok
	}
	check := func(when string, end int64) {
		t.Helper()
		for _, x := range []struct {
			first, last int64
			want        bool
		}{
			{0, 0, true}, {minute, 2 * minute, true}, {end, end, true}, {-1, minute, false}, {end - 1, end + 1, false},
			{end + 1, end + 1, false}, {-2, -1, false}, {2, 1, false},
		} {
			if got := covered(x.first, x.last); got != x.want {
				t.Errorf("%s: from %d to %d: %v", when, x.first, x.last, got)
			}
		}
	}
	check("open", 10*minute)
	m.wall -= event.Time(time.Hour) // somebody sets the clock
	if len(s.List()) != 1 || s.Left(&w) != 10*time.Minute {
		t.Errorf("after the clock was set %s are left", s.Left(&w))
	}
	m.pass(11 * time.Minute)
	if len(s.List()) != 0 || len(s.Due()) != 1 {
		t.Errorf("after its time: open %v, due %v", s.List(), s.Due())
	}
	check("over", 10*minute)
	if err := s.Remove(w.Number); err != nil {
		t.Fatal(err)
	}
	check("removed", 10*minute)
	s.Forget(w.From + 10*minute)
	check("not forgotten", 10*minute)
	s.Forget(w.From + 10*minute + 1)
	if covered(minute, minute) {
		t.Error("it covers after it is forgotten")
	}
	early := s.must(t, Window{Ticket: "T"}, 10*time.Minute)
	w = early
	m.pass(3 * time.Minute)
	if err := s.Remove(early.Number); err != nil {
		t.Fatal(err)
	}
	check("closed early", 3*minute)
}

func TestAWindowSurvivesARestartAndAReboot(t *testing.T) {
	name := filepath.Join(t.TempDir(), "windows")
	m := noon()
	want := m.open(t, name).must(t, Window{Ticket: "T \"1\"", Path: "/srv/\xff*", User: "alice", Exe: "/usr/bin/\xfe", By: "root"}, time.Hour)
	m.pass(10 * time.Minute)
	left := func(s *Set) time.Duration {
		t.Helper()
		ws := s.List()
		if len(ws) == 0 {
			return 0
		}
		if len(ws) != 1 || !reflect.DeepEqual(ws[0], want) {
			t.Errorf("%+v, want %+v", ws, want)
		}
		return s.Left(&ws[0])
	}
	if got := left(m.open(t, name)); got != 50*time.Minute {
		t.Errorf("after a restart %s are left", got)
	}
	m.wall += event.Time(24 * time.Hour)
	if got := left(m.open(t, name)); got != 50*time.Minute {
		t.Errorf("after a restart, with another clock, %s are left", got)
	}
	for _, tt := range []struct {
		name string
		wall time.Duration // since it was opened
		want time.Duration
	}{
		{"goes on to its end", 20 * time.Minute, 40 * time.Minute},
		{"is over if its time passed", 61 * time.Minute, 0},
		{"is over if the clock stands before its beginning", -time.Second, 0},
	} {
		after := &at{boot: "b2", now: 5 * minute, wall: want.Opened + event.Time(tt.wall)}
		s := after.open(t, name)
		if got := left(s); got != tt.want {
			t.Errorf("after a reboot it %s: %s are left", tt.name, got)
		}
		if (len(s.Due()) == 1) != (tt.want == 0) {
			t.Errorf("after a reboot it %s: due %v", tt.name, s.Due())
		}
		c := Change{Paths: []string{"/srv/\xffa"}, Actor: alice(), Process: &event.Process{Exe: `/usr/bin/\xFE`, MntNS: "mnt:[1]"}, First: -14 * minute, Last: 4*minute + 1}
		if _, ok := s.Covering(&c); ok != (tt.want != 0) {
			t.Errorf("after a reboot it %s: a change since its beginning is covered: %v", tt.name, ok)
		}
	}
	if w := m.open(t, name).must(t, Window{Ticket: "U"}, time.Hour); w.Number != want.Number+1 {
		t.Errorf("the next one is number %d", w.Number)
	}
}

func TestWhatMakesNoSenseIsRefused(t *testing.T) {
	m := noon()
	s := m.open(t, filepath.Join(t.TempDir(), "windows"))
	long := strings.Repeat("x", MaxTicket+1)
	for _, tt := range []struct {
		w    Window
		d    time.Duration
		want string
	}{
		{Window{}, time.Hour, "needs a ticket"},
		{Window{Ticket: long}, time.Hour, "bytes"},
		{Window{Ticket: "a\nb"}, time.Hour, "do not print"},
		{Window{Ticket: "a "}, time.Hour, "space"},
		{Window{Ticket: "T", User: "unknown"}, time.Hour, "is nobody"},
		{Window{Ticket: "T", User: long}, time.Hour, "bytes"},
		{Window{Ticket: "T", Path: "srv"}, time.Hour, "is relative"},
		{Window{Ticket: "T", Path: "/srv/../etc"}, time.Hour, "contains"},
		{Window{Ticket: "T", Path: "/srv/**"}, time.Hour, "covers all that is below"},
		{Window{Ticket: "T", Path: "/srv/["}, time.Hour, "no valid pattern"},
		{Window{Ticket: "T", Exe: "/usr/bin/*"}, time.Hour, "names no file"},
		{Window{Ticket: "T", Exe: "/"}, time.Hour, "names no file"},
		{Window{Ticket: "T"}, 0, "at least"},
		{Window{Ticket: "T"}, -time.Hour, "at least"},
		{Window{Ticket: "T"}, MaxFor + 1, "at most"},
	} {
		if _, err := s.New(tt.w, tt.d); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v for %s: %v, want %q", tt.w, tt.d, err, tt.want)
		}
	}
	for range MaxOpen {
		s.must(t, Window{Ticket: "T"}, time.Hour)
	}
	if _, err := s.New(Window{Ticket: "T"}, time.Hour); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	if w, err := s.New(Window{Ticket: "T"}, time.Hour); err != nil || w.Number != MaxOpen+1 {
		t.Errorf("in the room of a closed one: %d, %v", w.Number, err)
	}
}

func TestADamagedFileOpensNothing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "windows")
	m := noon()
	m.open(t, name).must(t, Window{Ticket: "T"}, time.Hour)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "x", string(good[:len(good)/2]), string(good) + "{}", strings.Replace(string(good), `"format": 1`, `"format": 2`, 1),
		strings.Replace(string(good), `"ticket": "T"`, `"ticket": ""`, 1), strings.Replace(string(good), `"by"`, `"bye"`, 1)} {
		if err := os.WriteFile(name, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(m.options(name))
		if !errors.Is(err, ErrDamaged) || len(s.List()) != 0 {
			t.Errorf("%q: %v, %v", bad, s.List(), err)
		}
	}
	if err := os.WriteFile(name, good, 0o600); err != nil {
		t.Fatal(err)
	}
	o := m.options(name)
	o.Vouch = func(*Window) error { return errors.New("nobody knows of it") }
	if s, err := Open(o); err == nil || !strings.Contains(err.Error(), "window 1, ticket T is not in force: nobody knows of it") || len(s.List()) != 0 {
		t.Errorf("a window that is not believed: %v, %v", s.List(), err)
	}
}

func TestARecordVouchesForItsWindowAlone(t *testing.T) {
	w := Window{Number: 1, Ticket: "T", Path: "/srv", Opened: 5, Until: 6, Boot: "b1", From: 7, Record: "h/b1/9"}
	r := &event.Record{ID: "h/b1/9", Boot: "b1", Response: &event.Response{Action: ActionOpen}, Detail: w.Detail()}
	if !w.Vouched(r) {
		t.Error("its own record does not")
	}
	for name, change := range map[string]func(*Window){
		"another path": func(w *Window) { w.Path = "/" }, "no path": func(w *Window) { w.Path = "" }, "another user": func(w *Window) { w.User = "eve" },
		"another program": func(w *Window) { w.Exe = "/x" }, "a later end": func(w *Window) { w.Until++ }, "another beginning": func(w *Window) { w.From++ },
		"another boot": func(w *Window) { w.Boot = "b2" }, "another record": func(w *Window) { w.Record = "h/b1/8" }, "another ticket": func(w *Window) { w.Ticket = "U" },
	} {
		x := w
		change(&x)
		if x.Vouched(r) {
			t.Errorf("it does for %s", name)
		}
	}
	r.Response.Action = ActionClose
	if w.Vouched(r) {
		t.Error("the record of an end does")
	}
}

func FuzzAFileIsReadOrRefused(f *testing.F) {
	m := noon()
	w := Window{Number: 1, Ticket: "T", Path: "/srv/\xff", User: "u", Exe: "/x", Opened: m.wall, Until: m.wall + event.Time(time.Hour), Boot: "b1", From: 5, Record: "h/b/1", By: "root"}
	v := w
	v.Number = 2
	for _, ws := range [][]Window{nil, {w}, {w, v}} {
		b, err := format(ws, 3)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ws, next, err := parse(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) || ws != nil {
				t.Fatalf("%v with %v", err, ws)
			}
			return
		}
		again, err := format(ws, next)
		if err != nil {
			t.Fatal(err)
		}
		back, n, err := parse(again)
		if err != nil || n != next || !slices.Equal(back, ws) {
			t.Fatalf("%+v %d, %v, was %+v %d", back, n, err, ws, next)
		}
		s := &Set{o: m.options("")}
		for _, w := range ws {
			s.open = append(s.open, s.place(w))
		}
		s.Covering(&Change{Paths: []string{"/srv/a"}, Actor: alice(), Process: vim(), First: 1, Last: 2})
	})
}
