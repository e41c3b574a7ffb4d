package rollback

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// powerPhase is a stretch of the run before the power cut, in which every file is as in good
// or as in bad: good alone where a restore has told that it is done.
type powerPhase struct {
	from      int // writes of the disk
	name      string
	good, bad string
	records   [][]*event.Record // of an undo
}

// told reports whether all is good from the first write of the phase on.
func (p *powerPhase) told() bool { return p.good == p.bad && p.good != "" }

const powerTree = `cd "$1"; for i in $(seq 20); do head -c $((i*3001)) /bin/bash > f$i; echo good $i >> f$i; chmod 640 f$i; done
	mkdir -m 710 d; echo x > d/x; echo y > d/y; setfattr -n user.x -v y d/x; ln d/x d/link; ln -s x d/sym; head -c 1500000 /bin/bash > d/long
	for i in 1 2 3 4 5 6 7 8 9; do mkdir -p -m 71$((i%8)) p/p$i; echo $i > p/p$i/x; ln -s x p/p$i/l; done`

// TestAPowerCutLeavesOldOrNewAndPlansGoOn works on ext4 on a disk that remembers its
// writes and flushes, cuts the power after some of them, at random, and looks at what is
// left. With -long it does that 200 times.
func TestAPowerCutLeavesOldOrNewAndPlansGoOn(t *testing.T) {
	points := 12
	if *long {
		points = 200
	}
	seed := uint64(os.Getpid())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	work := storetest.Temp(t)
	image := filepath.Join(work, "image")
	storetest.Sh(t, `truncate -s 48M "$1"; mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 -J size=4 "$1"`, image)
	empty, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	disk := storetest.NewPowerDisk(t, empty)
	stretches, kept := powerRun(t, disk)
	end := disk.Writes()
	t.Logf("%d writes and flushes", end)
	begin := stretches[0].from
	wentOn, cuts := 0, map[string]int{}
	for k := range points {
		n := begin + rnd.IntN(end-begin+1)
		i := sort.Search(len(stretches), func(i int) bool { return stretches[i].from > n }) - 1
		at := &stretches[i]
		if k%4 == 0 { // the moment after a restore or undo told that it is done
			for at = &stretches[rnd.IntN(len(stretches))]; !at.told(); at = &stretches[rnd.IntN(len(stretches))] {
			}
			n = at.from
		}
		cuts[at.name]++
		t.Run(fmt.Sprintf("%d after %d writes, %s", k, n, at.name), func(t *testing.T) {
			if err := os.WriteFile(image, disk.After(n, rnd), 0o600); err != nil {
				t.Fatal(err)
			}
			mnt := t.TempDir()
			storetest.Run(t, "mount", "-o", "loop", image, mnt)
			defer storetest.Unmount(t, mnt)
			// the paths are as they were in the run
			storetest.Run(t, "mount", "--bind", mnt, kept.dir)
			defer storetest.Unmount(t, kept.dir)
			if powerLook(t, kept, at) {
				wentOn++
			}
		})
	}
	t.Logf("%v; %d plans went on", cuts, wentOn)
	if wentOn == 0 && points > 20 {
		t.Error("no plan was cut off")
	}
}

// powerKept is what the run leaves for the looks after it.
type powerKept struct {
	dir   string // where the disk is mounted
	files string
	vault string
}

