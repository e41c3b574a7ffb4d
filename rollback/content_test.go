package rollback

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
