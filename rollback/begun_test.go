package rollback

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/rollback/storetest"
)

// TestWhatIsBegunIsToldWithoutReadingTheSteps compares with Pending, which reads all.
func TestWhatIsBegunIsToldWithoutReadingTheSteps(t *testing.T) {
	vault := filepath.Join(storetest.Temp(t), "vault")
	s := open1(t, vault, Options{})
	id := ""
	for i := range 20 {
		var p Plan
		for k := range i * 100 {
			p.Steps = append(p.Steps, Step{Path: fmt.Sprintf("/srv/%d/%d", i, k), Action: ActionWrite, Content: bytes.Repeat([]byte("x"), 1000)})
		}
		var err error
		if id, err = s.Begin(p, bytes.Repeat([]byte("n"), i*1000)); err != nil { // some are longer than what is read first
			t.Fatal(err)
		}
	}
	start := time.Now()
	all, err := s.Pending()
	whole := time.Since(start)
	if err != nil || len(all) != 20 {
		t.Fatalf("%d, %v", len(all), err)
	}
	start = time.Now()
	begun, err := s.Begun()
	t.Logf("%s, with all steps %s", time.Since(start), whole)
	if err != nil || len(begun) != len(all) {
		t.Fatalf("%d, %v", len(begun), err)
	}
	for i, p := range all {
		if b := begun[i]; b.ID != p.ID || b.Tries != p.Tries || b.Begun != p.Begun || string(b.Note) != string(p.Note) || b.Steps != len(p.Plan.Steps) {
			t.Errorf("%+v, want %s, %d tries, %d steps", b, p.ID, p.Tries, len(p.Plan.Steps))
		}
	}
	name := filepath.Join(vault, "plans", id+".1")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text[frameHead+1] ^= 1
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if begun, err = s.Begun(); !errors.Is(err, ErrCorrupt) || len(begun) != 19 {
		t.Errorf("one is damaged: %d, %v", len(begun), err)
	}
}
