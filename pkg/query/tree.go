package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
)

// Process is one program run by one process, with what it did.
type Process struct {
	HostID string      `json:"host_id,omitempty"`
	Boot   string      `json:"boot,omitempty"`
	ExecID string      `json:"exec_id,omitempty"` // "" if no record tells it
	Parent string      `json:"parent,omitempty"`  // exec id of what began it, if that is in the tree
	Depth  int         `json:"depth"`             // 0: nothing in the tree began it
	PID    uint32      `json:"pid"`
	Exe    string      `json:"exe,omitempty"`
	Script string      `json:"script,omitempty"`
	Argv   []string    `json:"argv,omitempty"`
	User   string      `json:"user,omitempty"` // as whom it ran: the name of its real uid, as far as a record tells
	Start  event.Time  `json:"start,omitzero"`
	End    event.Time  `json:"end,omitzero"` // 0: it runs, or its end was not recorded
	Exit   *event.Exit `json:"exit,omitempty"`
	Acts   []Act       `json:"acts,omitempty"` // in the order of their sequence

	parent   *Process
	children []*Process
	first    uint64 // sequence of the first record that names it
}

// Act is a change, a refused attempt or a change of credentials, by one process.
type Act struct {
	ID         string            `json:"id"`
	Seq        uint64            `json:"seq"`
	Time       event.Time        `json:"time"`
	Kind       string            `json:"kind"`
	Op         string            `json:"op,omitempty"`
	Path       string            `json:"path,omitempty"`
	PathTo     string            `json:"path_to,omitempty"`
	Verdict    string            `json:"verdict,omitempty"`
	Meaning    []string          `json:"meaning,omitempty"`
	Credential *event.Credential `json:"credential,omitempty"`
}

// Tree returns the processes of the session id, or what the process with that exec id and
// those below it did, parents before children. It knows the processes that records tell
// of: each that did something, each whose execution was recorded, and the way from these up to
// the first process of the session. Nobody is one more number: records of it that name no process.
// Session and exec ids begin again with each boot: of several all trees are returned. host, a
// name or an id, may be "".
func Tree(ctx context.Context, s Store, id, host string) (processes []*Process, nobody int, err error) {
	t := &tree{by: map[processKey]*Process{}}
	if err := s.Records(ctx, Filter{Session: id, Host: host}, t.add); err != nil {
		return nil, 0, err
	}
	if t.records > 0 {
		return t.list(nil), t.nobody, nil
	}
	if err := t.below(ctx, s, id, host); err != nil {
		return nil, 0, err
	}
	out := t.list(func(p *Process) bool { return p.ExecID == id })
	if len(out) == 0 {
		return nil, 0, fmt.Errorf("tree of %s: %w", id, ErrNotFound)
	}
	return out, 0, nil
}

