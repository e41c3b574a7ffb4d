package pipelinetest

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/rehash"
	"github.com/holdfast/holdfast/pkg/vault"
	"github.com/holdfast/holdfast/rollback"
)

// Clock is the machine's.
type Clock struct{}

var _ pipeline.Clock = Clock{}

// Boot implements pipeline.Clock.
func (Clock) Boot() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// Wall implements pipeline.Clock.
func (c Clock) Wall(boot uint64) event.Time {
	return event.TimeOf(time.Now()) - event.Time(c.Boot()) + event.Time(boot)
}

// After implements pipeline.Clock.
func (Clock) After(d time.Duration) (<-chan time.Time, func() bool) {
	t := time.NewTimer(d)
	return t.C, t.Stop
}

// who is the attributor: the user's name is made of the pid.
type who struct{}

func (who) Observe(ev *event.Event) []*event.Record {
	switch ev.Kind {
	case event.KindSession:
		return []*event.Record{{Kind: event.RecSession}}
	case event.KindExec:
		return []*event.Record{{Kind: event.RecExec, Time: Clock{}.Wall(ev.Time)}}
	}
	return nil
}

func (who) Who(ev *event.Event) (event.Actor, event.Process) {
	return event.Actor{User: User(ev.Key.PID), UID: ev.Creds.UID}, event.Process{PID: ev.Key.PID, Exe: "/bin/act"}
}

// User is the name of who acts under a pid.
func User(pid uint32) string { return "user" + string(rune('a'+pid%26)) }

// Self is the pid that stands for Holdfast's own.
const Self = 4242

// Scene is a watched tree, a pipeline over it, and actors.
type Scene struct {
	T       testing.TB
	Dir     string // the watched tree
	Outside string // beside it
	Mode    string
	P       *pipeline.Pipeline
	Journal *Journal
	Store   *rollback.Store

	// Options may be changed before Start. Down and Open are what a later start is
	// told of the time before.
	Options pipeline.Options
	Down    event.Time
	Open    []pipeline.Prior

	// Cut says that Stop may come before all is done: Run may end with an error.
	Cut bool

	// Late, if set, chooses events that are told one later than they happened, as
	// when a process loses its CPU at the end of a system call.
	Late *rand.Rand

	mu     sync.Mutex // guards all below
	late   *event.Event
	events []event.Event
	mute   bool // feed nothing
	stop   func()
}

// NewScene returns a Scene with an empty tree, not started. The vault is of the
// same file system as the tree.
func NewScene(t testing.TB, mode string) *Scene {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &Scene{T: t, Dir: base + "/tree", Outside: base + "/outside", Mode: mode, Journal: &Journal{}}
	for _, d := range []string{s.Dir, s.Outside} {
		s.Do(os.Mkdir(d, 0o755))
	}
	s.Store = s.open(base + "/vault")
	s.Options = pipeline.Options{
		Decode: s.decode, Attribute: who{}, Anchors: s, Journal: s.Journal, Clock: Clock{}, Vault: vault.Over(s.Store),
		Rule: func(p string) (pipeline.Rule, bool) {
			return pipeline.Rule{Name: "r", Mode: s.Mode}, p == s.Dir || strings.HasPrefix(p, s.Dir+"/") && !strings.HasPrefix(p, s.Dir+"/except")
		},
		Trees: func() []string { return []string{s.Dir} },
		Self:  Self, Tier: "test", Hook: func(uint16) string { return "scene" },
		Quiet: 20 * time.Millisecond, Grace: 2 * time.Millisecond, SelfDelay: 50 * time.Millisecond, GapEvery: 50 * time.Millisecond,
	}
	return s
}

func (s *Scene) open(dir string) *rollback.Store {
	s.T.Helper()
	st, err := rollback.Open(dir, rollback.Options{Now: time.Now, EvidenceDir: dir + "-evidence"})
	s.Do(err)
	s.T.Cleanup(func() { s.Do(st.Close()) })
	return st
}

// Do fails the test on an error.
func (s *Scene) Do(err error) {
	s.T.Helper()
	if err != nil {
		s.T.Fatal(err)
	}
}

