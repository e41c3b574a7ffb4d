package rehash

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// What is known moves as a reader of the records moves it, whatever is to come.

func TestAnExchangeSwapsAllThatIsKnownBelow(t *testing.T) {
	b := newBench(t)
	do(t, os.Mkdir(b.at("e"), 0o700))
	b.write("e/y", "y")
	do(t, b.Refresh(t.Context(), b.dir))
	do(t, unix.Renameat2(unix.AT_FDCWD, b.at("d"), unix.AT_FDCWD, b.at("e"), unix.RENAME_EXCHANGE))
	c := b.change(event.OpRename, "d", "e")
	c.Exchange = true
	// Something is known to follow at both names, so that neither can be read.
	b.later[b.at("d")] = Later{Any: true, First: c.Last, Meta: true}
	b.later[b.at("e")] = Later{Any: true, First: c.Last, Meta: true}
	f := b.check(c)
	if !f.Changed || f.After.Mode != 0o755 || !slices.Equal(f.Compare, []string{b.at("e"), b.at("d")}) {
		t.Errorf("%+v", f)
	}
	b.settled()
}

func TestARenameThatDoesNothingIsNoChange(t *testing.T) {
	b := newBench(t)
	do(t, os.Link(b.at("f"), b.at("g")))
	do(t, b.Refresh(t.Context(), b.dir))
	for _, to := range []string{"f", "g"} { // the same name, and another one of the same file
		do(t, os.Rename(b.at("f"), b.at(to)))
		if f := b.check(b.change(event.OpRename, "f", to)); f.Changed {
			t.Errorf("to %s: %+v", to, f)
		}
	}
	b.settled()
}

func TestWhatCouldNotBeReadIsLookedAtAgainWhereItWent(t *testing.T) {
	b := newBench(t)
	b.write("d/n", "new")
	made := b.change(event.OpCreate, "d/n")
	do(t, os.Rename(b.at("d"), b.at("e")))
	moved := b.change(event.OpRename, "d", "e")
	// Two renames follow for all that is known: the first cannot tell where the file is.
	b.later[b.at("d/n")] = Later{Any: true, First: moved.First, Name: true}
	if f := b.check(made); f.After.Unread == "" {
		t.Fatalf("%+v", f.After)
	}
	delete(b.later, b.at("d/n"))
	f := b.check(moved)
	if i := slices.IndexFunc(f.Looks, func(l Look) bool { return l.Path == b.at("e/n") }); i < 0 || f.Looks[i].By != made {
		t.Errorf("looks %+v, want one at e/n on account of who made it", f.Looks)
	}
	look := b.check(&event.Change{Path: b.at("e/n"), Op: event.OpOpen})
	if !look.Changed || look.After.Hash.String() != b.b3sum("new") {
		t.Errorf("%+v", look)
	}
	b.settled()
}

func TestADirectoryThatWasNotKnownToBeOneIsCompared(t *testing.T) {
	b := newBench(t)
	do(t, os.Mkdir(b.at("n"), 0o755))
	b.write("n/x", "x")
	f := b.check(b.change(event.OpChmod, "n"))
	if !slices.Equal(f.Compare, []string{b.at("n")}) {
		t.Errorf("%+v", f)
	}
}

func TestANameThatIsThereAfterItsRemovalIsLookedAtAgain(t *testing.T) {
	b := newBench(t)
	for _, c := range []*event.Change{b.change(event.OpUnlink, "f"), b.change(event.OpRename, "d/x", "y")} {
		if c.PathTo != "" {
			do(t, os.Link(b.at("d/x"), b.at("y"))) // the old name was given again
		}
		if f := b.check(c); !slices.ContainsFunc(f.Looks, func(l Look) bool { return l.Path == c.Path && l.By == nil }) {
			t.Errorf("%s %s: looks %+v", c.Op, c.Path, f.Looks)
		}
	}
}

func TestAFileIsKnownByAllItsNamesWhereverTheyMove(t *testing.T) {
	b := newBench(t)
	do(t, os.Link(b.at("f"), b.at("d/second")))
	b.check(b.change(event.OpLink, "f", "d/second"))
	do(t, os.Rename(b.at("d"), b.at("e")))
	b.check(b.change(event.OpRename, "d", "e"))
	b.write("f", "through the first name")
	f := b.check(b.change(event.OpWrite, "f"))
	if len(f.Aliases) != 1 || f.Aliases[0].Path != b.at("e/second") || f.Aliases[0].After.Hash != f.After.Hash {
		t.Errorf("%+v", f.Aliases)
	}
	b.settled()
}

func TestNamesToldInAnImpossibleOrderLeaveNoLoop(t *testing.T) {
	var k Known
	for _, p := range []string{"/a", "/a/b", "/a/b/c"} {
		k.put(p, Entry{State: event.State{Exists: true, Type: event.TypeDir}})
	}
	k.move("/a", "/a/b/c", 1)
	k.exchange("/a/b", "/a")
	n := 0
	k.Walk("/", func(string, *event.State) { n++ })
	if n != k.Len() {
		t.Errorf("%d paths, Len says %d", n, k.Len())
	}
}

// Before an exchange is looked at, its second name was put back already and its first one
// has gone with the directory above: what is known to have come there is compared all the same.
func TestWhatAnExchangeTookToANameThatHasGoneOnIsCompared(t *testing.T) {
	b := newBench(t)
	do(t, os.MkdirAll(b.at("e/sub"), 0o755))
	do(t, b.Refresh(t.Context(), b.at("e")))
	c := b.change(event.OpRename, "e/sub", "d")
	c.Exchange = true
	do(t, os.Rename(b.at("e"), b.dir+"-gone"))
	do(t, b.Refresh(t.Context(), b.at("d")))
	f := b.check(c)
	if _, known := b.Known().Get(b.at("e/sub/x")); !known || !slices.Contains(f.Compare, b.at("e/sub")) {
		t.Errorf("known there: %v; to be compared: %q", known, f.Compare)
	}
}
