package rollback

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

func TestContentsAreStoredOnceAndCheckWithOtherPrograms(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	for i := range 5 {
		write(t, filepath.Join(p.dir, fmt.Sprint(i)), strings.Repeat("the same ", 20_000))
		capture(t, s, filepath.Join(p.dir, fmt.Sprint(i)))
	}
	if err := os.WriteFile(filepath.Join(p.dir, "long"), bytes.Repeat([]byte("long "), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	capture(t, s, filepath.Join(p.dir, "long"))
	sync1(t, s)
	st := s.Stats()
	if st.Paths != 6 || st.Versions != 6 || st.Objects != 7 || st.Bytes != 180_000+5<<20 || st.Stored >= st.Bytes || st.Stored == 0 {
		t.Errorf("stats %+v", st)
	}
	// A list is checked by what its chunks are together.
	storetest.Sh(t, `cd "$1"; lists=0
		content() {
			if test "$(head -c 4 $1)" = HFC1; then
				tail -c +13 $1 | head -c -32 | od -An -v -tx1 -w36 | tr -d ' ' | cut -c 1-64 | while read c; do zstd -dc < ${c%${c#??}}/$c; done
			else zstd -dc < $1; fi
		}
		for f in */*; do
			test "$(content $f | b3sum --no-names)" = "$(basename $f)"
			if test "$(head -c 4 $f)" = HFC1; then lists=$((lists+1)); fi
		done
		test $lists = 1; test "$(ls -d */* | wc -l)" = 7`, filepath.Join(p.vault, "objects"))
}

// TestAVaultFromBeforeThereWereChunksIsReadAndGoesOn opens what the version
// before wrote: long contents are one frame each.
func TestAVaultFromBeforeThereWereChunksIsReadAndGoesOn(t *testing.T) {
	p := places(t)[0]
	storetest.Run(t, "tar", "-C", filepath.Dir(p.vault), "-xzf", "testdata/vault-1.tar.gz")
	var long strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&long, "line %d of a content that is longer than a mebibyte\n", i%7000)
	}
	want := map[string]string{"/srv/short": "changed\n", "/srv/long": long.String(), "/srv/zeros": strings.Repeat("\x00", 3<<20)}
	s := open1(t, p.vault, Options{})
	check := func() {
		t.Helper()
		clean(t, s)
		for path, text := range want {
			v, ok := s.Trusted(path)
			if !ok {
				t.Fatalf("%s has no trusted version", path)
			}
			to := filepath.Join(p.dir, filepath.Base(path))
			if _, err := s.RestorePath(t.Context(), to, v); err != nil || read(t, to) != text {
				t.Errorf("%s came back as something else, %v", path, err)
			}
		}
	}
	check()
	// The same contents are known, and a little more of one is stored in chunks.
	before := s.Stats().Objects
	capture(t, s, filepath.Join(p.dir, "long"))
	sync1(t, s)
	if n := s.Stats().Objects; n != before {
		t.Errorf("%d objects, %d before", n, before)
	}
	want["/srv/long"] += "one line more\n"
	write(t, filepath.Join(p.dir, "long"), want["/srv/long"])
	st := readState(t, filepath.Join(p.dir, "long"), nil)
	in := s.Intake()
	if _, err := in.Write([]byte(want["/srv/long"])); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CaptureState("/srv/long", st, in, Provenance{Trust: true}); err != nil {
		t.Fatal(err)
	}
	sync1(t, s)
	check()
	if n := s.Stats().Objects; n < before+3 {
		t.Errorf("%d objects, %d before: it is not in chunks", n, before)
	}
}

// TestATrustedVersionIsCapturedUntilItIsReadBack counts what a restore could bring back.
func TestATrustedVersionIsCapturedUntilItIsReadBack(t *testing.T) {
	vault := filepath.Join(storetest.Temp(t), "vault")
	s := open1(t, vault, Options{})
	for i, path := range []string{"/d/a", "/d/b", "/dd", "/d/untrusted"} {
		keepText(t, s, path, fmt.Sprint("content ", i), Provenance{Trust: i < 3})
	}
	if _, err := s.CaptureState("/d", event.State{Exists: true, Type: event.TypeDir}, s.Intake(), Provenance{Trust: true}); err != nil {
		t.Fatal(err)
	}
	check := func(root string, want Readiness) {
		t.Helper()
		if got := s.Readiness(root); got != want {
			t.Errorf("%s: %+v, wanted %+v", root, got, want)
		}
	}
	check("/d", Readiness{Captured: 2, Verified: 1})
	list, seen := s.Unverified(0, 10)
	if len(list) != 3 {
		t.Fatalf("unverified are %v", list)
	}
	sync1(t, s)
	object := filepath.Join(vault, "objects", list[0].State.Hash.Hex()[:2], list[0].State.Hash.Hex())
	good, bad := read(t, object), "damage"
	write(t, object, bad)
	for _, v := range list {
		if err := s.Verify(v); (err != nil) != (v.Path == list[0].Path) {
			t.Errorf("verify %s: %v", v.Path, err)
		}
	}
	check("/d", Readiness{Captured: 1, Verified: 2})
	check("", Readiness{Captured: 1, Verified: 3})
	if list, _ := s.Unverified(seen, 10); len(list) > 0 {
		t.Errorf("without a change there are new ones: %v", list)
	}
	write(t, object, good)
	if err := s.Verify(list[0]); err != nil {
		t.Error(err)
	}
	check("/d", Readiness{Verified: 3})
	keepText(t, s, "/d/a", "another", Provenance{Trust: true})
	check("/d", Readiness{Captured: 1, Verified: 2})
	if list, _ := s.Unverified(seen, 10); len(list) != 1 || list[0].Path != "/d/a" {
		t.Errorf("after a change unverified are %v", list)
	}
}
