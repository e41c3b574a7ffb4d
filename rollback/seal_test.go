package rollback

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
	"github.com/holdfast/holdfast/rollback/storetest"
)

func objectFile(vault string, h event.Hash) string {
	return filepath.Join(vault, "objects", h.Hex()[:2], h.Hex())
}

// TestWhatTheVaultDoesItDoesSealed runs tests of this package once more, in another
// process whose vaults are sealed.
func TestWhatTheVaultDoesItDoesSealed(t *testing.T) {
	if os.Getenv(sealedEnv) != "" {
		t.Fatal("the tests run sealed already")
	}
	tests := []string{
		"TestVersionsAreKeptInOrderAndSurviveReopening", "TestCaptureReplacesADamagedContentOfAnEarlierProcess",
		"TestApplyingAPlanLeavesAnEmptyPlan",
		"TestADamagedObjectIsNeverRestored", "TestUndoTakesBackWhatOneUserDid", "TestWhatSomebodyChangedSinceAPlanWasCutOffIsLeftAlone",
		"TestFsckNamesEachProblemAndRepairsWhatALiveFileHas", "TestContentsGoWhenTheirGraceIsOver", "TestWhatABegunPlanNeedsIsNotPruned",
		"TestKillingAPruneAtAnyStepLeavesAWholeVault",
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^("+strings.Join(tests, "|")+")$")
	c.Env = append(os.Environ(), sealedEnv+"=yes")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range tests {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not run", name)
		}
	}
}

func objectFiles(t *testing.T, vault string) map[string]string {
	t.Helper()
	files := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(vault, "objects", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		files[p] = read(t, p)
	}
	return files
}

// sealedPlace is a vault with two keys, of which a wrote the first contents and b
// those after them.
func sealedPlace(t *testing.T) (vault string, short, long Version) {
	t.Helper()
	vault = filepath.Join(storetest.Temp(t), "vault")
	keys := storetest.NewKeys("a", "b")
	s := open1(t, vault, Options{Sealer: keys})
	keepText(t, s, "/by-a", "sealed with a", Provenance{Trust: true})
	keys.Use("b")
	short = keepText(t, s, "/short", "sealed with b", Provenance{Trust: true})
	long = keepText(t, s, "/long", string(longText(3<<20)), Provenance{Trust: true})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return vault, short, long
}

