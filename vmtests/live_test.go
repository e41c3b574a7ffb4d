//go:build live

package vmtests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is a Holdfast on the running kernel with directories of its own.
type machine struct {
	t    *testing.T
	dir  string // state, trees and what check reads
	bin  map[string]string
	conf string      // configuration file, "" for none
	proc *os.Process // of the daemon, nil after kill
	done chan error
	attr *syscall.SysProcAttr // of the daemon
	pid  int
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test loads BPF programs: run it as root")
	}
	dir, err := os.MkdirTemp("", "holdfast-live-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			m := exec.Command("sh", "-c", `rm -rf "$2" && mkdir -p "$2" && cp -r "$1"/*.ndjson "$1"/before "$1"/after "$1"/daemon.log "$1"/state/journal "$2"`, "sh", dir, filepath.Join(logs, "live", t.Name()))
			_ = m.Run() // what is not there yet is not kept
			t.Logf("kept: vmtests/%s/live/%s", logs, t.Name())
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil { // the acts of other users start here
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir, bin: programs(t)}
	acts := filepath.Join(dir, "acts")
	m.must("install", "-m", "0755", m.bin["acts"], acts)
	m.bin["acts"] = acts
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) command(args ...string) *exec.Cmd {
	flags := []string{"--state", m.path("state"), "--socket", m.path("socket")}
	if m.conf != "" {
		flags = append(flags, "--config", m.conf)
	}
	return exec.Command(m.bin["holdfast"], append(flags, args...)...)
}

// must runs a program that has to succeed and returns its standard output.
func (m *machine) must(name string, args ...string) []byte {
	m.t.Helper()
	return m.output(exec.Command(name, args...))
}

func (m *machine) output(cmd *exec.Cmd) []byte {
	m.t.Helper()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, errs.Bytes())
	}
	return out
}

