//go:build live

package vmtests

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// After mixed work in a watched tree the state that the records tell, replayed from
// the beginning, is what an independent scan finds: no difference.
func TestLiveOracle(t *testing.T) {
	m := newMachine(t)
	tree, outside := m.path("tree"), m.path("outside")
	for _, d := range []string{tree, outside, m.path("bin")} {
		m.must("mkdir", d)
	}
	m.must("cp", m.bin["fuzz"], m.path("bin/fuzz"))
	m.start(tree + "=observe")
	m.write("start.ndjson", m.must(m.bin["replay"], "scan", tree))
	work := exec.Command("bash", "-c", `set -euo pipefail; . scripts/work.sh; mixed_work "$1" "$2" 1 1`, "bash", tree, outside)
	work.Env = append(os.Environ(), "PATH="+m.path("bin")+":"+os.Getenv("PATH")+":/usr/sbin", "FUZZ_OPS=250", "STRESS_OPS=5", "STRESS_TIME=3")
	m.write("work.txt", m.output(work))
	m.settleAll()
	m.logTo("log.ndjson")
	out, err := exec.Command(m.bin["replay"], "check", m.path("start.ndjson"), m.path("log.ndjson"), tree).CombinedOutput()
	m.write("replay.ndjson", out)
	var said []string
	for l := range strings.Lines(string(out)) {
		if !strings.HasPrefix(l, "RECORD ") {
			said = append(said, strings.TrimSpace(l))
		}
	}
	t.Log(strings.Join(said, "\n"))
	if err != nil {
		t.Errorf("replay check: %v", err)
	}
}

// settleAll returns when everything that was done until now is recorded: nothing waits
// on the way to the log, and no tree is yet to be compared on account of it.
func (m *machine) settleAll() {
	m.t.Helper()
	done, last := uint64(time.Now().UnixNano()), []byte(nil)
	for range 240 {
		var s struct {
			Pipeline struct {
				Waiting uint64 `json:"pipeline_waiting"`
				Doubt   uint64 `json:"pipeline_doubt"`
			}
			Queues  []struct{ Len uint64 }
			Journal struct{ Seq uint64 }
		}
		if err := json.Unmarshal(m.statusJSON(), &s); err != nil {
			m.t.Fatal(err)
		}
		if s.Pipeline.Doubt > done {
			s.Pipeline.Doubt = 0 // of something else on this machine, later
		}
		now, err := json.Marshal(s)
		if err != nil {
			m.t.Fatal(err)
		}
		waiting := s.Pipeline.Waiting + s.Pipeline.Doubt
		for _, q := range s.Queues {
			waiting += q.Len
		}
		if waiting == 0 && bytes.Equal(now, last) {
			return
		}
		last = now
		time.Sleep(500 * time.Millisecond)
	}
	m.t.Fatalf("still waiting: %s", last)
}
