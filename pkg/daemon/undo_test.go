package daemon_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// project makes a tree to work in: sources, a git repository, a package's files.
const project = `cd "$1"; umask 022
	mkdir -p src/lib doc pkg/DEBIAN pkg/usr/bin old/deep
	printf 'int main(void) { return 0; }\n' > src/main.c; printf 'a\nb\nc\n' > src/lib/util.c
	printf 'all: out/prog\nout/prog: src/main.c\n\tmkdir -p out && cp $< $@.tmp && mv $@.tmp $@ && chmod 755 $@\n' > Makefile
	printf 'Package: demo\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: d\n' > pkg/DEBIAN/control
	printf '#!/bin/sh\n' > pkg/usr/bin/demo; chmod 755 pkg/usr/bin/demo
	for i in 1 2 3 4 5; do echo "page $i" > doc/page$i; done; echo x > old/deep/file; ln -s ../src doc/link; ln src/main.c doc/main.c
	echo shared > shared; echo notes > notes
	touch -d 2020-01-01 Makefile src/main.c
	git -c init.defaultBranch=main init -q . && git -c user.name=a -c user.email=a@b add -A && git -c user.name=a -c user.email=a@b commit -qm one`

// session is a morning's work: a build, a package, edits by three editors,
// directories renamed, moved into each other and removed.
const session = `cd "$1"; umask 022
	make -s; dpkg-deb -b pkg out/demo.deb >/dev/null; tar cf out/all.tar src doc
	sed -i s/return\ 0/return\ 1/ src/main.c; printf '2d\nw\nq\n' | ed -s src/lib/util.c; vim -es -u NONE -c '%s/page/sheet/' -c wq doc/page1
	mv doc manual; echo more >> manual/page2; mv manual/page3 manual/page3.old; mv src/lib manual/lib; echo new > manual/lib/new.c
	mv old/deep deep; rm -r old; mv deep old; mkdir -p x/y/z; echo z > x/y/z/f; mv x/y w; rm manual/page4; mkdir manual/page4; echo in > manual/page4/in
	chmod 600 notes; rm manual/link; ln -s nowhere manual/link; rm manual/main.c; cp -p src/main.c manual/main.c
	git -c user.name=m -c user.email=m@b add -A; git -c user.name=m -c user.email=m@b commit -qm two`

