//go:build live

package vmtests

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// stormSize is the number of changes that are made while processes begin and end as
// fast as the machine can.
const stormSize = 300

// TestLiveStorm changes files while shells do nothing but fork: each change must be
// put down to the process that made it, which wrote its pid into the file, and to the
// parent that ended before it.
func TestLiveStorm(t *testing.T) {
	m := newMachine(t)
	tree, stop := m.path("tree"), m.path("stop")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	m.start(tree + "=observe")
	var all sync.WaitGroup
	forked, start := forks(t), time.Now()
	for range 4 {
		all.Go(func() {
			if out, err := exec.Command("/bin/sh", "-c", "while [ ! -e "+stop+" ]; do (:); done").CombinedOutput(); err != nil {
				t.Errorf("the storm: %v: %s", err, out)
			}
		})
	}
	for n := range stormSize {
		file := filepath.Join(tree, fmt.Sprintf("file.%d", n))
		// the shell in the middle ends at once: who writes outlives its parent
		inner := fmt.Sprintf("echo $$ >%s.part; mv %s.part %s", file, file, file)
		if out, err := exec.Command("/bin/sh", "-c", fmt.Sprintf("sh -c '%s' & exit", inner), "parent", strconv.Itoa(n)).CombinedOutput(); err != nil {
			t.Fatalf("change %d: %v: %s", n, err, out)
		}
	}
	wrote := map[string]string{} // path → pid
	for end := time.Now().Add(time.Minute); len(wrote) < stormSize; {
		for n := range stormSize {
			file := filepath.Join(tree, fmt.Sprintf("file.%d", n))
			if b, err := os.ReadFile(file); err == nil {
				wrote[file+".part"] = strings.TrimSpace(string(b))
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d files were written", len(wrote), stormSize)
		}
	}
	forked = forks(t) - forked
	t.Logf("%d processes, %.0f a second", forked, float64(forked)/time.Since(start).Seconds())
	if err := os.WriteFile(stop, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	lost := m.idle().Events.Lost
	m.logTo("log.ndjson", "--path", tree+"/")
	records, err := readObjects(m.path("log.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	right := map[string]bool{}
	for _, r := range records {
		path := r.text("path")
		pid, ours := wrote[path]
		if r.text("kind") != "change" || !ours || r.text("op") == "rename" {
			continue
		}
		n := strings.TrimSuffix(strings.TrimPrefix(path, tree+"/file."), ".part")
		switch got := r.text("process.pid"); {
		case got == pid && parentOf(r, n):
			right[path] = true
		case got == pid && lost > 0, r.text("actor.evidence") == "none":
		default:
			t.Errorf("%s was written by pid %s, a child of change %s; the record says pid %s, %s of %s", path, pid, n, got, r.text("process.argv"), r.text("process.ancestors"))
		}
	}
	if len(right) < stormSize && lost == 0 {
		t.Errorf("no event was lost, and of %d changes %d have a record with their process and its parent", stormSize, len(right))
	}
	t.Logf("%d of %d changes have a record with their process and its parent; %d events lost", len(right), stormSize, lost)
}

// parentOf tells whether r's process came from the shell of change n.
func parentOf(r object, n string) bool {
	as, _ := r.object("process")["ancestors"].([]any)
	for _, a := range as {
		m, _ := a.(map[string]any)
		if argv := object(m).list("argv"); len(argv) > 1 && argv[len(argv)-2] == "parent" && argv[len(argv)-1] == n {
			return true
		}
	}
	return false
}

// forks is how many processes and threads this machine has begun.
func forks(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if s, ok := strings.CutPrefix(sc.Text(), "processes "); ok {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("/proc/stat says nothing of processes")
	return 0
}
