// Command acts makes one change to one file, or tries to, and prints the truth
// about it as one line of JSON. The tests compare records with these lines, so
// nothing here may share code with what is tested: content is hashed by the
// b3sum program from the bytes in memory, not by Holdfast's digest.
//
//	acts list [every]               the names of the basic acts, or of every act
//	acts fixture TREE OUTSIDE       make what every act works on, before anything is watched
//	acts do NAME PATH [PATH_TO]     one basic act on these paths
//	acts run NAME TREE OUTSIDE      one act on its paths of the fixture, all of it now
//	acts all TREE OUTSIDE           every basic act on the fixture, each in a process of its own
//	acts hold TREE OUTSIDE CTL      start a process for each act that begins before the rule; each waits
//	acts matrix TREE OUTSIDE CTL    every act, those that wait included
//	acts picture TREE               the state of each act's directory, one line of JSON each
//
// The basic acts touch nothing but the files of the fixture. The others mount,
// bind loop devices, change core_pattern and attach to the daemon (the process in
// the environment's DAEMON): they need a machine of their own, and root.
//
// A refused act is no failure: the line says ok false and the errno. Exit code 1
// means that the truth could not be told.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "acts:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: acts list [every] | fixture TREE OUTSIDE | do NAME PATH [PATH_TO] | run NAME TREE OUTSIDE | " +
	"all TREE OUTSIDE | hold TREE OUTSIDE CTL | matrix TREE OUTSIDE CTL | picture TREE")

func run(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	switch verb, rest := args[0], args[1:]; {
	case verb == "list":
		list := basicActs()
		if len(rest) > 0 && rest[0] == "every" {
			list = everyAct()
		}
		for _, a := range list {
			fmt.Println(a.name)
		}
		return nil
	case verb == "fixture" && len(rest) == 2:
		return makeFixture(rest[0], rest[1])
	case verb == "do" && len(rest) >= 2:
		a, err := find(rest[0])
		if err != nil {
			return err
		}
		s := &scene{path: rest[1], dir: rest[1], uid: os.Getuid(), pids: []int{os.Getpid()}, contested: true}
		if len(rest) > 2 && a.to != none {
			s.to = rest[2]
		}
		return perform(a, s, nil)
	case (verb == "run" || verb == "brief") && len(rest) == 3:
		a, err := find(rest[0])
		if err != nil {
			return err
		}
		s := newScene(a, rest[1], rest[2])
		s.brief = verb == "brief"
		return perform(a, s, nil)
	case verb == "all" && len(rest) == 2:
		return runAll(rest[0], rest[1])
	case verb == "hold" && len(rest) == 3:
		return hold(rest[0], rest[1], rest[2])
	case verb == "wait" && len(rest) == 4:
		return wait(rest[0], rest[1], rest[2], rest[3])
	case verb == "matrix" && len(rest) == 3:
		return matrix(rest[0], rest[1], rest[2])
	case verb == "picture" && len(rest) == 1:
		return printPictures(rest[0])
	case verb == "step" && len(rest) == 2:
		os.Exit(step(rest[0], rest[1]))
	}
	return errUsage
}

// runAll starts this program once for each basic act.
func runAll(tree, outside string) error {
	for _, a := range basicActs() {
		if a.root && os.Getuid() != 0 {
			continue
		}
		line, err := runOne("run", a.name, tree, outside)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
	}
	return nil
}

func runOne(how, name, tree, outside string) ([]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var errs bytes.Buffer
	cmd := exec.Command(self, how, name, tree, outside)
	cmd.Stderr = &errs
	line, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("act %s: %w: %s", name, err, errs.Bytes())
	}
	return line, nil
}

// The files of one waiting act in the control directory.
func pipeOf(ctl, name string) string  { return filepath.Join(ctl, name+".go") }
func heldOf(ctl, name string) string  { return filepath.Join(ctl, name+".held") }
func truthOf(ctl, name string) string { return filepath.Join(ctl, name+".truth") }

// hold starts the acts that begin before the rule and returns when each holds
// what it needs. They wait for matrix to let them go.
func hold(tree, outside, ctl string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(ctl, 0o700); err != nil {
		return err
	}
	var started []string
	for _, a := range everyAct() {
		if a.hold == nil {
			continue
		}
		if err := unix.Mkfifo(pipeOf(ctl, a.name), 0o600); err != nil {
			return fmt.Errorf("hold %s: %w", a.name, err)
		}
		cmd := exec.Command(self, "wait", a.name, tree, outside, ctl)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("hold %s: %w", a.name, err)
		}
		started = append(started, a.name)
	}
	for _, name := range started {
		if err := await(heldOf(ctl, name)); err != nil {
			return fmt.Errorf("hold %s: %w", name, err)
		}
	}
	return nil
}

