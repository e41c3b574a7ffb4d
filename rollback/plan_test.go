package rollback

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

func actions(p Plan, dir string) string {
	var out []string
	for _, st := range p.Steps {
		out = append(out, st.Action+" "+strings.TrimPrefix(st.Path, dir))
	}
	return strings.Join(out, ", ")
}

func planAll(t *testing.T, s *Store, dir string) Plan {
	t.Helper()
	p, err := s.PlanRestore(t.Context(), []string{dir}, RestoreOptions{Recursive: true})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAPlanNamesEachStepInAnOrderThatWorks(t *testing.T) {
	p := places(t)[1]
	s := open1(t, p.vault, Options{})
	storetest.Sh(t, `cd "$1"; mkdir -p a/b; echo 1 > a/b/f; echo 2 > a/g; ln -s g a/l; echo 3 > h; mkfifo q; echo keep > same`, p.dir)
	for _, f := range below(t, p.dir) {
		capture(t, s, f)
	}
	for _, f := range []string{"new", "newdir", "newdir/f"} {
		if _, err := s.Absent(filepath.Join(p.dir, f), Provenance{Trust: true}); err != nil {
			t.Fatal(err)
		}
	}
	want := storetest.Tree(t, p.dir)
	storetest.Sh(t, `cd "$1"; rm -r a q; echo file > a; chmod 600 h; echo x > new; mkdir newdir; echo y > newdir/f`, p.dir)
	plan := planAll(t, s, p.dir)
	if got, want := actions(plan, p.dir), "remove /newdir/f, remove /newdir, remove /new, mkdir /a, mkdir /a/b, write /a/b/f, write /a/g, link /a/l, meta /h, mknod /q"; got != want {
		t.Errorf("plan   %s\nwanted %s", got, want)
	}
	if len(plan.Conflicts) > 0 {
		t.Errorf("conflicts %v", plan.Conflicts)
	}
	before := storetest.Tree(t, p.dir)
	planAll(t, s, p.dir)
	if storetest.Tree(t, p.dir) != before {
		t.Error("planning changed something")
	}
	var outcomes []string
	if err := s.Apply(t.Context(), plan, func(r Result) { outcomes = append(outcomes, r.Outcome) }); err != nil {
		t.Fatal(err)
	}
	if got := storetest.Tree(t, p.dir); got != want {
		t.Errorf("before:\n%s\nafter:\n%s", want, got)
	}
	if len(outcomes) != len(plan.Steps) || strings.Contains(fmt.Sprint(outcomes), OutcomeFailed) {
		t.Errorf("outcomes %v", outcomes)
	}
	if again := planAll(t, s, p.dir); len(again.Steps) > 0 {
		t.Errorf("a second plan: %s", actions(again, p.dir))
	}
	noLeftovers(t, p.dir)
}

func TestAPlanOfManyFilesIsAppliedInGroups(t *testing.T) {
	for _, p := range places(t) {
		t.Run(p.name, func(t *testing.T) {
			s, f := openFaulty(t, p.vault)
			for i := range 300 {
				file := filepath.Join(p.dir, fmt.Sprintf("f%03d", i))
				write(t, file, fmt.Sprint("content ", i))
				capture(t, s, file)
			}
			for i := range 300 {
				file := filepath.Join(p.dir, fmt.Sprintf("f%03d", i))
				if i%3 == 0 {
					if err := os.Remove(file); err != nil {
						t.Fatal(err)
					}
				} else {
					write(t, file, "evil")
				}
			}
			plan := planAll(t, s, p.dir)
			f.Fail(0, nil)
			n := 0
			if err := s.Apply(t.Context(), plan, func(r Result) {
				n++
				if r.Outcome != OutcomeDone || (r.Evidence != "") != r.Step.Have.Exists {
					t.Errorf("%s: %s, evidence %q", r.Step.Path, r.Outcome, r.Evidence)
				}
			}); err != nil {
				t.Fatal(err)
			}
			for i := range 300 {
				if got, want := read(t, filepath.Join(p.dir, fmt.Sprintf("f%03d", i))), fmt.Sprint("content ", i); got != want {
					t.Fatalf("file %d is %q", i, got)
				}
			}
			syncs := strings.Count(strings.Join(f.Steps(), "\n"), "syncfs ")
			if n != 300 || syncs != (300+batch-1)/batch {
				t.Errorf("%d results, %d syncfs", n, syncs)
			}
			if again := planAll(t, s, p.dir); len(again.Steps) > 0 {
				t.Errorf("a second plan has %d steps", len(again.Steps))
			}
			noLeftovers(t, p.dir)
		})
	}
}

func TestARemovedTreeComesBackInGroupsOfDirectoriesAndOfTheRest(t *testing.T) {
	for _, p := range places(t) {
		t.Run(p.name, func(t *testing.T) {
			s, f := openFaulty(t, p.vault)
			tree := filepath.Join(p.dir, "tree")
			storetest.Sh(t, `mkdir -m 750 "$1"; cd "$1"; for i in 1 2 3 4 5 6 7 8 9; do mkdir -p $i/a/b $i/c; chmod 71$((i%8)) $i/a; ln -s a $i/l; mkfifo $i/a/q
				for j in $(seq 6); do echo $i $j > $i/a/b/f$j; done; done; setfattr -n user.x -v y 3/c; find . -depth -type d -exec touch -d @1234567.123456789 {} +`, tree)
			captureBoth(t, s, p.dir)
			want := storetest.Tree(t, tree)
			storetest.Run(t, "rm", "-rf", tree)
			plan := planAll(t, s, p.dir)
			f.Fail(0, nil)
			var paths []string
			if err := s.Apply(t.Context(), plan, func(r Result) { paths = append(paths, r.Step.Path) }); err != nil {
				t.Fatal(err)
			}
			if got := storetest.Tree(t, tree); got != want {
				t.Errorf("before:\n%s\nafter:\n%s", want, got)
			}
			for i, st := range plan.Steps {
				if i >= len(paths) || paths[i] != st.Path {
					t.Fatalf("%d steps, told of %q", len(plan.Steps), paths)
				}
			}
			// 9, 18 and 9 directories of one depth, and 72 others; each time their names besides
			if syncs := strings.Count(strings.Join(f.Steps(), "\n"), "syncfs "); syncs > 2*(3+(72+batch-1)/batch) {
				t.Errorf("%d syncfs", syncs)
			}
			noLeftovers(t, p.dir)
		})
	}
}

func TestManyFilesInAnImmutableDirectoryComeBack(t *testing.T) {
	dir := storetest.Disk(t)
	s := open1(t, filepath.Join(dir, "vault"), Options{})
	files := filepath.Join(dir, "files")
	storetest.Sh(t, `mkdir "$1"; cd "$1"; for i in $(seq 400); do echo good $i > f$i; done; chattr +i .`, files)
	captureBoth(t, s, files)
	want := states(t, files)
	for range 3 {
		storetest.Sh(t, `cd "$1"; chattr -i .; for i in $(seq 400); do echo evil > f$i; done; rm f1*; chattr +i .`, files)
		if err := s.Apply(t.Context(), planAll(t, s, files), nil); err != nil {
			t.Fatal(err)
		}
		if got := states(t, files); got != want {
			t.Errorf("before:\n%s\nafter:\n%s", want, got)
		}
	}
}

func TestAStalePlanTouchesNothingThatChangedSince(t *testing.T) {
	for _, many := range []int{1, 20} {
		t.Run(fmt.Sprint(many, " files"), func(t *testing.T) {
			p := places(t)[1]
			s := open1(t, p.vault, Options{})
			for i := range many {
				file := filepath.Join(p.dir, fmt.Sprint("f", i))
				write(t, file, "good")
				capture(t, s, file)
				write(t, file, "evil")
			}
			plan := planAll(t, s, p.dir)
			write(t, filepath.Join(p.dir, "f0"), "somebody's work")
			err := s.Apply(t.Context(), plan, nil)
			if !errors.Is(err, ErrRaced) {
				t.Errorf("apply: %v", err)
			}
			if got := read(t, filepath.Join(p.dir, "f0")); got != "somebody's work" {
				t.Errorf("the file that changed is %q", got)
			}
			for i := 1; i < many; i++ {
				if got := read(t, filepath.Join(p.dir, fmt.Sprint("f", i))); got != "good" {
					t.Errorf("file %d is %q", i, got)
				}
			}
		})
	}
}

func TestAReplacementInTheLastMomentIsSwappedBack(t *testing.T) {
	p := places(t)[1]
	file := filepath.Join(p.dir, "f")
	o := Options{}
	armed := false
	o.Disk.Before = func(op, _ string) error {
		if op == "exchange" && armed {
			armed = false
			write(t, file+".work", "somebody's work")
			return os.Rename(file+".work", file)
		}
		return nil
	}
	s := open1(t, p.vault, o)
	write(t, file, "good")
	capture(t, s, file)
	write(t, file, "evil")
	plan := planAll(t, s, p.dir)
	armed = true
	if err := s.Apply(t.Context(), plan, nil); !errors.Is(err, ErrRaced) {
		t.Errorf("apply: %v", err)
	}
	if got := read(t, file); got != "somebody's work" {
		t.Errorf("the file is %q", got)
	}
	noLeftovers(t, p.dir)
}

func TestOldVersionsComeBackByNumberTimeAndElsewhere(t *testing.T) {
	p := places(t)[1]
	at := time.Unix(1000, 0)
	s := open1(t, p.vault, Options{Now: func() time.Time { at = at.Add(time.Second); return at }})
	file := filepath.Join(p.dir, "d", "f")
	mkdirs(t, filepath.Dir(file))
	storetest.Run(t, "chmod", "2711", filepath.Dir(file))
	capture(t, s, filepath.Dir(file))
	var vs []Version
	for i := range 3 {
		write(t, file, fmt.Sprint("content ", i))
		vs = append(vs, capture(t, s, file))
	}
	for _, tc := range []struct {
		name string
		o    RestoreOptions
		want string
	}{
		{"by number", RestoreOptions{Version: 1}, "content 0"},
		{"by time", RestoreOptions{At: vs[1].Time}, "content 1"},
		{"the trusted one", RestoreOptions{}, "content 2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plan, err := s.PlanRestore(t.Context(), []string{file}, tc.o)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Apply(t.Context(), plan, nil); err != nil {
				t.Fatal(err)
			}
			if got := read(t, file); got != tc.want {
				t.Errorf("the file is %q, want %q", got, tc.want)
			}
		})
	}
	into := filepath.Join(p.dir, "into")
	plan, err := s.PlanRestore(t.Context(), []string{file}, RestoreOptions{Version: 2, Into: into})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), plan, nil); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(into, file)); got != "content 1" {
		t.Errorf("elsewhere it is %q", got)
	}
	if got := storetest.Truth(t, filepath.Join(into, filepath.Dir(file))); got != storetest.Truth(t, filepath.Dir(file)) {
		t.Errorf("its directory is\n%s", got)
	}
	if got := read(t, file); got != "content 2" {
		t.Errorf("in place it is %q", got)
	}
	for name, f := range map[string]func() (Plan, error){
		"an unknown path":           func() (Plan, error) { return s.PlanRestore(t.Context(), []string{"/none"}, RestoreOptions{}) },
		"an unknown version":        func() (Plan, error) { return s.PlanRestore(t.Context(), []string{file}, RestoreOptions{Version: 9}) },
		"a time before any version": func() (Plan, error) { return s.PlanRestore(t.Context(), []string{file}, RestoreOptions{At: 1}) },
		"a directory without a file": func() (Plan, error) {
			return s.PlanRestore(t.Context(), []string{p.dir + "/x"}, RestoreOptions{Recursive: true})
		},
	} {
		if _, err := f(); !errors.Is(err, ErrNoVersion) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAContentThatTheVaultLostIsAConflict(t *testing.T) {
	p := places(t)[1]
	s := open1(t, p.vault, Options{})
	file := filepath.Join(p.dir, "f")
	write(t, file, "good")
	v := capture(t, s, file)
	sync1(t, s)
	if err := s.objects.Remove(v.State.Hash); err != nil {
		t.Fatal(err)
	}
	write(t, file, "evil")
	plan := planAll(t, s, p.dir)
	if len(plan.Steps) != 0 || len(plan.Conflicts) != 1 || !strings.Contains(plan.Conflicts[0].Reason, "not kept") {
		t.Errorf("plan %+v", plan)
	}
}

// TestApplyingAPlanLeavesAnEmptyPlan makes random trees, keeps them, does random
// things to them, and restores them.
func TestApplyingAPlanLeavesAnEmptyPlan(t *testing.T) {
	for seed := range int64(40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			p := places(t)[int(seed)%3]
			s := open1(t, p.vault, Options{})
			root := filepath.Join(p.dir, "root")
			mkdirs(t, root)
			for range 40 {
				randomChange(t, rng, root)
			}
			kept := map[string]bool{}
			for _, f := range append(below(t, root), root) {
				capture(t, s, f)
				kept[f] = true
			}
			want := states(t, root)
			for range 1 + rng.Intn(40) {
				randomChange(t, rng, root)
			}
			for _, f := range below(t, root) { // as the daemon does for what was not there
				if !kept[f] {
					if _, err := s.Absent(f, Provenance{Trust: true}); err != nil {
						t.Fatal(err)
					}
				}
			}
			plan := planAll(t, s, root)
			if err := s.Apply(t.Context(), plan, nil); err != nil {
				t.Fatalf("apply %s: %v", actions(plan, root), err)
			}
			if again := planAll(t, s, root); len(again.Steps)+len(again.Conflicts) > 0 {
				t.Errorf("a second plan: %s %v", actions(again, root), again.Conflicts)
			}
			if got := states(t, root); got != want {
				t.Errorf("before:\n%s\nafter:\n%s", want, got)
			}
			noLeftovers(t, p.dir)
			clean(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// randomChange does one thing to a random name; what does not apply fails and
// counts as nothing.
func randomChange(t *testing.T, rng *rand.Rand, root string) {
	t.Helper()
	names := below(t, root)
	pick := func() string {
		if len(names) == 0 || rng.Intn(3) == 0 {
			dir := root
			for _, n := range names {
				if fi, err := os.Lstat(n); err == nil && fi.IsDir() && rng.Intn(3) == 0 {
					dir = n
				}
			}
			return filepath.Join(dir, fmt.Sprint("n", rng.Intn(12)))
		}
		return names[rng.Intn(len(names))]
	}
	a, b := pick(), pick()
	ops := []func() error{
		func() error { return os.WriteFile(a, []byte(fmt.Sprint("text ", rng.Intn(5))), 0o644) },
		func() error { return os.WriteFile(a, []byte(strings.Repeat("x", rng.Intn(100_000))), 0o600) },
		func() error { return os.Mkdir(a, 0o750) },
		func() error { return os.Symlink("target", a) },
		func() error { return os.Remove(a) },
		func() error { return os.RemoveAll(a) },
		func() error { return os.Rename(a, b) },
		func() error { return os.Link(a, b) },
		func() error { return os.Chmod(a, os.FileMode(rng.Intn(0o1000))) },
		func() error { return os.Lchown(a, rng.Intn(5), rng.Intn(5)) },
		func() error { return os.Chtimes(a, time.Unix(1, 0), time.Unix(int64(rng.Intn(1000)), 5)) },
		func() error { return os.Truncate(a, int64(rng.Intn(5000))) },
	}
	_ = ops[rng.Intn(len(ops))]()
}

// What only the kernel can take away is no difference that a restore could mend.
func TestEncryptionAndVerityAreNoDifferenceToARestore(t *testing.T) {
	const encrypted, verity = 0x800, 0x100000 // linux include/uapi/linux/fs.h FS_ENCRYPT_FL, FS_VERITY_FL
	a := event.State{Exists: true, Type: event.TypeRegular, Flags: encrypted | verity}
	b := event.State{Exists: true, Type: event.TypeRegular}
	if d := a.Diff(&b); len(d) != 1 || d[0] != "flags" {
		t.Errorf("the states differ by %q, want flags", d)
	}
	if d := diff(&a, &b); len(d) != 0 {
		t.Errorf("to a restore they differ by %q", d)
	}
	b.Flags = event.FlagImmutable
	if d := diff(&a, &b); len(d) != 1 || d[0] != "flags" {
		t.Errorf("to a restore they differ by %q, want flags", d)
	}
}

// TestRestoringIntoAnotherRootGivesOwnersTheirNumbersThere has a root with account
// files of its own, in which names have other numbers.
func TestRestoringIntoAnotherRootGivesOwnersTheirNumbersThere(t *testing.T) {
	p := places(t)[1]
	s := open1(t, p.vault, Options{})
	storetest.Sh(t, `cd "$1"; mkdir d; echo x > d/f; ln d/f d/g; ln -s f d/l; chown -h daemon:bin d d/f d/l; echo y > d/n; chown 54321:54321 d/n
		mkdir -p root/etc; printf 'root:x:0:0::/:/bin/sh\ndaemon:x:701:701::/:/bin/sh\ndaemon:x:9:9::/:/bin/sh\n' > root/etc/passwd; printf 'bin:x:702:\n' > root/etc/group`, p.dir)
	d := filepath.Join(p.dir, "d")
	for _, f := range append(below(t, d), d) {
		capture(t, s, f)
	}
	root := filepath.Join(p.dir, "root")
	plan, err := s.PlanRestore(t.Context(), []string{d}, RestoreOptions{Recursive: true, Into: root})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), plan, nil); err != nil {
		t.Fatal(err)
	}
	got := storetest.Sh(t, `cd "$1$2"; stat -c '%n %u:%g %h' . f g l n`, root, d)
	if want := ". 701:702 2\nf 701:702 2\ng 701:702 2\nl 701:702 1\nn 54321:54321 1\n"; got != want {
		t.Errorf("owners and links there:\n%swanted:\n%s", got, want)
	}
	if again, err := s.PlanRestore(t.Context(), []string{d}, RestoreOptions{Recursive: true, Into: root}); err != nil || len(again.Steps) > 0 {
		t.Errorf("a second plan: %s, %v", actions(again, root), err)
	}
}