// at runs a line of shell as somebody who logged in: /proc/self/loginuid is set
// once, and then it is the user of all that the shell starts.
func at(t *testing.T, loginuid int, line, dir string) {
	t.Helper()
	if out, err := login(t, loginuid, line, dir).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func login(t *testing.T, loginuid int, line, dir string) *exec.Cmd {
	c := exec.Command("setsid", "sh", "-euc", fmt.Sprintf("echo %d > /proc/self/loginuid\n%s", loginuid, line), "sh", dir)
	c.Env = append(os.Environ(), "HOME="+t.TempDir(), "GIT_CONFIG_NOSYSTEM=1")
	return c
}

// told waits until all that happened is recorded.
func (r *running) told(t *testing.T) {
	t.Helper()
	sent := uint64(0) // by the kernel side until now: what is on its way is not counted as waiting
	for range 6000 {  // five minutes: how long it takes depends on who else works on this machine
		st, err := r.client.Status(t.Context())
		if err == nil && sent == 0 {
			sent = st.Events.Sent + st.Events.Blocked
		}
		if err == nil && st.Pipeline["decode_events"] >= sent && st.Pipeline["pipeline_waiting"] == 0 && st.Pipeline["pipeline_doubt"] == 0 && st.Journal.Durable >= st.Journal.Seq {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("records are still on their way")
}

// work has somebody do a session line by line, and each line recorded before the next: what
// a line leaves is read before another replaces it, or an undo cannot tell whose is what.
func (r *running) work(t *testing.T, loginuid int, lines, dir string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		at(t, loginuid, `cd "$1"; umask 022; `+line, dir)
		r.told(t)
	}
}

func (r *running) undo(t *testing.T, req control.UndoRequest) control.Outcome {
	t.Helper()
	out, err := r.client.Undo(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range out.Steps {
		if s.Error != "" {
			t.Errorf("%s %s: %s", s.Action, s.Path, s.Error)
		}
	}
	return out
}

// TestUndoOfAMorningsWorkReturnsTheTreeAndUndoOfThatTheWork compares the tree
// before, after the undo, and after the undo of the undo.
func TestUndoOfAMorningsWorkReturnsTheTreeAndUndoOfThatTheWork(t *testing.T) {
	top := t.TempDir()
	tree := filepath.Join(top, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	at(t, 1, project, tree)
	d := start(t, filepath.Join(top, "state"), tree+"="+event.ModeObserve)
	before := picture(t, tree)
	at(t, 2, session, tree)
	d.told(t)
	worked := picture(t, tree)
	user := d.records(t, query.Filter{Kind: event.RecChange})[0].Actor.User
	t.Logf("%d changes by %s", len(d.records(t, query.Filter{Kind: event.RecChange})), user)
	done := d.undo(t, control.UndoRequest{User: user})
	if len(done.Conflicts) > 0 {
		t.Errorf("conflicts: %+v", done.Conflicts)
	}
	if after := picture(t, tree); after != before {
		t.Errorf("the tree is not as it was before the session:\n%s", lineDiff(t, before, after))
	}
	if again := d.undo(t, control.UndoRequest{User: user, DryRun: true}); len(again.Steps)+len(again.Conflicts) > 0 {
		t.Errorf("a second plan: %+v %+v", again.Steps, again.Conflicts)
	}
	d.told(t)
	if done.Record == "" {
		t.Fatal("the outcome does not name the record of the undo")
	}
	redone := d.undo(t, control.UndoRequest{Record: done.Record})
	if len(redone.Conflicts) > 0 {
		t.Errorf("conflicts of the undo of the undo: %+v", redone.Conflicts)
	}
	if after := picture(t, tree); after != worked {
		t.Errorf("the tree is not as the session left it:\n%s", lineDiff(t, worked, after))
	}
}

// TestUndoKeepsWhatSomebodyElseDidInBetween has another person work in the same
// tree during the session.
func TestUndoKeepsWhatSomebodyElseDidInBetween(t *testing.T) {
	top := t.TempDir()
	tree := filepath.Join(top, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	at(t, 1, project, tree)
	d := start(t, filepath.Join(top, "state"), tree+"="+event.ModeObserve)
	half, rest, _ := strings.Cut(session, "mv old/deep")
	d.work(t, 2, half, tree)
	at(t, 3, `cd "$1"; echo mine > hers; mkdir own; echo y > own/f; echo line >> shared; echo hers >> manual/page2; echo hers > manual/lib/hers.c; chmod 640 manual/page5`, tree)
	d.told(t)
	d.work(t, 2, "echo evil >> shared\nmv old/deep"+rest, tree)
	users := map[string]string{}
	for _, r := range d.records(t, query.Filter{Kind: event.RecChange}) {
		users[filepath.Base(r.Path)] = r.Actor.User
	}
	out := d.undo(t, control.UndoRequest{User: users["prog"]})
	want := map[string]string{
		"hers": "mine\n", "own/f": "y\n", "doc/page1": "page 1\n", "doc/page3": "page 3\n", "src/main.c": "int main(void) { return 0; }\n",
		"old/deep/file": "x\n", "shared": "shared\nline\n", "doc/page2": "page 2\nmore\nhers\n", "src/lib/hers.c": "hers\n", "src/lib/util.c": "a\nb\nc\n",
	}
	for f, text := range want {
		if b, err := os.ReadFile(filepath.Join(tree, f)); err != nil || string(b) != text {
			t.Errorf("%s is %q, %v; want %q", f, b, err, text)
		}
	}
	if fi, err := os.Stat(filepath.Join(tree, "doc/page5")); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("page5: %v, %v", fi.Mode(), err)
	}
	var conflicts []string
	for _, c := range out.Conflicts {
		conflicts = append(conflicts, strings.TrimPrefix(string(c.Path), tree+"/")+": "+c.Reason)
	}
	if got := strings.Join(conflicts, "\n"); len(conflicts) != 1 || !strings.HasPrefix(got, "doc/page2: changed since by "+users["hers"]) {
		t.Errorf("conflicts:\n%s", got)
	}
}

func TestAnUndoIsNoChangeToTheNextStart(t *testing.T) {
	cfg, tree := watching(t)
	cfg.Rules[0].Mode = event.ModeObserve
	d := startWith(t, cfg)
	at(t, 2, `cd "$1"; mkdir d; mv conf d/conf; echo second >> d/conf`, tree)
	d.told(t)
	user := d.records(t, query.Filter{Kind: event.RecChange})[0].Actor.User
	n := len(d.records(t, query.Filter{Kind: event.RecChange}))
	d.undo(t, control.UndoRequest{Record: d.undo(t, control.UndoRequest{User: user}).Record})
	at(t, 2, `cd "$1"; mv d e`, tree)
	moved := d.wait(t, query.Filter{Kind: event.RecChange, Op: "rename", Path: tree + "/d"}, 1)[0]
	d.undo(t, control.UndoRequest{Record: moved.ID})
	d.stop()
	d = startWith(t, cfg)
	d.told(t)
	if all := d.records(t, query.Filter{Kind: event.RecChange}); len(all) != n+1 {
		t.Errorf("%d changes, want %d: the last is %s of %s, found %s", len(all), n+1, all[len(all)-1].Op, all[len(all)-1].Path, all[len(all)-1].Found)
	}
}

func lineDiff(t *testing.T, a, b string) string {
	t.Helper()
	x, y := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	write(t, x, a)
	write(t, y, b)
	out, _ := exec.Command("diff", x, y).Output() // exits 1: they differ
	return string(out)
}

// threeChanges writes a file three times over: its path, and what was in it at the times that it returns. When a change
// was done is not known if the next one came before it was read; then another file is taken.
func threeChanges(t *testing.T, d *running, tree string) (conf string, was map[event.Time]string) {
	t.Helper()
another:
	for n := range 20 {
		conf = filepath.Join(tree, fmt.Sprintf("conf%d", n))
		write(t, conf, "first\n")
		d.wait(t, query.Filter{Kind: event.RecChange, Path: conf}, 1)
		d.told(t)
		was = map[event.Time]string{event.TimeOf(time.Now()): "first\n"}
		for i, text := range []string{"second\n", "third\n", "fourth\n"} {
			write(t, conf, text)
			time.Sleep(5 * time.Millisecond) // more than what the clocks differ by
			was[event.TimeOf(time.Now())] = text
			d.wait(t, query.Filter{Kind: event.RecChange, Path: conf}, i+2)
			d.told(t)
		}
		for _, r := range d.records(t, query.Filter{Kind: event.RecChange, Path: conf}) {
			if r.Found != "" || strings.Contains(r.Reason, "later operations") {
				continue another
			}
		}
		return conf, was
	}
	t.Fatal("of 20 files none was read between its changes")
	return "", nil
}

// TestRestoreAtATimeGoesByWhenChangesWereDone: contents are read and kept only after they
// were written. The truth is what was there, read at the times that are asked for.
func TestRestoreAtATimeGoesByWhenChangesWereDone(t *testing.T) {
	cfg, tree := watching(t)
	cfg.Rules[0].Mode = event.ModeObserve
	d := startWith(t, cfg)
	conf, was := threeChanges(t, d, tree)
	for at, text := range was {
		into := filepath.Join(t.TempDir(), "into")
		out, err := d.client.Restore(t.Context(), control.RestoreRequest{Paths: []control.Path{control.Path(conf)}, At: at, Into: control.Path(into)})
		if err != nil {
			t.Errorf("at %s: %v", at, err)
			continue
		}
		if b, err := os.ReadFile(filepath.Join(into, conf)); err != nil || string(b) != text {
			t.Errorf("at %s: %q, %v, want %q: %+v", at, b, err, text, out)
		}
	}
}