// patience is how long an act may take; the guests are emulated machines.
const patience = 60 * time.Second

func await(file string) error {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Lstat(file); err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not appear", file)
		}
	}
}

// wait is one act that begins before the rule: it holds, waits until its pipe
// is opened, acts, and leaves its truth.
func wait(name, tree, outside, ctl string) error {
	a, err := find(name)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	s := newScene(a, tree, outside)
	s.brief = true
	err = performTo(&line, a, s, func() error {
		if err := os.WriteFile(heldOf(ctl, name), nil, 0o600); err != nil {
			return err
		}
		f, err := os.Open(pipeOf(ctl, name)) // opens when there is a writer
		if err != nil {
			return err
		}
		return f.Close()
	})
	if err != nil {
		line.Reset()
		fmt.Fprintf(&line, "{\"act\":%q,\"effect\":\"error\",\"why\":%q}\n", name, err.Error())
	}
	tmp := truthOf(ctl, name) + ".tmp"
	return errors.Join(os.WriteFile(tmp, line.Bytes(), 0o600), os.Rename(tmp, truthOf(ctl, name)), os.WriteFile(heldOf(ctl, name), nil, 0o600))
}

// matrix does every act in order and prints the truths. Those that linger and
// keep to their own directory do so side by side.
func matrix(tree, outside, ctl string) error {
	all := everyAct()
	lines := make([][]byte, len(all))
	one := func(i int) {
		var err error
		if a := all[i]; a.hold == nil {
			lines[i], err = runOne("brief", a.name, tree, outside)
		} else {
			lines[i], err = letGo(a.name, ctl)
		}
		if err != nil {
			lines[i] = fmt.Appendf(nil, "{\"act\":%q,\"effect\":\"error\",\"why\":%q}\n", all[i].name, err.Error())
		}
	}
	var side sync.WaitGroup
	for i, a := range all {
		if a.linger && a.from == inTree {
			side.Go(func() { one(i) })
			continue
		}
		side.Wait()
		one(i)
	}
	side.Wait()
	return hashTogether(lines, os.Stdout)
}

// hashTogether prints lines of truth with the hashes that acts in brief leave out:
// one start of b3sum is as good as a hundred.
func hashTogether(lines [][]byte, w io.Writer) error {
	dir, err := os.MkdirTemp("", "acts-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all := make([]truth, len(lines))
	args, of := []string{"--no-names"}, []int{}
	for i, line := range lines {
		if err := json.Unmarshal(line, &all[i]); err != nil {
			return fmt.Errorf("read %q: %w", line, err)
		}
		if all[i].Content == nil {
			continue
		}
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(name, all[i].Content, 0o600); err != nil {
			return err
		}
		args, of = append(args, name), append(of, i)
		all[i].Content = nil
	}
	if len(of) > 0 {
		out, err := exec.Command("b3sum", args...).Output()
		if err != nil {
			return fmt.Errorf("hash by b3sum: %w", err)
		}
		for n, hash := range strings.Fields(string(out)) {
			all[of[n]].After["hash"] = "blake3:" + hash
		}
	}
	enc := json.NewEncoder(w)
	for i := range all {
		if err := enc.Encode(all[i]); err != nil {
			return err
		}
	}
	return nil
}

// linger gives the daemon the time to look at what an act did to the machine: until
// it has rested for a second and a half, and no longer than it takes it to look at
// everything. Without a daemon there is nobody to wait for.
func linger() error {
	pid := os.Getenv("DAEMON")
	if pid == "" {
		return nil
	}
	last, rested := "", 0
	for end := time.Now().Add(8 * time.Second); rested < 15 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return fmt.Errorf("wait for the daemon: %w", err)
		}
		// utime and stime, in ticks of 10 ms (proc(5)), counted from behind the name
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if now := f[11] + " " + f[12]; now != last {
			last, rested = now, 0
		} else {
			rested++
		}
	}
	return nil
}

func letGo(name, ctl string) ([]byte, error) {
	if _, err := os.Lstat(truthOf(ctl, name)); err != nil { // else it ended while it held
		fd, err := unix.Open(pipeOf(ctl, name), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("let %s go: %w (nobody waits)", name, err)
		}
		if err := unix.Close(fd); err != nil {
			return nil, err
		}
		if err := await(truthOf(ctl, name)); err != nil {
			return nil, err
		}
	}
	return os.ReadFile(truthOf(ctl, name))
}

func find(name string) (act, error) {
	for _, a := range everyAct() {
		if a.name == name {
			return a, nil
		}
	}
	return act{}, fmt.Errorf("find act %s: unknown", name)
}