// Path implements coalesce.Anchors.
func (s *Scene) Path(id uint32) (string, int, bool) { return s.Dir, 0, id == 1 }

// Start enrols the tree and runs the pipeline until the test ends or Stop.
func (s *Scene) Start() {
	s.T.Helper()
	s.P = pipeline.New(s.Options)
	e, err := s.P.Enrol(context.Background(), s.Dir, nil)
	s.Do(err)
	if len(e.Errors) > 0 {
		s.T.Fatal(e.Errors)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.P.Run(ctx) }()
	if e.Learned {
		go func() { _ = s.P.Down(ctx, s.Down, []string{s.Dir}, s.Open) }() // a test that needs it waits for its records
	}
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil && !s.Cut {
				s.T.Error(err)
			}
		})
	}
	s.T.Cleanup(s.stop)
}

// Large makes every other content that the actors write large, and reading one take up
// to 5 ms, so that others are looked at meanwhile. It is called before Start.
func (s *Scene) Large(seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 3))
	var mu sync.Mutex // guards rnd
	s.Options.Large = 9
	s.Options.Read = digest.ReadPath
	s.Options.ReadOnce = func(ctx context.Context, path string, sink io.Writer) (event.State, error) {
		mu.Lock()
		d := time.Duration(rnd.IntN(5000)) * time.Microsecond
		mu.Unlock()
		time.Sleep(d)
		return digest.ReadPathOnce(ctx, path, sink)
	}
}

// Stop ends the pipeline after all that was fed has gone through.
func (s *Scene) Stop() { s.stop() }

// Told is what a record of an earlier run tells of a path.
func (s *Scene) Told(path string, after event.State) rehash.Told {
	return rehash.Told{Path: s.At(path), After: after, ID: "told"}
}

// At is a path in the tree.
func (s *Scene) At(p string) string { return filepath.Join(s.Dir, p) }

// Mute makes the actors' work unseen, as when events are lost.
func (s *Scene) Mute(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = on
}

// Feed passes an event to the pipeline.
func (s *Scene) Feed(ev event.Event) {
	s.mu.Lock()
	if s.mute {
		s.mu.Unlock()
		return
	}
	late := s.late
	if s.Late != nil && late == nil && s.Late.IntN(6) == 0 {
		s.late = &ev
		s.mu.Unlock()
		return
	}
	s.late = nil
	s.mu.Unlock()
	s.feed(ev)
	if late != nil {
		s.feed(*late)
	}
}

// Release feeds an event that is still held back.
func (s *Scene) Release() {
	s.mu.Lock()
	late := s.late
	s.late = nil
	s.mu.Unlock()
	if late != nil {
		s.feed(*late)
	}
}

func (s *Scene) feed(ev event.Event) {
	s.mu.Lock()
	s.events = append(s.events, ev)
	var raw [8]byte
	binary.LittleEndian.PutUint64(raw[:], uint64(len(s.events)-1))
	s.mu.Unlock()
	s.P.Feed(raw[:])
}

func (s *Scene) decode(raw []byte, ev *event.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	*ev = s.events[binary.LittleEndian.Uint64(raw)]
	return nil
}

// Wait waits until done says yes.
func (s *Scene) Wait(what string, done func([]event.Record) bool) []event.Record {
	s.T.Helper()
	for range 2000 {
		r, _ := s.Journal.Records()
		if done(r) {
			return r
		}
		time.Sleep(5 * time.Millisecond)
	}
	r, _ := s.Journal.Records()
	for _, x := range r {
		s.T.Logf("%s", Line(&x))
	}
	s.T.Fatalf("waited in vain for %s", what)
	return nil
}

// Line shows a record.
func Line(r *event.Record) string {
	f := []string{r.Kind, r.Op, "[" + strings.Join(r.Ops, " ") + "]", filepath.Base(r.Path)}
	if r.PathTo != "" {
		f = append(f, ">", filepath.Base(r.PathTo))
	}
	f = append(f, r.Verdict)
	if r.Response != nil {
		f = append(f, r.Response.Action, r.Response.Outcome)
	}
	if r.Actor != nil {
		f = append(f, "by", r.Actor.User)
	}
	return strings.Join(append(f, "("+r.Reason+")"), " ")
}