// start runs the daemon until the test ends and returns when it is armed.
func (m *machine) start(watches ...string) {
	m.t.Helper()
	args := []string{"run"}
	for _, w := range watches {
		args = append(args, "--watch", w)
	}
	cmd := m.command(args...)
	log, err := os.Create(m.path("daemon.log"))
	if err != nil {
		m.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, m.attr
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.pid = cmd.Process.Pid
	if err := log.Close(); err != nil {
		m.t.Fatal(err)
	}
	done := make(chan error, 1)
	m.proc, m.done = cmd.Process, done
	go func() { done <- cmd.Wait() }()
	m.t.Cleanup(func() {
		if m.proc != cmd.Process {
			return
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			m.t.Error(err)
		}
		if err := <-done; err != nil {
			m.t.Errorf("the daemon ended: %v", err)
		}
	})
	armed := m.command("status", "--wait", "armed", "--timeout", "120s")
	// 5 is degraded: this kernel's tier may not be the best one.
	if out, err := armed.CombinedOutput(); err != nil && armed.ProcessState.ExitCode() != 5 {
		m.t.Fatalf("status --wait armed: %v\n%s", err, out)
	}
}

// kill ends the daemon without asking it.
func (m *machine) kill() {
	m.t.Helper()
	if err := m.proc.Kill(); err != nil {
		m.t.Fatal(err)
	}
	<-m.done
	m.proc = nil
}

// logTo writes the records that args choose into a file of m.dir. They do not pass
// through this program's memory: there may be hundreds of thousands.
func (m *machine) logTo(name string, args ...string) {
	m.t.Helper()
	f, err := os.Create(m.path(name))
	if err != nil {
		m.t.Fatal(err)
	}
	m.log(func(cmd *exec.Cmd) error {
		cmd.Stdout = f
		return errors.Join(cmd.Run(), f.Close())
	}, args)
}

// eachRecord calls f with each record that args choose, oldest first; R is the
// part of it that f looks at.
func eachRecord[R any](m *machine, f func(*R), args ...string) {
	m.t.Helper()
	m.log(func(cmd *exec.Cmd) error {
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		for d := json.NewDecoder(out); err == nil; {
			var r R
			if err = d.Decode(&r); err == nil {
				f(&r)
			}
		}
		if err == io.EOF {
			err = nil
		}
		out.Close() // what it still has to say finds nobody
		return errors.Join(err, cmd.Wait())
	}, args)
}

// log lets run see to a command that prints the records that args choose.
func (m *machine) log(run func(*exec.Cmd) error, args []string) {
	m.t.Helper()
	cmd := m.command(append([]string{"log", "--json", "--limit", "0"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := run(cmd); err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, errs.Bytes())
	}
}

// settle returns when no record has been added for a second.
func (m *machine) settle() {
	m.t.Helper()
	last := ""
	for range 120 {
		now := string(m.output(m.command("log", "--json", "--limit", "1")))
		if now == last {
			return
		}
		last = now
		time.Sleep(time.Second)
	}
	m.t.Fatal("records keep coming")
}

// picture is content and metadata of a tree, as lib.sh tells it.
func (m *machine) picture(tree string) string {
	m.t.Helper()
	return string(m.must("bash", "-c", `. scripts/lib.sh; picture "$1" restored`, "bash", tree))
}

// expect evaluates expectations against the files of m.dir and the records that
// choose, arguments of log, leaves: all of them if there is none. They are held in
// memory, each in some ten kilobytes.
func (m *machine) expect(text string, choose ...string) {
	m.t.Helper()
	m.logTo("log.ndjson", choose...)
	for _, err := range check(m.dir, "records log.ndjson\n"+text) {
		m.t.Error(err)
	}
	var status struct {
		Events struct{ Lost, Failed uint64 }
	}
	if err := json.Unmarshal(m.statusJSON(), &status); err != nil {
		m.t.Fatal(err)
	}
	if status.Events.Lost != 0 || status.Events.Failed != 0 {
		m.t.Errorf("status shows %d lost and %d failed events", status.Events.Lost, status.Events.Failed)
	}
	m.output(m.command("verify"))
}

func (m *machine) statusJSON() []byte {
	m.t.Helper()
	cmd := m.command("status", "--json")
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() != 5 {
		m.t.Fatalf("status --json: %v\n%s", err, out)
	}
	return out
}

func (m *machine) write(name string, data []byte) {
	m.t.Helper()
	if err := os.WriteFile(m.path(name), data, 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// Each act of vmtests/acts is one record that tells its truth.
func TestLiveActs(t *testing.T) {
	m := newMachine(t)
	tree, outside := m.path("tree"), m.path("outside")
	m.must(m.bin["acts"], "fixture", tree, outside)
	m.start(tree + "=observe")
	m.write("truth.ndjson", m.must(m.bin["acts"], "all", tree, outside))
	m.settle()
	m.expect("truth truth.ndjson kind=change verdict=observed\nnone kind=gap\n")
}

// A thousand changes by three users, each to a file of its own: every one is
// told, and the tree is as trusted afterwards.
func TestLiveThousandChangesArePutBack(t *testing.T) {
	const changes = 1000
	m := newMachine(t)
	tree := m.path("tree")
	users := []uint32{20001, 20002, 20003}
	kinds := []string{"creat_new", "creat_over", "open_append", "rename_within", "chmod", "unlink"}
	for _, u := range users {
		m.must("install", "-d", "-m", "0755", "-o", fmt.Sprint(u), "-g", fmt.Sprint(u), filepath.Join(tree, fmt.Sprint(u)))
	}
	type step struct {
		act, file string
		user      uint32
	}
	var steps []step
	for i := range changes {
		s := step{act: kinds[i%len(kinds)], user: users[(i/len(kinds))%len(users)]}
		s.file = filepath.Join(tree, fmt.Sprint(s.user), fmt.Sprintf("%04d-%s", i, s.act))
		steps = append(steps, s)
		if s.act == "creat_new" {
			continue
		}
		if err := os.WriteFile(s.file, fmt.Appendf(nil, "trusted content %d\n", i), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(s.file, int(s.user), int(s.user)); err != nil {
			t.Fatal(err)
		}
	}
	before := m.picture(tree)
	m.start(tree + "=restore")
	var truth bytes.Buffer
	for _, s := range steps {
		cmd := exec.Command(m.bin["acts"], "do", s.act, s.file, s.file+".to")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.user, Gid: s.user}}
		truth.Write(m.output(cmd))
	}
	m.write("truth.ndjson", truth.Bytes())
	if n := bytes.Count(truth.Bytes(), []byte(`"ok":true`)); n != changes {
		t.Fatalf("%d of %d acts did what they should", n, changes)
	}
	m.settle()
	for range 30 {
		if m.picture(tree) == before {
			break
		}
		time.Sleep(time.Second)
	}
	m.write("before", []byte(before))
	m.write("after", []byte(m.picture(tree)))
	m.expect("truth truth.ndjson kind=change mode=restore verdict~unauthorized|restored\nequal before after\nnone kind=gap\n")
}