// truth is what acts prints. Names are the paths that a record must name: those
// in the watched tree. Before and After are of the name that the act decides: the
// new one of a rename or link if it is in the tree, else the path. They hold only
// what is certain, under the names of the record's fields.
type truth struct {
	Act    string         `json:"act"`
	Op     string         `json:"op"`
	Path   string         `json:"path"`
	PathTo string         `json:"path_to,omitempty"`
	Names  []string       `json:"names"`
	OK     bool           `json:"ok"`
	Errno  string         `json:"errno,omitempty"`
	PID    int            `json:"pid"`
	UID    int            `json:"uid"`
	Exe    string         `json:"exe"`
	Before map[string]any `json:"before"`
	After  map[string]any `json:"after,omitempty"`
	// Effect is changed, refused or none, by what the act's directory and machine
	// show afterwards; Why says which errno or reason, Differs what is different.
	Effect  string   `json:"effect"`
	Why     string   `json:"why,omitempty"`
	Differs []string `json:"differs,omitempty"`
	Held    bool     `json:"held,omitempty"`
	PIDs    []int    `json:"pids,omitempty"` // who may be named, if that is not PID; none and kernel: nobody
	Kernel  bool     `json:"kernel,omitempty"`
	Also    []string `json:"also,omitempty"`   // paths that a record may name instead; one that ends in / stands for all below
	Undone  string   `json:"undone,omitempty"` // what could not be put back
	Content []byte   `json:"content,omitzero"` // whose hash is to be added to After
}

// noEffect is an act's own word that nothing can happen here, and why.
type noEffect string

func (n noEffect) Error() string { return string(n) }

func perform(a act, s *scene, between func() error) error {
	return performTo(os.Stdout, a, s, between)
}

// performTo does a and prints what happened. between is called after hold.
func performTo(w interface{ Write([]byte) (int, error) }, a act, s *scene, between func() error) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	s.exe = exe
	t := truth{Act: a.name, Op: a.op, Path: encode(s.path), PathTo: encode(s.to), Held: a.hold != nil && between != nil}
	names := a.names(s)
	for _, n := range names {
		t.Names = append(t.Names, encode(n))
	}
	switch a.also {
	case inTree:
		t.Also = []string{encode(s.dir) + "/"}
	case theTree:
		t.Also = []string{encode(s.tree)}
	}
	if s.content, err = contentOf(s.path); err != nil {
		return err
	}
	do := func() (outcome, error) { return a.do(s) }
	var held error
	if a.hold != nil {
		do, held = a.hold(s)
	}
	if between != nil {
		if err := between(); err != nil {
			return errors.Join(err, s.restore())
		}
	}
	decisive := s.path
	if len(names) > 0 {
		decisive = names[len(names)-1]
	}
	if t.Before, err = stateOf(decisive, !s.brief); err != nil {
		return err
	}
	before := lookAt(s.dir, true)
	var after outcome
	err = held
	if err == nil {
		after, err = do()
	}
	t.Differs = differences(before, lookAt(s.dir, true))
	if err == nil && after.content != nil && len(t.Differs) > 0 && !s.contested {
		// What an act says of content is compared with what is there.
		if b, rerr := os.ReadFile(decisive); rerr != nil || !bytes.Equal(b, after.content) {
			return errors.Join(fmt.Errorf("%s holds something else than the act says (%d bytes, %d): %v", decisive, len(b), len(after.content), rerr), s.restore())
		}
	}
	if err == nil && after.did != "" {
		t.Differs = append(t.Differs, after.did)
	}
	if err == nil && a.linger {
		err = linger()
	}
	if err := s.restore(); err != nil { // a blocked tree may refuse this, too
		t.Undone = err.Error()
	}
	if err := t.tell(a, after, err, s.brief); err != nil {
		return err
	}
	t.UID, t.Exe = s.uid, s.exe
	switch {
	case len(s.pids) == 1:
		t.PID = s.pids[0]
	case len(s.pids) == 0:
		t.Kernel = true
	default:
		t.PIDs = s.pids
	}
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// tell fills in how the act ended.
func (t *truth) tell(a act, after outcome, err error, brief bool) error {
	var errno syscall.Errno
	var none noEffect
	switch {
	case err == nil:
		t.OK = true
		if t.After, err = after.fields(!brief); err != nil {
			return err
		}
		if brief && len(t.Differs) > 0 {
			t.Content = after.content
		}
		t.Why = after.why
	case errors.As(err, &none):
		t.Why = string(none)
	case errors.As(err, &errno):
		t.Errno, t.Why = unix.ErrnoName(errno), unix.ErrnoName(errno)
		if a.refused != "" {
			t.Op = a.refused
		}
	default:
		return err
	}
	switch {
	case len(t.Differs) > 0:
		t.Effect = "changed"
	case t.Errno == "EPERM":
		t.Effect = "refused"
	default:
		t.Effect = "none"
	}
	return nil
}
