package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/daemon"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/index"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/query"
)

// These tests run a whole daemon with the best tier that this kernel allows, so
// they need root. They watch their own temporary directories only. The truth
// comes from the programs that act, from b3sum, find and stat.

type running struct {
	cfg    config.Config
	client *control.Client
	stop   func()
}

// start runs a daemon on state with rules given as PATH=MODE until the test ends
// or stop is called.
func start(t testing.TB, state string, watches ...string) *running {
	t.Helper()
	cfg := config.Default()
	cfg.State, cfg.Socket = state, filepath.Join(t.TempDir(), "socket")
	for _, w := range watches {
		r, err := policy.ParseWatch(w)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Rules = append(cfg.Rules, r)
	}
	return startWith(t, cfg)
}

func startWith(t testing.TB, cfg config.Config) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error, 1), make(chan struct{})
	go func() {
		done <- daemon.Run(ctx, cfg, daemon.Options{Version: "test", Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Fatalf("daemon did not start: %v", err)
	case <-time.After(2 * time.Minute):
		t.Fatal("daemon is not armed after two minutes")
	}
	var once sync.Once
	r := &running{cfg: cfg, client: control.NewClient(cfg.Socket)}
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("daemon: %v", err)
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

func (r *running) records(t testing.TB, f query.Filter) []*event.Record {
	t.Helper()
	s, err := index.OpenRead(r.cfg.IndexFile(), r.cfg.JournalDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out []*event.Record
	if err := s.Records(t.Context(), f, func(rec *event.Record) error { out = append(out, rec); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// wait returns the records once there are n of them.
func (r *running) wait(t testing.TB, f query.Filter, n int) []*event.Record {
	t.Helper()
	var got []*event.Record
	for range 200 {
		if got = r.records(t, f); len(got) >= n {
			return got
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%d records for %+v, want %d", len(got), f, n)
	return nil
}

// picture describes a tree by other means than ours: find, stat and b3sum.
func picture(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `cd "$1" && find . -printf '%P %y %m %U %G %l\n' | sort && find . -type f -print0 | sort -z | xargs -0r b3sum && find . -type f -printf '%P %T@ %s\n' | sort && getfattr -dhRm - . | sort`, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("describe %s: %v\n%s", dir, err, out)
	}
	return string(out)
}

func b3sum(t *testing.T, content string) string {
	t.Helper()
	c := exec.Command("b3sum", "--no-names")
	c.Stdin = strings.NewReader(content)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return "blake3:" + strings.TrimSpace(string(out))
}

// as runs a program as a user without any group.
func as(uid int, stdin string, argv ...string) error {
	c := exec.Command("setpriv", append([]string{fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", uid), "--clear-groups"}, argv...)...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%q as %d: %w: %s", argv, uid, err, out)
	}
	return nil
}

// truth is what an acting program did, as its caller knows it.
type truth struct {
	op, path, to, exe string
	uid               int
	after             string // hash, "" if there is nothing after or it is no file
}

func TestAThousandChangesByThreeUsersAreRecordedAndPutBack(t *testing.T) {
	const users, each = 3, 334
	top := t.TempDir()
	tree := filepath.Join(top, "tree")
	for dir := top; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for u := range users {
		dir := filepath.Join(tree, fmt.Sprint("user", u))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range 4 {
			name := filepath.Join(dir, fmt.Sprint("file", f))
			if err := os.WriteFile(name, fmt.Appendf(nil, "trusted %d of user %d\n", f, u), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(name, 2000+u, 2000+u); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(dir, 2000+u, 2000+u); err != nil {
			t.Fatal(err)
		}
	}
	before := picture(t, tree)
	d := start(t, filepath.Join(top, "state"), tree+"="+event.ModeRestore)
	var mu sync.Mutex
	var truths []truth
	var wg sync.WaitGroup
	for u := range users {
		wg.Go(func() {
			for i := range each {
				tr, err := change(t, filepath.Join(tree, fmt.Sprint("user", u)), 2000+u, i)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				truths = append(truths, tr)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		dump(t, d)
	}
	if t.Failed() {
		return
	}
	compare(t, d.wait(t, query.Filter{Kind: event.RecChange}, len(truths)), truths)
	st, err := d.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Losses() != 0 {
		t.Errorf("status shows %d losses", st.Losses())
	}
	for _, r := range d.records(t, query.Filter{Verdict: event.VerdictRestoreFailed}) {
		t.Errorf("not put back: %s: %s", r.Path, r.Reason)
	}
	if after := picture(t, tree); after != before {
		t.Errorf("the tree is not as it was\nbefore:\n%s\nafter:\n%s", before, after)
	}
	d.stop()
	sum, err := journal.Verify(t.Context(), d.cfg.JournalDir(), "", func(p journal.Problem) { t.Error(p) })
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d changes, %d records verified", len(truths), sum.Records)
}

// change does the i-th operation in a directory and returns when it is undone.
func change(t *testing.T, dir string, uid, i int) (truth, error) {
	file := filepath.Join(dir, fmt.Sprint("file", i%4))
	fresh := filepath.Join(dir, fmt.Sprint("new", i))
	content := fmt.Sprintf("change %d by %d\n", i, uid)
	old, err := os.ReadFile(file)
	if err != nil {
		return truth{}, err
	}
	want, err := os.Lstat(file)
	if err != nil {
		return truth{}, err
	}
	tr := truth{uid: uid, path: file}
	switch i % 6 {
	case 0:
		tr.op, tr.exe, tr.path, tr.after = "create", "dd", fresh, b3sum(t, content)
		err = as(uid, content, "dd", "of="+fresh, "status=none")
	case 1:
		tr.op, tr.exe, tr.after = "write", "tee", b3sum(t, content)
		err = as(uid, content, "tee", file)
	case 2:
		tr.op, tr.exe, tr.after = "write", "tee", b3sum(t, string(old)+content)
		err = as(uid, content, "tee", "-a", file)
	case 3:
		tr.op, tr.exe, tr.to, tr.after = "rename", "mv", fresh, b3sum(t, string(old))
		err = as(uid, "", "mv", file, fresh)
	case 4:
		tr.op, tr.exe, tr.after = "chmod", "chmod", b3sum(t, string(old))
		err = as(uid, "", "chmod", "777", file)
	case 5:
		tr.op, tr.exe = "unlink", "rm"
		err = as(uid, "", "rm", "-f", file)
	}
	if err != nil {
		return tr, err
	}
	for range 400 {
		now, err := os.ReadFile(file)
		st, serr := os.Lstat(file)
		_, ferr := os.Lstat(fresh)
		if err == nil && serr == nil && bytes.Equal(now, old) && st.Mode() == want.Mode() && st.ModTime().Equal(want.ModTime()) && os.IsNotExist(ferr) {
			return tr, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return tr, fmt.Errorf("%s of %s by %d was not put back in two seconds", tr.op, tr.path, uid)
}

func compare(t *testing.T, recs []*event.Record, truths []truth) {
	t.Helper()
	type key struct{ op, path, to, exe, after, uid string }
	told := make(map[key]int)
	for _, r := range recs {
		if r.Process == nil {
			t.Errorf("%s of %s is told of by a rescan alone: %s", r.Op, r.Path, r.Reason)
			continue
		}
		k := key{op: r.Op, path: r.Path, to: r.PathTo, exe: filepath.Base(r.Process.Exe), uid: fmt.Sprint(r.Actor.UID)}
		if r.After != nil && r.After.Type == event.TypeRegular {
			k.after = r.After.Hash.String()
		}
		told[k]++
	}
	missing := 0
	for _, tr := range truths {
		k := key{op: tr.op, path: tr.path, to: tr.to, exe: tr.exe, after: tr.after, uid: fmt.Sprint(tr.uid)}
		if told[k] == 0 {
			missing++
			if missing < 10 {
				t.Errorf("no record of %+v", k)
			}
			continue
		}
		if told[k]--; told[k] == 0 {
			delete(told, k)
		}
	}
	if missing > 0 || len(told) > 0 {
		t.Errorf("%d of %d changes without their record, %d records too many: %+v", missing, len(truths), len(told), head(told))
	}
}

func head[K comparable](m map[K]int) (out []K) {
	for k := range m {
		if out = append(out, k); len(out) == 10 {
			break
		}
	}
	return out
}

func dump(t *testing.T, d *running) {
	for _, r := range d.records(t, query.Filter{}) {
		s := fmt.Sprintf("#%d %s %s %s %s→%s %s | %s", r.Seq, r.Kind, r.Op, r.Verdict, r.Path, r.PathTo, r.Reason, r.Time)
		if r.Response != nil {
			s += fmt.Sprintf(" %+v", *r.Response)
		}
		t.Log(s)
	}
}

// settled waits until a path has the wanted content.
func settled(t *testing.T, path, want string) {
	t.Helper()
	var got []byte
	var err error
	for range 200 {
		if got, err = os.ReadFile(path); err == nil && string(got) == want {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s is %q (%v), want %q", path, got, err, want)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWhatChangedWhileTheDaemonWasDownIsRecordedAndPutBack(t *testing.T) {
	top := t.TempDir()
	tree := filepath.Join(top, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"changed", "removed", "kept"} {
		write(t, filepath.Join(tree, f), "trusted "+f+"\n")
	}
	before := picture(t, tree)
	start(t, filepath.Join(top, "state"), tree+"="+event.ModeRestore).stop()
	write(t, filepath.Join(tree, "changed"), "evil\n")
	write(t, filepath.Join(tree, "new"), "evil\n")
	if err := os.Remove(filepath.Join(tree, "removed")); err != nil {
		t.Fatal(err)
	}
	d := start(t, filepath.Join(top, "state"), tree+"="+event.ModeRestore)
	for _, r := range d.wait(t, query.Filter{Kind: event.RecChange}, 3) {
		if r.Actor == nil || r.Actor.User != event.Unknown || r.Actor.Evidence != event.EvidenceNone {
			t.Errorf("%s: actor %+v: nobody saw who did it", r.Path, r.Actor)
		}
	}
	d.wait(t, query.Filter{Verdict: event.VerdictRestored}, 3)
	if after := picture(t, tree); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestAFileThatAnEarlierRunDidNotKeepIsNotTakenForANewOne(t *testing.T) {
	top := t.TempDir()
	tree := filepath.Join(top, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tree, "kept"), "1\n")
	write(t, filepath.Join(tree, "cache"), "2\n")
	before := picture(t, tree)
	cfg := config.Default()
	cfg.State, cfg.Socket = filepath.Join(top, "state"), filepath.Join(top, "socket")
	cfg.Rules = []policy.Rule{{Name: "tree", Paths: []string{tree}, Except: []string{"cache"}, Mode: event.ModeRestore}}
	startWith(t, cfg).stop()
	cfg.Rules[0].Except = nil // from now on the file is watched, too
	d := startWith(t, cfg)
	if err := as(0, "evil\n", "tee", filepath.Join(tree, "cache")); err != nil {
		t.Fatal(err)
	}
	d.wait(t, query.Filter{Verdict: event.VerdictRestored}, 1)
	if got := d.records(t, query.Filter{Kind: event.RecChange}); len(got) != 1 || filepath.Base(got[0].Process.Exe) != "tee" {
		t.Errorf("%d changes, want that of tee alone", len(got))
	}
	if after := picture(t, tree); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestAPathThatAppearsIsArmed(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "later", "sub", "conf")
	d := start(t, filepath.Join(top, "state"), file+"="+event.ModeRestore)
	st, err := d.client.Status(t.Context())
	if err != nil || st.Rules[0].Paths[0].State != control.PathWaiting {
		t.Fatalf("%+v, %v: want a path that waits", st.Rules, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, file, "first\n")
	for range 200 {
		if st, err = d.client.Status(t.Context()); err == nil && st.Rules[0].Paths[0].State == control.PathArmed {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if st.Rules[0].Paths[0].State != control.PathArmed {
		t.Fatalf("%+v", st.Rules[0].Paths)
	}
	if err := as(0, "evil\n", "tee", file); err != nil {
		t.Fatal(err)
	}
	d.wait(t, query.Filter{Kind: event.RecChange, Exe: "tee"}, 1)
	settled(t, file, "first\n")
}

func TestUndoTakesBackWhatOneProcessDidAndKeepsWhatOthersDid(t *testing.T) {
	top := t.TempDir()
	tree := filepath.Join(top, "tree")
	if err := os.MkdirAll(filepath.Join(tree, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"a", "b", "d/c"} {
		write(t, filepath.Join(tree, f), "before "+f+"\n")
	}
	before := picture(t, tree)
	d := start(t, filepath.Join(top, "state"), tree+"="+event.ModeObserve)
	if err := as(0, "", "sh", "-c", "cd "+tree+"; echo 1 >> a; rm b; mv d/c d/e; mkdir n; echo 2 > n/f; chmod 600 a"); err != nil {
		t.Fatal(err)
	}
	recs := d.wait(t, query.Filter{Kind: event.RecChange}, 6)
	session := recs[0].Actor.Session
	var last event.Time
	for _, r := range recs {
		last = max(last, r.Time)
	}
	if err := as(0, "theirs\n", "setsid", "tee", filepath.Join(tree, "other")); err != nil {
		t.Fatal(err)
	}
	d.wait(t, query.Filter{Kind: event.RecChange, Exe: "tee"}, 1)
	req := control.UndoRequest{Session: session, DryRun: true, Until: last + 1}
	plan, err := d.client.Undo(t.Context(), req)
	if err != nil || len(plan.Conflicts) != 0 {
		t.Fatalf("plan: %+v, %v", plan, err)
	}
	req.DryRun = false
	if out, err := d.client.Undo(t.Context(), req); err != nil || out.Count(control.StepFailed) != 0 {
		t.Fatalf("undo: %+v, %v", out, err)
	}
	if err := os.Remove(filepath.Join(tree, "other")); err != nil {
		t.Errorf("what somebody else made is gone: %v", err)
	}
	if after := picture(t, tree); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	req.DryRun = true
	if again, err := d.client.Undo(t.Context(), req); err != nil || len(again.Steps) != 0 {
		t.Errorf("after an undo the plan is not empty: %+v, %v", again, err)
	}
}

func TestTrustMakesThePresentStateTheTrustedOne(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "conf")
	write(t, file, "old\n")
	d := start(t, filepath.Join(top, "state"), file+"="+event.ModeObserve)
	if err := as(0, "new\n", "tee", file); err != nil {
		t.Fatal(err)
	}
	d.wait(t, query.Filter{Kind: event.RecChange}, 1)
	if _, err := d.client.Trust(t.Context(), control.TrustRequest{Paths: []control.Path{control.Path(file)}, Reason: "release 7"}); err != nil {
		t.Fatal(err)
	}
	if got := d.wait(t, query.Filter{Verdict: event.VerdictPromoted}, 1); got[0].Reason != "release 7" {
		t.Errorf("%+v", got[0])
	}
	write(t, file, "evil\n")
	if _, err := d.client.Restore(t.Context(), control.RestoreRequest{Paths: []control.Path{control.Path(file)}}); err != nil {
		t.Fatal(err)
	}
	settled(t, file, "new\n")
}

func TestBlockOnATierThatCannotRefuseIsDegradedAndPutsBack(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "conf")
	write(t, file, "trusted\n")
	cfg := config.Default()
	cfg.State, cfg.Socket, cfg.Tier = filepath.Join(top, "state"), filepath.Join(top, "socket"), config.TierTracepoint
	r, err := policy.ParseWatch(file + "=" + event.ModeBlock)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Rules = []policy.Rule{r}
	d := startWith(t, cfg)
	st, err := d.client.Status(t.Context())
	if err != nil || !st.Degraded || st.Rules[0].EffectiveMode != event.ModeRestore {
		t.Errorf("status does not say so: %+v, %v", st, err)
	}
	said := false
	for _, rec := range d.records(t, query.Filter{Kind: event.RecAgent}) {
		said = said || strings.HasPrefix(rec.Reason, "degraded: ")
	}
	if !said {
		t.Error("no record says so")
	}
	if err := as(0, "evil\n", "tee", file); err != nil {
		t.Fatal(err)
	}
	d.wait(t, query.Filter{Verdict: event.VerdictRestored}, 1)
	settled(t, file, "trusted\n")
}

func TestASecondDaemonIsRefused(t *testing.T) {
	top := t.TempDir()
	d := start(t, filepath.Join(top, "state"), top+"/x="+event.ModeObserve)
	if err := daemon.Run(t.Context(), d.cfg, daemon.Options{}); !errors.Is(err, control.ErrInUse) {
		t.Errorf("same socket: %v", err)
	}
	cfg := d.cfg
	cfg.Socket = filepath.Join(top, "other")
	if err := daemon.Run(t.Context(), cfg, daemon.Options{}); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("same state: %v", err)
	}
}

func TestStatusShowsEveryLimit(t *testing.T) {
	top := t.TempDir()
	d := start(t, filepath.Join(top, "state"), top+"/x="+event.ModeObserve)
	st, err := d.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, l := range st.Limits {
		if l.Value == 0 || seen[l.Name] {
			t.Errorf("limit %q is %d, or there twice", l.Name, l.Value)
		}
		seen[l.Name] = true
	}
	for _, q := range st.Queues {
		if q.Limit <= 0 {
			t.Errorf("queue %s has no limit", q.Name)
		}
	}
	for _, want := range []string{
		"files being changed at once", "descriptors and mappings remembered of before a rule", "path bytes of an event",
		"changes that wait for a large file at once", "second looks put off at once", "directories compared one by one at once", "looks at a path that never comes to rest",
		"restores of one path in 1m0s", "paths whose restores are counted", "processes remembered", "programs remembered above a process",
		"processes with connections of before the start", "files with names outside the watched trees",
		"directories between a rule and a file on its file system", "bytes of displaced files",
	} {
		if !seen[want] {
			t.Errorf("status does not show the limit of %s", want)
		}
	}
}