// below takes in all that was done at and below the process with that exec id: from its
// session, which finds it fast and has what names no ancestors, or where there is none from all
// records. On each host and in each boot that may be another session.
func (t *tree) below(ctx context.Context, s Store, id, host string) error {
	type boot struct{ hostID, boot string }
	sessions := map[boot]string{}
	var order []boot
	for _, f := range []Filter{{Exec: id, Host: host}, {Below: id, Host: host}} {
		err := s.Records(ctx, f, func(r *event.Record) error {
			b := boot{r.HostID, r.Boot}
			had, known := sessions[b]
			if !known {
				order = append(order, b)
			}
			if had == "" && r.Actor != nil {
				had = r.Actor.Session
			}
			sessions[b] = had
			return nil
		})
		if err != nil {
			return err
		}
		if len(order) > 0 {
			break
		}
	}
	for _, b := range order {
		f := Filter{Session: sessions[b], Host: b.hostID}
		if f.Session == "" {
			f.Below = id
		}
		err := s.Records(ctx, f, func(r *event.Record) error {
			if r.Boot != b.boot || r.HostID != b.hostID {
				return nil
			}
			return t.add(r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// processKey: exec ids begin again with each boot. What has none goes by its pid.
type processKey struct {
	hostID, boot, exec string
	pid                uint32
}

type tree struct {
	by      map[processKey]*Process
	order   []*Process
	records int
	nobody  int
}

func (t *tree) process(r *event.Record, pid uint32, exec string) *Process {
	k := processKey{r.HostID, r.Boot, exec, 0}
	if exec == "" {
		k.pid = pid
	}
	p := t.by[k]
	if p == nil {
		p = &Process{HostID: r.HostID, Boot: r.Boot, ExecID: exec, PID: pid, first: r.Seq}
		t.by[k] = p
		t.order = append(t.order, p)
	}
	return p
}

func fill(to *string, v string) {
	if *to == "" || *to == event.Unknown && v != "" {
		*to = v
	}
}

func (t *tree) add(r *event.Record) error {
	t.records++
	if r.Process == nil || r.Process.PID == 0 {
		t.nobody++
		return nil
	}
	p := t.process(r, r.Process.PID, r.Process.ExecID)
	fill(&p.Exe, cmp.Or(r.Process.Exe, r.Process.Comm))
	fill(&p.Script, r.Process.Script)
	if len(p.Argv) == 0 {
		p.Argv = r.Process.Argv
	}
	if p.Start == 0 {
		p.Start = r.Process.Start
	}
	child := p
	for i := range r.Process.Ancestors {
		a := &r.Process.Ancestors[i]
		if a.PID == 0 { // what is above is not told
			break
		}
		up := t.process(r, a.PID, a.ExecID)
		fill(&up.Exe, a.Exe)
		fill(&up.User, a.User)
		if len(up.Argv) == 0 {
			up.Argv = a.Argv
		}
		if child.parent == nil && !isAbove(child, up) {
			child.parent = up
			up.children = append(up.children, child)
		}
		child = up
	}
	switch r.Kind {
	case event.RecExit:
		p.End, p.Exit = r.Time, r.Exit
	case event.RecChange, event.RecAttempt, event.RecCredential:
		p.Acts = append(p.Acts, Act{
			ID: r.ID, Seq: r.Seq, Time: r.Time, Kind: r.Kind, Op: r.Op, Path: r.Path, PathTo: r.PathTo, Verdict: r.Verdict,
			Meaning: r.Meaning, Credential: r.Credential,
		})
	}
	return nil
}

// isAbove reports whether p is an ancestor of up, or up itself: records that contradict
// each other must not make a ring.
func isAbove(p, up *Process) bool {
	for ; up != nil; up = up.parent {
		if up == p {
			return true
		}
	}
	return false
}

// list walks the trees of the processes that are chosen, or of those without a parent.
func (t *tree) list(choose func(*Process) bool) []*Process {
	var out []*Process
	var walk func(p *Process, depth int)
	walk = func(p *Process, depth int) {
		p.Depth = depth
		if p.Parent = ""; depth > 0 {
			p.Parent = p.parent.ExecID
		}
		out = append(out, p)
		slices.SortStableFunc(p.children, compare)
		for _, c := range p.children {
			walk(c, depth+1)
		}
	}
	roots := slices.DeleteFunc(slices.Clone(t.order), func(p *Process) bool {
		if choose == nil {
			return p.parent != nil
		}
		return !choose(p)
	})
	slices.SortStableFunc(roots, compare)
	for _, p := range roots {
		walk(p, 0)
	}
	return out
}

// compare puts what began first first, as far as that is known of both.
func compare(a, b *Process) int {
	if c := cmp.Or(cmp.Compare(a.HostID, b.HostID), cmp.Compare(a.Boot, b.Boot)); c != 0 {
		return c
	}
	if a.Start != 0 && b.Start != 0 && a.Start != b.Start {
		return cmp.Compare(a.Start, b.Start)
	}
	return cmp.Compare(a.first, b.first)
}
