package daemon

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/sense"
)

func mount(id, parent uint64, at string) sense.Mount {
	return sense.Mount{ID: id, Parent: parent, At: at, Dev: fmt.Sprintf("0:%d", id), Root: "/", Type: "tmpfs", Options: "rw"}
}

func TestTheTableOfMountsTellsWhatHappened(t *testing.T) {
	base := []sense.Mount{mount(1, 0, "/"), mount(2, 1, "/srv")}
	with := func(m ...sense.Mount) []sense.Mount { return append(slices.Clone(base), m...) }
	readOnly := mount(2, 1, "/srv")
	readOnly.Options = "ro"
	other := mount(2, 1, "/srv")
	other.Dev = "0:99"
	tests := []struct {
		name     string
		old, now []sense.Mount
		want     string
	}{
		{"nothing", base, base, "[]"},
		{"a new mount", base, with(mount(3, 2, "/srv/www")), "[mount /srv/www]"},
		{"one that went", with(mount(3, 2, "/srv/www")), base, "[umount /srv/www]"},
		{"one that moved to another parent", with(mount(3, 2, "/srv/www")), with(mount(3, 1, "/mnt")), "[mount /mnt]"},
		{"other options", base, []sense.Mount{base[0], readOnly}, "[remount /srv]"},
		{"a number that was given again", base, []sense.Mount{base[0], other}, "[mount /srv umount /srv]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, c := range mountChanges(tt.old, tt.now) {
				got = append(got, c.op.String()+" "+c.at)
			}
			if s := fmt.Sprint(got); s != tt.want {
				t.Errorf("%s, want %s", s, tt.want)
			}
		})
	}
}

func TestOnlyMountsOnTheWayToAWatchedPathConcernIt(t *testing.T) {
	table := []sense.Mount{mount(1, 0, "/"), mount(2, 1, "/srv")}
	roots := []string{"/srv/www"}
	watched := func(p string) bool { return policy.Within("/srv/www", p) && p != "/srv/www/cache" }
	tests := []struct {
		op       event.Op
		id       uint64
		at, want string
	}{
		{event.OpMount, 3, "/srv/www", "/srv/www"},
		{event.OpMount, 3, "/srv/www/sub", "/srv/www/sub"},
		{event.OpMount, 3, "/srv", "/srv/www"},
		{event.OpMount, 3, "/", "/srv/www"},
		{event.OpMount, 3, "/srv/www/cache", ""},
		{event.OpMount, 3, "/srv/www2", ""},
		{event.OpUmount, 3, "/mnt", ""},
		{event.OpRemount, 2, "/srv", "/srv/www"},
		{event.OpRemount, 1, "/", ""}, // the path lies in another file system
	}
	for _, tt := range tests {
		c := mountChange{op: tt.op, at: tt.at, now: mount(tt.id, 1, tt.at)}
		if got, ok := concerned(&c, roots, watched, table); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s of %s concerns %q, want %q", tt.op, tt.at, got, tt.want)
		}
	}
}

func TestAChangeOfMountsIsPutDownToTheCallThatMadeIt(t *testing.T) {
	told := []pipeline.Beneath{
		{Op: event.OpMount, At: "/srv"},
		{Op: event.OpUmount, At: "/mnt/tree"},
		{Op: event.OpMount, At: "/other", Other: true},
		{Op: event.OpRename},
	}
	tests := []struct {
		name string
		c    mountChange
		want int
	}{
		{"its own", mountChange{op: event.OpMount, at: "/srv"}, 0},
		{"one of a tree that was bound", mountChange{op: event.OpMount, at: "/srv/sub"}, 0},
		{"one of a tree that was detached", mountChange{op: event.OpUmount, at: "/mnt/tree/sub"}, 1},
		{"another path", mountChange{op: event.OpMount, at: "/srv2"}, -1},
		{"another operation", mountChange{op: event.OpUmount, at: "/srv"}, -1},
		{"in another namespace", mountChange{op: event.OpMount, at: "/other"}, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want *pipeline.Beneath
			if tt.want >= 0 {
				want = &told[tt.want]
			}
			if got := madeBy(&tt.c, told, nil); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

func TestPathsThatLeadElsewhereAreFound(t *testing.T) {
	before := []sense.Anchor{{Path: "/a", Inode: 1}, {Path: "/b", Inode: 2}, {Path: "/c", Inode: 3}, {Path: "/l", Inode: 4, Link: true}}
	after := []sense.Anchor{{Path: "/a", Inode: 1}, {Path: "/b", Inode: 9}, {Path: "/d", Inode: 5}}
	if got, want := movedAnchors(before, after), []string{"/b", "/c", "/d"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The event about a call may be taken before its effect is in the table.
func TestACallWhoseEffectDoesNotShowYetIsKept(t *testing.T) {
	const second = uint64(time.Second)
	told := []pipeline.Beneath{
		{Op: event.OpRemount, At: "/late", Time: 9 * second},
		{Op: event.OpRemount, At: "/after", Time: 11 * second},
		{Op: event.OpRemount, At: "/shown", Time: 9 * second},
		{Op: event.OpRemount, At: "/old", Time: 5 * second},
		{Op: event.OpMount, At: "/mount", Time: 9 * second},
	}
	changes := []mountChange{{op: event.OpRemount, at: "/shown", by: &told[2]}}
	var got []string
	for _, b := range unshown(told, changes, 10*second) {
		got = append(got, b.At)
	}
	if want := []string{"/late", "/after"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
