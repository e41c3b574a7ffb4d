package rollback

import (
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/rollback/storetest"
)

// zooPlaces are the file systems that files are restored on.
var zooPlaces = []struct{ name, mount string }{
	{"ext4", `truncate -s 400M "$1.img"; mkfs.ext4 -q -I 256 "$1.img"; mount -o loop "$1.img" "$1"`},
	{"xfs", `truncate -s 400M "$1.img"; mkfs.xfs -q "$1.img"; mount -o loop "$1.img" "$1"`},
	{"btrfs", `truncate -s 400M "$1.img"; mkfs.btrfs -q "$1.img"; mount -o loop "$1.img" "$1"`},
	{"tmpfs", `mount -t tmpfs none "$1"`},
	{"overlay", `mkdir "$1.lower" "$1.upper" "$1.work"; bash "$2" make "$1.lower"
		mount -t overlay none -o lowerdir="$1.lower",upperdir="$1.upper",workdir="$1.work" "$1"`},
}

// zoo runs testdata/zoo.sh.
func zoo(t *testing.T, verb, dir string) string {
	t.Helper()
	return storetest.Run(t, "bash", zooScript(t), verb, dir)
}

func zooScript(t *testing.T) string {
	t.Helper()
	p, err := filepath.Abs("testdata/zoo.sh")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAZooDamagedInEveryWayComesBackExactly makes files of every kind, damages
// them in every way, and restores them: by a plan, as a person does, and path by
// path, as the daemon does. What stat, lsattr, getfattr, getfacl, getcap, b3sum
// and find tell must be the same as before.
func TestAZooDamagedInEveryWayComesBackExactly(t *testing.T) {
	for _, fs := range zooPlaces {
		t.Run(fs.name, func(t *testing.T) {
			base := storetest.Temp(t)
			mnt := filepath.Join(base, "mnt")
			mkdirs(t, mnt)
			storetest.Sh(t, fs.mount, mnt, zooScript(t))
			t.Cleanup(func() {
				storetest.Loosen(t, mnt)
				storetest.Run(t, "umount", "--lazy", mnt)
			})
			root, vault := mnt, filepath.Join(base, "state", "vault")
			if fs.name != "overlay" { // there the files are in the lower layer
				root, vault = filepath.Join(mnt, "zoo"), filepath.Join(mnt, "state", "vault")
				mkdirs(t, root)
				zoo(t, "make", root)
			}
			mkdirs(t, filepath.Dir(vault))
			s := open1(t, vault, Options{})
			kept := map[string]bool{}
			for _, p := range append([]string{root}, below(t, root)...) {
				capture(t, s, p)
				kept[p] = true
			}
			sync1(t, s)
			want := zoo(t, "list", root)
			if n := len(kept); n < 300 {
				t.Fatalf("only %d files", n)
			}
			t.Logf("%d files", len(kept))
			for _, how := range []struct {
				name string
				do   func()
			}{
				{"by a plan", func() {
					plan := planAll(t, s, root)
					if err := s.Apply(t.Context(), plan, nil); err != nil {
						t.Errorf("apply: %v", err)
					}
					if again := planAll(t, s, root); len(again.Steps)+len(again.Conflicts) > 0 {
						t.Errorf("a second plan: %s %v", actions(again, root), again.Conflicts)
					}
				}},
				{"path by path", func() {
					paths := s.Paths(root)
					sort.Strings(paths)
					for _, p := range paths {
						v, _ := s.Trusted(p)
						_, err := s.RestorePath(t.Context(), p, v)
						if err != nil && (v.State.Exists || !isLoop(err)) { // below a symlink is nothing of ours
							t.Error(err)
						}
						for _, q := range s.Links(v) {
							w, _ := s.Trusted(q)
							if _, err := s.Relink(t.Context(), q, p, w); err != nil {
								t.Error(err)
							}
						}
					}
				}},
			} {
				zoo(t, "damage", root)
				if bad := zoo(t, "list", root); len(differing(want, bad)) < 1000 {
					t.Fatalf("the damage shows in %d lines only", len(differing(want, bad)))
				}
				for _, p := range below(t, root) { // as the daemon does for what was not there
					if !kept[p] {
						if _, err := s.Absent(p, Provenance{Trust: true}); err != nil {
							t.Fatal(err)
						}
					}
				}
				how.do()
				got := zoo(t, "list", root)
				if d := differing(want, got); len(d) > 0 {
					t.Errorf("%s, %d lines differ:\n%s", how.name, len(d), strings.Join(d[:min(len(d), 60)], "\n"))
				}
				noLeftovers(t, mnt)
				if t.Failed() {
					break
				}
			}
			clean(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// differing lists the lines that only one of two texts has.
func differing(a, b string) []string {
	count := map[string]int{}
	for _, l := range strings.Split(a, "\n") {
		count[l]++
	}
	for _, l := range strings.Split(b, "\n") {
		count[l]--
	}
	var out []string
	for l, n := range count {
		if n != 0 {
			out = append(out, fmt.Sprintf("%.200s  (%+d)", l, -n))
		}
	}
	sort.Slice(out, func(i, j int) bool { return strings.TrimLeft(out[i], "<> ") < strings.TrimLeft(out[j], "<> ") })
	return out
}
