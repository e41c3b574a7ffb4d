package replay

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Record is the part of a record that this package reads.
type Record struct {
	Seq    uint64   `json:"seq"`
	Kind   string   `json:"kind"`
	Op     string   `json:"op"`
	Ops    []string `json:"ops"`
	Path   string   `json:"path"`
	PathTo string   `json:"path_to"`
	Reason string   `json:"reason"`
	Before *State   `json:"before"`
	After  *State   `json:"after"`
	Actor  *struct {
		User     string `json:"user"`
		Loginuid uint32 `json:"loginuid"`
		UID      uint32 `json:"uid"`
		Evidence string `json:"evidence"`
	} `json:"actor"`
	Process *struct {
		PID uint32 `json:"pid"`
	} `json:"process"`
	Gap *struct {
		Lost   uint64 `json:"lost"`
		Rescan string `json:"rescan"`
	} `json:"gap"`
}

// Counts are what was seen among the records.
type Counts struct {
	Records  int
	Changes  int
	Gaps     int
	Lost     uint64 // events, as the gaps say
	Nobody   int    // changes by an unknown actor, with a reason
	Unsaid   int    // changes that name no actor and no reason for that
	Unread   int    // changes whose content could not be told
	Same     int    // changes whose before and after are the same
	ByOp     map[string]int
	ByReason map[string]int // of the changes by nobody
}

// Apply lets the tree follow one record.
func (t *Tree) Apply(r *Record) {
	if r.Kind != "change" || r.After == nil {
		return
	}
	path, to := raw(r.Path), raw(r.PathTo)
	switch {
	case r.Op == "rename" && to != "" && slices.Contains(r.Ops, "exchange"):
		t.exchange(path, to)
	case r.Op == "rename" && to != "":
		t.move(path, to)
	}
	for _, p := range []string{path, to} {
		if p != "" {
			t.make(p).note(r.Seq)
		}
	}
	at := path
	if to != "" {
		at = to
	}
	if r.Op == "rename" && to == "" {
		t.Set(at, State{}) // what was there has gone with all below it
	}
	t.Set(at, *r.After)
}

func (c *Counts) add(r *Record) {
	c.Records++
	if r.Kind == "gap" {
		c.Gaps++
		if r.Gap != nil && r.Gap.Rescan == "pending" {
			c.Lost += r.Gap.Lost
		}
	}
	if r.Kind != "change" {
		return
	}
	c.Changes++
	c.ByOp[r.Op]++
	switch {
	case r.Actor != nil && r.Process != nil && r.Process.PID != 0:
	case r.Actor != nil && r.Actor.User == "unknown" && r.Reason != "":
		c.Nobody++
		c.ByReason[r.Reason]++
	default:
		c.Unsaid++
	}
	if r.After != nil && r.After.Unread != "" {
		c.Unread++
	}
	if r.Before != nil && r.After != nil && r.After.Unread == "" && r.PathTo == "" && len(compare("", r.Before, r.After)) == 0 {
		c.Same++
	}
}

// Follow applies each record of log, which holds one JSON object a line.
func (t *Tree) Follow(log io.Reader) (Counts, error) {
	c := Counts{ByOp: make(map[string]int), ByReason: make(map[string]int)}
	in := bufio.NewReaderSize(log, 1<<20)
	var last uint64
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 1 {
			var r Record
			if err := json.Unmarshal(line, &r); err != nil {
				return c, fmt.Errorf("record after %d: %w", last, err)
			}
			if c.Records > 0 && r.Seq != last+1 {
				return c, fmt.Errorf("record %d follows record %d", r.Seq, last)
			}
			last = r.Seq
			t.Apply(&r)
			c.add(&r)
		}
		if err == io.EOF {
			return c, nil
		}
		if err != nil {
			return c, err
		}
	}
}
