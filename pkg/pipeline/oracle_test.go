package pipeline_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
	"github.com/holdfast/holdfast/vmtests/replay"
)

// Three actors work with the same few names, directories among them; the events come
// at once or in another order than the deeds, and are looked at late. Still the state
// that the records tell in their order is what an independent scan finds at the end.
func TestRecordsTellTheTree(t *testing.T) {
	for i, large := range []bool{false, false, true, true} {
		late := i%2 == 1
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("large %v, late %v, seed %d", large, late, seed), func(t *testing.T) {
				t.Parallel()
				s := pipelinetest.NewScene(t, event.ModeObserve)
				if late {
					s.Late = rand.New(rand.NewPCG(seed, 2))
				}
				if large {
					s.Large(seed)
				}
				told, err := replay.Scan(s.Dir)
				if err != nil {
					t.Fatal(err)
				}
				s.Start()
				mingle(s, rand.New(rand.NewPCG(seed, 1)), 500)
				s.Release()
				for range 600 {
					if st := s.P.Stats(); st.Waiting == 0 && st.Doubt == 0 {
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
				s.Stop()
				all, _ := s.Journal.Records()
				var log bytes.Buffer
				enc := json.NewEncoder(&log)
				for i := range all {
					all[i].Seq = uint64(i + 1)
					if err := enc.Encode(&all[i]); err != nil {
						t.Fatal(err)
					}
				}
				counts, err := told.Follow(&log)
				if err != nil {
					t.Fatal(err)
				}
				if st := s.P.Stats(); large != (st.Large > 20) {
					t.Errorf("%d large files", st.Large)
				}
				found, err := replay.Scan(s.Dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range told.Compare(found) {
					t.Errorf("%s (records %v)", d, told.About(d.Path))
				}
				if found.Len() < 5 || counts.Changes < 60 {
					t.Errorf("%d paths, %+v: too little happened to show anything", found.Len(), counts)
				}
				known(s)
			})
		}
	}
}

// mingle lets three actors do up to n operations, one after the other, as fast as they can.
func mingle(s *pipelinetest.Scene, rng *rand.Rand, n int) {
	actors := []*pipelinetest.Actor{s.Actor(7), s.Actor(8), s.Actor(9)}
	dir := func() string {
		d := string(rune('d' + rng.IntN(3)))
		if rng.IntN(3) == 0 {
			d += "/" + string(rune('d'+rng.IntN(3)))
		}
		return d
	}
	file := func() string { return dir() + "/" + string(rune('u'+rng.IntN(4))) }
	either := func() string {
		if rng.IntN(2) == 0 {
			return dir()
		}
		return file()
	}
	for i := range n {
		a := actors[rng.IntN(3)]
		// What is not possible is no operation, and nobody is told of it.
		switch rng.IntN(12) {
		case 0, 1, 2:
			_ = a.Write(file(), fmt.Sprint("content ", i), os.O_CREATE|os.O_TRUNC)
		case 3:
			_ = a.Write(file(), fmt.Sprint("more ", i), os.O_APPEND)
		case 4:
			_ = a.Chmod(file(), 0o600|os.FileMode(rng.IntN(64)))
		case 5:
			_ = a.Remove(file())
		case 6, 7:
			_ = a.Mkdir(dir())
		case 8:
			_ = a.Rename(either(), either())
		case 9:
			_ = a.Exchange(either(), either())
		case 10:
			_ = a.Link(file(), file())
		case 11:
			if name := filepath.Base(file()); rng.IntN(2) == 0 {
				_ = a.MoveOut(either(), name)
			} else {
				_ = a.MoveIn(name, either())
			}
		}
		if rng.IntN(50) == 0 {
			time.Sleep(time.Duration(rng.IntN(8)) * time.Millisecond)
		}
	}
}
