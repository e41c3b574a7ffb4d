package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

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
