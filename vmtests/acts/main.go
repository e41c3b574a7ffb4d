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
	"errors"
	"fmt"
	"os"
	"os/exec"
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

func find(name string) (act, error) {
	for _, a := range everyAct() {
		if a.name == name {
			return a, nil
		}
	}
	return act{}, fmt.Errorf("find act %s: unknown", name)
}
