package rollback

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// formatContents are what writeFormat keeps: short, empty and in chunks.
func formatContents() map[string]string {
	long := strings.Repeat(strings.Repeat("all the same ", 300)+"\n", 400)
	return map[string]string{"/srv/short": "short\n", "/srv/empty": "", "/srv/long": long + "and " + long}
}

// oldVault has the vault that writeFormat made before there were seals in dir/vault.
func oldVault(t *testing.T) (dir string) {
	t.Helper()
	dir = storetest.Temp(t)
	storetest.Run(t, "tar", "-C", dir, "-xzf", "testdata/vault-2.tar.gz")
	return dir
}

// checkFormat compares what a vault has with what writeFormat kept.
func checkFormat(t *testing.T, s *Store) {
	t.Helper()
	clean(t, s)
	for path, text := range formatContents() {
		v, ok := s.Trusted(path)
		if b, err := s.contentOf(t.Context(), &v.State); !ok || err != nil || string(b) != text {
			t.Errorf("%s is something else, %v", path, err)
		}
	}
	all, err := s.Pending()
	if err != nil || len(all) != 1 || string(all[0].Plan.Steps[0].Content) != "merged\n" {
		t.Errorf("plans %+v, %v", all, err)
	}
	if len(s.Holds()) != 1 {
		t.Error("the hold is gone")
	}
}

// TestAVaultWithoutASealerIsReadAndWrittenAsBeforeThereWereSeals makes the vault of
// testdata once more. How zstd puts a content may change with zstd.
func TestAVaultWithoutASealerIsReadAndWrittenAsBeforeThereWereSeals(t *testing.T) {
	old := oldVault(t)
	s, err := Open(filepath.Join(old, "vault"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkFormat(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now := filepath.Join(storetest.Temp(t), "vault")
	writeFormat(t, now)
	files := func(vault string) string {
		var out []string
		err := filepath.WalkDir(vault, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text := read(t, path)
			if strings.HasPrefix(text, "\x28\xb5\x2f\xfd") { // RFC 8878 3.1.1
				text = "a frame of zstd"
			}
			out = append(out, fmt.Sprintf("%s %q", strings.TrimPrefix(path, vault), text))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, "\n")
	}
	if got, want := files(now), files(filepath.Join(old, "vault")); got != want {
		t.Errorf("written  %s\nbefore  %s", got, want)
	}
}

// TestAVaultGetsASealerAndItsOldContentsStayReadable seals what is new.
func TestAVaultGetsASealerAndItsOldContentsStayReadable(t *testing.T) {
	vault := filepath.Join(oldVault(t), "vault")
	s := open1(t, vault, Options{Sealer: storetest.NewKeys("a")})
	checkFormat(t, s)
	v := keepText(t, s, "/srv/new", "new", Provenance{Trust: true})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, h := range []struct {
		hash   event.Hash
		sealed bool
	}{{v.State.Hash, true}, {digest.Sum([]byte("short\n")), false}} {
		if is := strings.HasPrefix(read(t, objectFile(vault, h.hash)), "HFS"); is != h.sealed {
			t.Errorf("%s sealed: %v", h.hash, is)
		}
	}
	if _, err := Open(vault, Options{}); !errors.Is(err, ErrSealed) {
		t.Errorf("it goes on in the clear: %v", err)
	}
	checkFormat(t, open1(t, vault, Options{Sealer: storetest.NewKeys("a")}))
}

// writeFormat makes the vault that testdata/vault-2.tar.gz was made of: each byte
// of it is determined.
func writeFormat(t *testing.T, vault string) {
	t.Helper()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := open1(t, vault, Options{Now: func() time.Time { return now }, Rand: strings.NewReader(strings.Repeat("vault-2 ", 9))})
	state := func(text string) event.State {
		return event.State{Exists: true, Type: event.TypeRegular, Mode: 0o644, User: "root", Group: "root",
			Size: uint64(len(text)), Hash: digest.Sum([]byte(text)), Ino: 7, Mtime: event.TimeOf(now)}
	}
	for _, path := range []string{"/srv/short", "/srv/empty", "/srv/long"} {
		text := formatContents()[path]
		in := s.Intake()
		if _, err := in.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CaptureState(path, state(text), in, Provenance{Record: "boot/1", Reason: "as installed", Trust: true}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Hold("/srv/short", Provenance{Reason: "a case"}); err != nil {
		t.Fatal(err)
	}
	st := Step{Path: "/srv/merged", Action: ActionWrite, Want: state("merged\n"), Reason: "merged", Content: []byte("merged\n")}
	if _, err := s.Begin(Plan{Steps: []Step{st}}, []byte("note")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