func TestWhatCannotBeOpenedIsToldApartAndNothingRemovesOrReplacesIt(t *testing.T) {
	vault, short, long := sealedPlace(t)
	before := objectFiles(t, vault)
	now := time.Now().AddDate(1, 0, 0)
	s := open1(t, vault, Options{Sealer: storetest.NewKeys("a"), Now: func() time.Time { return now }})
	for _, v := range []Version{short, long} {
		if err := s.Verify(v); !errors.Is(err, ErrSealed) || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), storetest.KeyID("b")) {
			t.Errorf("verify: %v", err)
		}
		if _, err := s.Content(v.State.Hash); !errors.Is(err, ErrSealed) {
			t.Errorf("content: %v", err)
		}
		to := filepath.Join(filepath.Dir(vault), "restored")
		if _, err := s.RestorePath(t.Context(), to, v); !errors.Is(err, ErrSealed) {
			t.Errorf("restore: %v", err)
		}
		if _, err := os.Lstat(to); err == nil {
			t.Errorf("something was restored: %q", read(t, to))
		}
	}

	// The file at the path has the content still: it is no reason to write it over.
	file := filepath.Join(filepath.Dir(vault), "live")
	for _, text := range []string{"sealed with b", string(longText(3 << 20))} {
		write(t, file, text)
		if v, err := s.Capture(t.Context(), file, Provenance{}); !errors.Is(err, ErrSealed) {
			t.Errorf("a content that cannot be read became version %d: %v", v.ID, err)
		}
		if s.Mend(t.Context(), Version{Path: file, State: event.State{Hash: digest.Sum([]byte(text))}}) {
			t.Error("mended what is not known to be damaged")
		}
	}
	found := map[string]int{}
	if err := s.Fsck(t.Context(), true, func(p Problem) {
		found[fmt.Sprint(p.Kind, " ", strings.Join(p.Paths, " "), " ", p.Repaired)]++
	}); err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || found["sealed /short false"] != 1 || found["sealed /long false"] != 1 {
		t.Errorf("fsck found %v", found)
	}
	// Which chunks the long one has is not known.
	keepText(t, s, "/by-a", "another", Provenance{Trust: true})
	now = now.AddDate(1, 0, 0)
	keepText(t, s, "/by-a", "and another", Provenance{Trust: true})
	now = now.AddDate(1, 0, 0)
	done, err := s.Prune(t.Context(), Keep{Age: time.Hour}, Provenance{}, nil)
	if !errors.Is(err, ErrSealed) || done.Objects != 0 {
		t.Errorf("pruned %+v, %v", done, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	after := objectFiles(t, vault)
	for name, bytes := range before {
		if after[name] != bytes {
			t.Errorf("gone or changed: %s", name)
		}
	}

	r := open1(t, vault, Options{Sealer: storetest.NewKeys("b", "a")})
	clean(t, r)
	if _, err := r.Prune(t.Context(), Keep{Age: time.Hour}, Provenance{}, nil); err != nil {
		t.Error(err)
	}
	for path, text := range map[string]string{"/by-a": "and another", "/short": "sealed with b", "/long": string(longText(3 << 20))} {
		v, _ := r.Trusted(path)
		if b, err := r.contentOf(t.Context(), &v.State); err != nil || string(b) != text {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestASealedVaultIsOpenedForWritingWithItsKeyAlone(t *testing.T) {
	vault, _, _ := sealedPlace(t)
	for name, sealer := range map[string]Sealer{"none": nil, "another": storetest.NewKeys("c"), "another of the same id": likeA("c")} {
		for _, readOnly := range []bool{false, true} {
			s, err := Open(vault, Options{Sealer: sealer, ReadOnly: readOnly})
			if sealer == nil && readOnly {
				if err != nil {
					t.Fatal(err)
				}
				v, ok := s.Trusted("/by-a")
				if _, err := s.Content(v.State.Hash); !ok || !errors.Is(err, ErrSealed) {
					t.Errorf("a content without a key: %v", err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, ErrSealed) || errors.Is(err, ErrCorrupt) {
				t.Errorf("%s, for reading %v: %v", name, readOnly, err)
			}
		}
	}
	// A new key is noted with the old one at hand, and is enough then.
	for _, words := range [][]string{{"b", "a"}, {"b"}} {
		s := open1(t, vault, Options{Sealer: storetest.NewKeys(words...)})
		if v, _ := s.Trusted("/short"); s.Verify(v) != nil {
			t.Errorf("with %v: %v", words, s.Verify(v))
		}
		if err := s.rewriteLog(); err != nil { // as fsck and prune do
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := Open(vault, Options{Sealer: storetest.NewKeys("a")}); !errors.Is(err, ErrSealed) {
		t.Errorf("the key of before is taken for the one of now: %v, %v", s, err)
	}
}

// likeA has the key of a word go by the id of a's.
func likeA(word string) Sealer {
	k := storetest.NewKeys("a")
	k.Learn(storetest.KeyID("a"), word)
	return k
}

// TestAContentOfABegunPlanIsSealed looks at the one file beside the objects that the
// vault writes a content to.
func TestAContentOfABegunPlanIsSealed(t *testing.T) {
	vault := filepath.Join(storetest.Temp(t), "vault")
	keys := storetest.NewKeys("a", "b")
	s := open1(t, vault, Options{Sealer: keys})
	keys.Use("b")
	text := "merged of two"
	need := keepText(t, s, "/needed", "needed by the plan", Provenance{})
	id, err := s.Begin(Plan{Steps: []Step{
		{Path: "/n", Action: ActionWrite, Want: need.State},
		{Path: "/m", Action: ActionWrite, Want: event.State{Exists: true, Type: event.TypeRegular, Hash: digest.Sum([]byte(text))}, Content: []byte(text)},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(vault, "plans", id+".1")
	if strings.Contains(read(t, file), "of two") {
		t.Error("it is in the clear")
	}
	all, err := s.Pending()
	if err != nil || len(all) != 1 || string(all[0].Plan.Steps[1].Content) != text {
		t.Errorf("%+v, %v", all, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open1(t, vault, Options{Sealer: storetest.NewKeys("a")})
	if all, err := s.Pending(); !errors.Is(err, ErrSealed) || len(all) > 0 || !Passing(err) {
		t.Errorf("without the key: %+v, %v", all, err)
	}
	found := map[string]bool{}
	if err := s.Fsck(t.Context(), true, func(p Problem) { found[fmt.Sprint(p.Kind, " ", p.Object, " ", p.Repaired)] = true }); err != nil {
		t.Fatal(err)
	}
	if !found["sealed plans/"+id+".1 false"] {
		t.Errorf("found %v", found)
	}
	if _, err := s.Prune(t.Context(), Keep{}, Provenance{}, nil); !errors.Is(err, ErrSealed) {
		t.Errorf("pruned what the plan may need: %v", err)
	}
	if _, err := os.Lstat(file); err != nil {
		t.Error(err)
	}
}

// TestASealedRecordOfTheLogIsLeftToWhoCanReadIt is about vaults of versions to come.
func TestASealedRecordOfTheLogIsLeftToWhoCanReadIt(t *testing.T) {
	vault := filepath.Join(storetest.Temp(t), "vault")
	s := open1(t, vault, Options{})
	keepText(t, s, "/f", "text", Provenance{Trust: true})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	body, err := cas.Seal(storetest.NewKeys("a"), "record", []byte("what it says"))
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(vault, "versions", "00000001.log")
	whole := read(t, log) + string(frame(body))
	write(t, log, whole)
	for _, sealer := range []Sealer{nil, storetest.NewKeys("a")} {
		if s, err := Open(vault, Options{Sealer: sealer}); !errors.Is(err, ErrSealed) {
			t.Errorf("opened for writing: %v, %v", s, err)
		}
	}
	r, err := OpenReadOnly(vault)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if d := r.Opened().Damage; len(d) != 1 || d[0].Kind != ProblemSealed || len(r.Versions("/f")) != 1 {
		t.Errorf("%v", d)
	}
	if read(t, log) != whole {
		t.Error("the log was changed")
	}
}

func TestASealerThatFailsMakesTheCaptureFail(t *testing.T) {
	vault := filepath.Join(storetest.Temp(t), "vault")
	keys := storetest.NewKeys("a")
	s := open1(t, vault, Options{Sealer: keys})
	keys.Use("gone")
	for _, n := range []int{10, 3 << 20} {
		file := filepath.Join(filepath.Dir(vault), "f")
		write(t, file, string(longText(n)))
		if v, err := s.Capture(t.Context(), file, Provenance{}); !errors.Is(err, storetest.ErrNoKey) {
			t.Errorf("version %d, %v", v.ID, err)
		}
	}
	sync1(t, s)
	if st := s.Stats(); st.Objects != 0 || st.Versions != 0 {
		t.Errorf("%+v", st)
	}
	if left := below(t, filepath.Join(vault, "tmp")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
