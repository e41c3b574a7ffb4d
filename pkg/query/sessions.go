package query

import (
	"cmp"
	"context"
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
)

// Session is a login or service run and what was done in it.
type Session struct {
	ID         string     `json:"id"`
	Host       string     `json:"host,omitempty"`
	HostID     string     `json:"host_id,omitempty"`
	Boot       string     `json:"boot,omitempty"`
	User       string     `json:"user,omitempty"`
	Loginuid   uint32     `json:"loginuid"`
	Origin     string     `json:"origin,omitempty"`
	TTY        string     `json:"tty,omitempty"`
	SourceIP   string     `json:"source_ip,omitempty"`
	SourcePort uint16     `json:"source_port,omitempty"`
	Evidence   string     `json:"evidence,omitempty"` // how its origin is known
	Start      event.Time `json:"start,omitzero"`     // of the login if recorded, else of the first record
	End        event.Time `json:"end,omitzero"`       // 0: it runs, or its end was not seen
	Last       event.Time `json:"last,omitzero"`      // newest record of it

	Processes    uint64 `json:"processes,omitempty"` // as far as its records tell
	Execs        uint64 `json:"execs,omitempty"`
	Records      uint64 `json:"records"`
	Changes      uint64 `json:"changes"`
	Attempts     uint64 `json:"attempts"`     // refused
	Unauthorized uint64 `json:"unauthorized"` // changes that the policy did not allow
	Restored     uint64 `json:"restored"`     // files put back on account of it
}

// sessionKey: session ids begin again with each boot.
type sessionKey struct{ hostID, boot, id string }

func keyOf(r *event.Record) sessionKey { return sessionKey{r.HostID, r.Boot, r.Actor.Session} }

// Sessions returns the sessions that have a record which f selects, by their start. What it tells of each
// is about all its records. With a Limit these are the sessions of the newest records.
func Sessions(ctx context.Context, s Store, f Filter) ([]Session, error) {
	found := map[sessionKey]*Session{}
	var ids []string
	all := f == Filter{} // then one walk sees everything
	cause := map[string]*Session{}
	first := map[string]uint64{} // by host: where answers can begin
	add := func(x *Session, r *event.Record) {
		x.add(r)
		if r.Verdict == event.VerdictUnauthorized {
			cause[r.ID] = x
			if at, ok := first[r.HostID]; !ok || r.Seq < at {
				first[r.HostID] = r.Seq
			}
		}
	}
	err := s.Records(ctx, f, func(r *event.Record) error {
		if r.Actor == nil || r.Actor.Session == "" {
			return nil
		}
		if k := keyOf(r); found[k] == nil {
			found[k] = &Session{ID: k.id, HostID: k.hostID, Boot: k.boot, Host: r.Host, Loginuid: event.Unset}
			ids = append(ids, k.id)
		}
		if all {
			add(found[keyOf(r)], r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if all {
		ids = nil
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		err := s.Records(ctx, Filter{Session: id}, func(r *event.Record) error {
			if x := found[keyOf(r)]; x != nil {
				add(x, r)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for hostID, seq := range first {
		err := s.Records(ctx, Filter{Kind: event.RecResponse, Verdict: event.VerdictRestored, Host: hostID, AfterSeq: seq}, func(r *event.Record) error {
			if r.Response != nil && r.Response.Outcome == "done" && cause[r.Response.Of] != nil {
				cause[r.Response.Of].Restored++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out := make([]Session, 0, len(found))
	for _, x := range found {
		out = append(out, *x)
	}
	slices.SortFunc(out, func(a, b Session) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.HostID, b.HostID), cmp.Compare(a.Boot, b.Boot), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// add takes a record of the session into account. Records of kind session carry its times.
func (x *Session) add(r *event.Record) {
	x.Records++
	a := r.Actor
	set := func(to *string, v string) {
		if v != "" && v != event.Unknown || *to == "" {
			*to = v
		}
	}
	set(&x.User, a.User)
	set(&x.Origin, a.Origin)
	set(&x.TTY, a.TTY)
	set(&x.Evidence, a.Evidence)
	if r.Session != nil {
		x.Processes, x.Execs = max(x.Processes, r.Session.Processes), max(x.Execs, r.Session.Execs)
	}
	if a.SourceIP != "" {
		x.SourceIP, x.SourcePort = a.SourceIP, a.SourcePort
	}
	if a.Loginuid != event.Unset {
		x.Loginuid = a.Loginuid
	}
	if x.Start == 0 || r.Time < x.Start {
		x.Start = r.Time
	}
	x.Last = max(x.Last, r.Time, r.TimeEnd)
	switch r.Kind {
	case event.RecSession:
		x.End = max(x.End, r.TimeEnd)
	case event.RecChange:
		x.Changes++
	case event.RecAttempt:
		x.Attempts++
	}
	if r.Verdict == event.VerdictUnauthorized && r.Kind == event.RecChange {
		x.Unauthorized++
	}
}
