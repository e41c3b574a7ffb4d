package query

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// Filter selects records. All fields that are set must hold; the zero Filter
// selects everything.
type Filter struct {
	Since event.Time // Time, or TimeEnd if that is later, is this or later
	Until event.Time // Time is before this

	// Path selects by path and path_to, as records write them (event.Text): an exact
	// path; with a slash at the end everything below; with any of * ? [ a glob in
	// which * and ? do not cross a slash and ** does, so that **text** is a text
	// anywhere in it. Quote gives the pattern of one exact path.
	Path string

	User    string // actor.user
	Source  string // actor.source_ip, or address and port as in 192.0.2.7:50122
	Session string // actor.session
	Exec    string // process.exec_id
	Below   string // process.exec_id, or that of one of its ancestors
	Exe     string // process.exe, or its last element if there is no slash in it
	Command string // is somewhere in process.argv, its elements joined by a space
	Meaning string // is somewhere in a sentence of meaning
	Op      string
	Kind    string
	Verdict string
	Rule    string
	Found   string // how a change was found that no event told of
	Ticket  string // detail.ticket: of the approved change window that covered a change, or of its opening and end
	Host    string // host, host_id, or the machine id of all logs of a host

	AfterSeq uint64 // Seq is above this
	Limit    int    // only the newest N of what matches; 0 is all
}

// Match reports whether f selects r. It is what the filters mean; Limit, which is
// about many records, is left aside.
func (f *Filter) Match(r *event.Record) bool {
	return f.matchRecord(r) && f.matchActor(r.Actor) && f.matchProcess(r.Process)
}

func (f *Filter) matchRecord(r *event.Record) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	switch {
	case f.Since != 0 && max(r.Time, r.TimeEnd) < f.Since, f.Until != 0 && r.Time >= f.Until, r.Seq <= f.AfterSeq && f.AfterSeq != 0:
		return false
	case !is(f.Op, r.Op), !is(f.Kind, r.Kind), !is(f.Verdict, r.Verdict), !is(f.Rule, r.Rule), !is(f.Found, r.Found), !is(f.Ticket, r.Detail["ticket"]):
		return false
	case f.Host != "" && f.Host != r.Host && f.Host != r.HostID && f.Host != event.Machine(r.HostID):
		return false
	case f.Meaning != "" && !slices.ContainsFunc(r.Meaning, func(s string) bool { return strings.Contains(s, f.Meaning) }):
		return false
	}
	return f.Path == "" || MatchPath(f.Path, r.Path) || MatchPath(f.Path, r.PathTo)
}

func (f *Filter) matchActor(a *event.Actor) bool {
	if f.User == "" && f.Session == "" && f.Source == "" {
		return true
	}
	if a == nil || f.User != "" && f.User != a.User || f.Session != "" && f.Session != a.Session {
		return false
	}
	if f.Source == "" {
		return true
	}
	ip, port := SplitSource(f.Source)
	return a.SourceIP != "" && ip == Address(a.SourceIP) && (port == 0 || port == a.SourcePort)
}

func (f *Filter) matchProcess(p *event.Process) bool {
	if f.Exec == "" && f.Exe == "" && f.Command == "" && f.Below == "" {
		return true
	}
	if p != nil && f.Below != "" && f.Below != p.ExecID && !slices.ContainsFunc(p.Ancestors, func(a event.Ancestor) bool { return a.ExecID == f.Below }) {
		return false
	}
	return p != nil && (f.Command == "" || strings.Contains(strings.Join(p.Argv, " "), f.Command)) && (f.Exec == "" || f.Exec == p.ExecID) && (f.Exe == "" || f.Exe == p.Exe || f.Exe == Base(p.Exe))
}

// Base is the last element of an executable's path, "" for none.
func Base(exe string) string { return exe[strings.LastIndexByte(exe, '/')+1:] }

// Address writes an IP address in the one way in which addresses compare; what is none stays as it is.
func Address(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().String()
	}
	return s
}

// SplitSource reads a Source filter: the address as Address writes it, and the port or 0.
func SplitSource(s string) (ip string, port uint16) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().String(), ap.Port()
	}
	return Address(s), 0
}