// powerRun has files captured, damaged, restored, changed by mallory and that undone,
// again and again.
func powerRun(t *testing.T, disk *storetest.PowerDisk) ([]powerPhase, powerKept) {
	t.Helper()
	k := powerKept{dir: filepath.Join(storetest.Temp(t), "disk")}
	k.files, k.vault = filepath.Join(k.dir, "files"), filepath.Join(k.dir, "state", "vault")
	mkdirs(t, k.dir)
	storetest.Run(t, "mount", "-o", "nodiscard", disk.Device, k.dir)
	defer storetest.Unmount(t, k.dir)
	mkdirs(t, k.files, filepath.Dir(k.vault))
	storetest.Sh(t, powerTree, k.files)
	s := open1(t, k.vault, Options{})
	for _, p := range below(t, k.files) {
		capture(t, s, p)
	}
	sync1(t, s)
	storetest.Run(t, "sync", "-f", k.dir)
	var out []powerPhase
	mark := func(name, good, bad string, records [][]*event.Record) {
		out = append(out, powerPhase{disk.Writes(), name, good, bad, records})
	}
	good := powerStates(t, k.files)
	mark("captured", good, good, nil)
	for round := range 3 {
		mark("damage", "", "", nil)
		storetest.Sh(t, `cd "$1"; for i in $(seq 1 2 20); do echo "evil $2" > t; chmod 666 t; mv t f$i; done; for i in 2 4 6; do rm f$i; done; chmod 777 f8; echo "$2" >> d/x; rm -r d/sym d/long p`,
			k.files, fmt.Sprint(round))
		storetest.Run(t, "sync", "-f", k.dir)
		mark("restore", good, powerStates(t, k.files), nil)
		if err := restoreBegun(s, k.files); err != nil {
			t.Fatal(err)
		}
		if got := powerStates(t, k.files); got != good {
			t.Fatalf("restored:\n%s\nwanted:\n%s", got, good)
		}
		mark("restored", good, good, nil)
		mark("deeds", "", "", nil)
		h := &diary{t: t, s: s}
		h.do("mallory", "rename", k.files+"/d", k.files+"/e", `mv "$1" "$2"`)
		h.do("mallory", "write", k.files+"/e/y", "", `echo evil > "$1"`)
		h.do("mallory", "unlink", k.files+"/f10", "", `rm "$1"`)
		h.do("mallory", "create", k.files+"/new", "", `echo evil > "$1"`)
		h.do("mallory", "rename", k.files+"/f12", k.files+"/g12", `mv "$1" "$2"`)
		h.do("mallory", "chmod", k.files+"/f14", "", `chmod 4777 "$1"`)
		sync1(t, s)
		storetest.Run(t, "sync", "-f", k.dir)
		mark("undo", good, powerStates(t, k.files), [][]*event.Record{h.by("mallory", true), h.by("mallory", false)})
		plan, err := s.PlanUndo(t.Context(), h.by("mallory", true), nil, UndoOptions{})
		if err == nil {
			err = carry(s, plan)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := powerStates(t, k.files); got != good {
			t.Fatalf("undone:\n%s\nwanted:\n%s", got, good)
		}
		mark("undone", good, good, nil)
		if err := pruneAll(s); err != nil {
			t.Fatal(err)
		}
	}
	mark("closing", good, good, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return out, k
}

// carry carries a plan out as the daemon does.
func carry(s *Store, p Plan) error {
	id, err := s.Begin(p, nil)
	if err != nil {
		return err
	}
	return ended(s, id, s.Apply(context.Background(), p, nil))
}

func restoreBegun(s *Store, dir string) error {
	p, err := s.PlanRestore(context.Background(), []string{dir}, RestoreOptions{Recursive: true})
	if err != nil {
		return err
	}
	return carry(s, p)
}

// powerStates drops what another mount has another number for.
func powerStates(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	for _, l := range strings.Split(bodies(states(t, dir)), "\n") {
		if !strings.Contains(l, `"dev"`) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// powerLook looks at what a cut left, goes on with what was cut off, and reports
// whether there was something.
func powerLook(t *testing.T, k powerKept, at *powerPhase) bool {
	t.Helper()
	s, err := Open(k.vault, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, p := range s.Opened().Damage {
		t.Error(p)
	}
	noLeftovers(t, k.files)
	clean(t, s)
	for _, p := range s.Paths("") {
		for _, v := range s.Versions(p) {
			if err := s.Verify(v); err != nil {
				t.Errorf("version %d of %s: %v", v.ID, p, err)
			}
		}
	}
	before := powerStates(t, k.files)
	if at.told() && before != at.good {
		t.Errorf("it was told to be done, and is\n%s\nwanted\n%s", before, at.good)
	}
	if at.good != "" {
		if part := powerEither(before, at.good, at.bad); part != "" {
			t.Errorf("neither old nor new:\n%s", part)
		}
	}
	n, err := continueAll(s)
	if err != nil {
		t.Errorf("going on: %v", err)
	}
	if n == 0 && at.records != nil {
		plan, err := s.PlanUndo(t.Context(), at.records[0], at.records[1], UndoOptions{})
		if err := errors.Join(err, carry(s, plan)); err != nil {
			t.Error(err)
		}
	}
	if n == 0 && at.records == nil && at.good != "" {
		if err := restoreBegun(s, k.files); err != nil {
			t.Error(err)
		}
	}
	if got := powerStates(t, k.files); at.good != "" && got != at.good {
		t.Errorf("in the end it is\n%s\nwanted\n%s", got, at.good)
	}
	clean(t, s)
	return n > 0
}

// powerEither is either, but that of f8 and f14 only the metadata changes.
func powerEither(tree, good, bad string) string {
	part := either(tree, good, bad)
	if strings.HasPrefix(part, "/f8\n") || strings.HasPrefix(part, "/f14\n") {
		return ""
	}
	return part
}
