// Command acts makes one change to one file, or tries to, and prints the truth
// about it as one line of JSON. The tests compare records with these lines, so
// nothing here may share code with what is tested: content is hashed by the
// b3sum program from the bytes in memory, not by Holdfast's digest.
//
//	acts list                       the names of all acts
//	acts fixture TREE OUTSIDE       make what the acts work on, before anything is watched
//	acts do NAME PATH [PATH_TO]     one act on these paths
//	acts run NAME TREE OUTSIDE      one act on its paths of the fixture
//	acts all TREE OUTSIDE           every act on the fixture, each in a process of its own
//
// A refused act is no failure: the line says ok false and the errno. Exit code 1
// means that the truth could not be told.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "acts:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: acts list | fixture TREE OUTSIDE | do NAME PATH [PATH_TO] | run NAME TREE OUTSIDE | all TREE OUTSIDE")

func run(args []string) error {
	if len(args) == 1 && args[0] == "list" {
		for _, a := range acts() {
			fmt.Println(a.name)
		}
		return nil
	}
	if len(args) < 3 {
		return errUsage
	}
	switch verb, rest := args[0], args[1:]; {
	case verb == "fixture" && len(rest) == 2:
		return makeFixture(rest[0], rest[1])
	case verb == "do":
		a, err := find(rest[0])
		if err != nil {
			return err
		}
		to := ""
		if len(rest) > 2 {
			to = rest[2]
		}
		return perform(a, rest[1], to)
	case verb == "run" && len(rest) == 3:
		a, err := find(rest[0])
		if err != nil {
			return err
		}
		path, to := a.paths(rest[1], rest[2])
		return perform(a, path, to)
	case verb == "all" && len(rest) == 2:
		return runAll(rest[0], rest[1])
	}
	return errUsage
}

// runAll starts this program once for each act.
func runAll(tree, outside string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, a := range acts() {
		if a.root && os.Getuid() != 0 {
			continue
		}
		cmd := exec.Command(self, "run", a.name, tree, outside)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("act %s: %w", a.name, err)
		}
	}
	return nil
}

func find(name string) (act, error) {
	for _, a := range acts() {
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
}

// perform does a and prints what happened.
func perform(a act, path, to string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if a.to == none {
		to = ""
	}
	t := truth{Act: a.name, Op: a.op, Path: path, PathTo: to, Names: a.names(path, to), PID: os.Getpid(), UID: os.Getuid(), Exe: exe}
	_, content, err := stateOf(path)
	if err != nil {
		return err
	}
	if t.Before, _, err = stateOf(t.Names[len(t.Names)-1]); err != nil {
		return err
	}
	after, err := a.do(path, to, content)
	var errno syscall.Errno
	switch {
	case err == nil:
		t.OK = true
		if t.After, err = after.fields(); err != nil {
			return err
		}
	case errors.As(err, &errno):
		t.Errno = unix.ErrnoName(errno)
		if a.refused != "" {
			t.Op = a.refused
		}
	default:
		return err
	}
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(line))
	return err
}
