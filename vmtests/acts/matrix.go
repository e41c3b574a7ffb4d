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
