package rollback

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

func TestTheLogSurvivesATornEndAndReportsDamage(t *testing.T) {
	base := storetest.Temp(t)
	file := filepath.Join(base, "f")
	write(t, file, "x")
	build := func(vault string) (log string, size int) {
		s := open1(t, vault, Options{})
		for i := range 10 {
			write(t, file, fmt.Sprint("content ", i))
			capture(t, s, file)
			sync1(t, s)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		log = filepath.Join(vault, "versions", "00000001.log")
		return log, len(read(t, log))
	}
	t.Run("each length", func(t *testing.T) {
		log, size := build(filepath.Join(base, "v1"))
		whole := read(t, log)
		for n := 0; n <= size; n += 7 {
			write(t, log, whole[:n])
			s, err := Open(filepath.Join(base, "v1"), Options{})
			if err != nil {
				t.Fatal(err)
			}
			versions := len(s.Versions(file))
			if len(s.Opened().Damage) > 0 {
				t.Fatalf("cut at %d: damage %v", n, s.Opened().Damage)
			}
			if want := strings.Count(whole[:n], "HFVL"); versions != want && versions != want-1 {
				t.Fatalf("cut at %d: %d versions of %d begun", n, versions, want)
			}
			clean(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			r, err := OpenReadOnly(filepath.Join(base, "v1"))
			if err != nil || r.Opened().TornBytes != 0 || len(r.Versions(file)) != versions {
				t.Fatalf("cut at %d: not mended: %v", n, err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("a flipped bit", func(t *testing.T) {
		vault := filepath.Join(base, "v2")
		log, size := build(vault)
		whole := read(t, log)
		last := strings.LastIndex(whole, "HFVL")
		for n := 0; n < size; n += 11 {
			b := []byte(whole)
			b[n] ^= 0x40
			if err := os.WriteFile(log, b, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := OpenReadOnly(vault)
			if err != nil {
				t.Fatal(err)
			}
			if n < last && (len(s.Opened().Damage) == 0 || len(s.Versions(file)) != 9) {
				t.Errorf("bit at %d: damage %v, %d versions", n, s.Opened().Damage, len(s.Versions(file)))
			}
			if n >= last && (s.Opened().TornBytes == 0 || len(s.Versions(file)) != 9) {
				t.Errorf("bit at %d, in the last record: torn %d, %d versions", n, s.Opened().TornBytes, len(s.Versions(file)))
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("repair keeps what can be read", func(t *testing.T) {
		vault := filepath.Join(base, "v3")
		log, _ := build(vault)
		b := []byte(read(t, log))
		b[len(b)/2] ^= 1
		if err := os.WriteFile(log, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open1(t, vault, Options{})
		var found []Problem
		if err := s.Fsck(t.Context(), true, func(p Problem) { found = append(found, p) }); err != nil {
			t.Fatal(err)
		}
		if len(found) != 2 || found[0].Kind != ProblemLog || !found[0].Repaired || found[1].Kind != ProblemOrphan {
			t.Errorf("found %v", found)
		}
		clean(t, s)
		write(t, file, "one more")
		capture(t, s, file)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		r := open1(t, vault, Options{})
		if n := len(r.Versions(file)); n != 10 || len(r.Opened().Damage) > 0 {
			t.Errorf("%d versions, damage %v", n, r.Opened().Damage)
		}
		if v, _ := r.Trusted(file); v.ID != 11 {
			t.Errorf("version %d is trusted", v.ID)
		}
		clean(t, r)
	})
}

func TestFsckNamesEachProblemAndRepairsWhatALiveFileHas(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	files := map[string]Version{}
	for _, n := range []string{"whole", "flipped", "missing", "lost"} {
		f := filepath.Join(p.dir, n)
		write(t, f, strings.Repeat(n+" ", 1000))
		files[n] = capture(t, s, f)
	}
	write(t, filepath.Join(p.dir, "unused"), "unused")
	if err := s.objects.Put(event.Hash{0xaa}, []byte("no version names this")); err != nil {
		t.Fatal(err)
	}
	sync1(t, s)
	object := func(n string) string {
		h := files[n].State.Hash.Hex()
		return filepath.Join(p.vault, "objects", h[:2], h)
	}
	storetest.Sh(t, `printf X | dd of="$1" bs=1 seek=30 conv=notrunc 2>/dev/null; rm "$2" "$3"; echo stray > "$4/stray"`,
		object("flipped"), object("missing"), object("lost"), filepath.Join(p.vault, "objects"))
	write(t, filepath.Join(p.dir, "lost"), "the live file is another one now")

	kinds := func(repair bool) string {
		var out []string
		err := s.Fsck(t.Context(), repair, func(p Problem) {
			name := ""
			if len(p.Paths) == 1 {
				name = filepath.Base(p.Paths[0])
			}
			out = append(out, fmt.Sprint(p.Kind, " ", name, " ", p.Repaired))
		})
		if err != nil {
			t.Fatal(err)
		}
		sort.Strings(out)
		return strings.Join(out, ", ")
	}
	if got, want := kinds(false), "corrupt flipped false, missing lost false, missing missing false, stray  false"; got != want {
		t.Errorf("found  %s\nwanted %s", got, want)
	}
	if got, want := kinds(true), "corrupt flipped true, missing lost false, missing missing true, orphan  true, stray  true"; got != want {
		t.Errorf("found  %s\nwanted %s", got, want)
	}
	if got, want := kinds(false), "missing lost false"; got != want {
		t.Errorf("after the repair  %s\nwanted %s", got, want)
	}
	if err := s.Verify(files["flipped"]); err != nil {
		t.Error(err)
	}
	if err := s.Verify(files["lost"]); !errors.Is(err, ErrMissing) {
		t.Errorf("verify of a lost content: %v", err)
	}
}

func TestCaptureReplacesADamagedContentOfAnEarlierProcess(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	file := filepath.Join(p.dir, "f")
	write(t, file, strings.Repeat("text ", 1000))
	v := capture(t, s, file)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	h := v.State.Hash.Hex()
	storetest.Sh(t, `printf XX | dd of="$1" bs=1 seek=20 conv=notrunc 2>/dev/null`, filepath.Join(p.vault, "objects", h[:2], h))
	s = open1(t, p.vault, Options{})
	if err := s.Verify(v); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("the damage does not show: %v", err)
	}
	capture(t, s, file)
	sync1(t, s)
	if err := s.Verify(v); err != nil {
		t.Error(err)
	}
	clean(t, s)
}
