// Command replay follows a tree by its records and compares.
//
//	replay scan TREE >START          what is there now, one JSON object a line
//	replay check START LOG TREE      START and the records of LOG (log --json), against TREE
//
// check prints what differs, with the records about it, then one line of counts.
// Exit code 1: something differs; 2: usage, or the comparison could not be made.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/vmtests/replay"
)

func main() {
	same, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(2)
	}
	if !same {
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: replay scan TREE | check START LOG TREE")

func run(args []string, out io.Writer) (bool, error) {
	switch {
	case len(args) == 2 && args[0] == "scan":
		return true, scan(args[1], out)
	case len(args) == 4 && args[0] == "check":
		return check(args[1], args[2], args[3], out)
	}
	return false, errUsage
}

// line is one path of a scan.
type line struct {
	Path  replay.Bytes  `json:"path"`
	State *replay.State `json:"state"`
}

func scan(root string, out io.Writer) error {
	t, err := replay.Scan(root)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	t.Walk(func(path string, s *replay.State) {
		err = errors.Join(err, enc.Encode(line{replay.Bytes(path), s}))
	})
	return errors.Join(err, w.Flush())
}

func load(file string) (*replay.Tree, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := &replay.Tree{}
	for dec := json.NewDecoder(f); ; {
		var l line
		err := dec.Decode(&l)
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		t.Set(string(l.Path), *l.State)
	}
}

// shown is how many differing paths are printed with their records.
const shown = 25

func check(start, log, root string, out io.Writer) (bool, error) {
	told, err := load(start)
	if err != nil {
		return false, err
	}
	f, err := os.Open(log)
	if err != nil {
		return false, err
	}
	defer f.Close()
	counts, err := told.Follow(f)
	if err != nil {
		return false, err
	}
	found, err := replay.Scan(root)
	if err != nil {
		return false, err
	}
	diffs := told.Compare(found)
	want := make(map[uint64]bool)
	paths := make(map[string]bool)
	for _, d := range diffs {
		if len(paths) < shown {
			paths[d.Path] = true
			for _, seq := range told.About(d.Path) {
				want[seq] = true
			}
		}
	}
	if err := explain(f, want, out); err != nil {
		return false, err
	}
	for i, d := range diffs {
		if i == 4*shown {
			fmt.Fprintf(out, "... and %d more\n", len(diffs)-i)
			break
		}
		fmt.Fprintf(out, "DIFFERS %s (records %v)\n", d, told.About(d.Path))
	}
	for _, reason := range slices.Sorted(maps.Keys(counts.ByReason)) {
		fmt.Fprintf(out, "by nobody: %d: %s\n", counts.ByReason[reason], reason)
	}
	fmt.Fprintf(out, "%d differences; %d paths, %d records, %d changes (%s), %d gaps (%d lost), %d by nobody, %d without an actor, %d unread, %d the same before and after\n",
		len(diffs), found.Len(), counts.Records, counts.Changes, byOp(counts.ByOp), counts.Gaps, counts.Lost, counts.Nobody, counts.Unsaid, counts.Unread, counts.Same)
	return len(diffs) == 0, nil
}

func byOp(m map[string]int) string {
	var o []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		o = append(o, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(o, ", ")
}

// explain prints the records with these sequence numbers.
func explain(log *os.File, want map[uint64]bool, out io.Writer) error {
	if _, err := log.Seek(0, io.SeekStart); err != nil || len(want) == 0 {
		return err
	}
	in := bufio.NewReaderSize(log, 1<<20)
	for {
		text, err := in.ReadBytes('\n')
		var r struct {
			Seq uint64 `json:"seq"`
		}
		if json.Unmarshal(text, &r) == nil && want[r.Seq] {
			fmt.Fprintf(out, "RECORD %s", text)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
