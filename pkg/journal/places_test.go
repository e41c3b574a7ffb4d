package journal

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestWholeStateDirectoriesInEachOthersPlaceAreNamed: what is consistent in itself shows against what was
// kept elsewhere.
func TestWholeStateDirectoriesInEachOthersPlaceAreNamed(t *testing.T) {
	ours, other := tenEach(t), newLog(t)
	other.o.HostID = "another"
	other.fill(60)
	pub := ours.pub()
	kept, err := latestNote(ours.dir, checkpointName)
	must(t, err)
	older := t.TempDir()
	young := newLog(t)
	young.fill(5)
	youngPub := young.pub()
	copyDir(t, filepath.Dir(young.dir), filepath.Join(older, "state"))
	young.fill(25)
	keptYoung, err := latestNote(young.dir, checkpointName)
	must(t, err)
	for _, c := range []struct {
		name  string
		place func() *log
		pub   string
		known [][]byte
		want  string
	}{
		{"another host's state", func() *log { return other }, pub, nil, "key"},
		{"another host's state, against a checkpoint and its own key", func() *log { return other }, other.pub(), [][]byte{kept}, "key"},
		{"another log of this host", func() *log { l := newLog(t); l.fill(60); return l }, pub, nil, "key"},
		{"an older state of this log", func() *log {
			l := &log{t: t, dir: filepath.Join(older, "state", "journal"), keys: filepath.Join(older, "state", "keys"), o: young.o}
			return l
		}, youngPub, [][]byte{keptYoung}, "rollback 6-25"},
		{"an older state that went on by itself", func() *log {
			l := &log{t: t, dir: filepath.Join(older, "state", "journal"), keys: filepath.Join(older, "state", "keys"), o: young.o}
			j := l.open()
			for i := range 40 {
				r := sample(i)
				r.Actor.User = "mallory"
				_, err := j.Append(r)
				must(t, err)
			}
			l.close(j)
			return l
		}, youngPub, [][]byte{keptYoung}, "checkpoint 6-25"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := c.place()
			l.t = t
			sum, found := l.verify(c.pub, c.known...)
			if sum.OK() || !slices.ContainsFunc(found, func(s string) bool { return strings.HasPrefix(s, c.want) }) {
				t.Fatalf("found %q, want %q", found, c.want)
			}
		})
	}
	// The journal alone, under our keys.
	must(t, os.RemoveAll(ours.dir))
	copyDir(t, other.dir, ours.dir)
	if sum, found := ours.verify(pub); sum.OK() || !slices.Contains(found, "key") {
		t.Fatalf("found %q", found)
	}
}
