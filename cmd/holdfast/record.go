package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// chain returns the processes from the session's first one to the acting one.
func chain(r *event.Record) []event.Ancestor {
	if r.Process == nil {
		return nil
	}
	steps := slices.Clone(r.Process.Ancestors)
	slices.Reverse(steps)
	p := r.Process
	name := p.Exe
	if name == "" {
		name = p.Comm
	}
	return append(steps, event.Ancestor{PID: p.PID, ExecID: p.ExecID, Exe: name, Argv: p.Argv})
}

// chainLine writes the chain on one line: sshd[1] → bash[2] → sudo[3] → sed[4].
func chainLine(r *event.Record) string {
	var names []string
	for _, s := range chain(r) {
		name := processName("", s.Exe)
		if s.PID != 0 {
			name += fmt.Sprintf("[%d]", s.PID)
		}
		names = append(names, name)
	}
	return strings.Join(names, " → ")
}

// person writes who acted, through which credentials.
func person(a *event.Actor) string {
	switch {
	case a == nil || a.Loginuid == event.Unset && a.EUID == event.Unset:
		return "someone unknown"
	case a.Loginuid == event.Unset:
		return uidName(a.EUID) + " (outside any login)"
	}
	user := printableText(a.User)
	if user == "" || a.User == event.Unknown {
		user = fmt.Sprintf("uid %d", a.Loginuid)
	}
	if a.EUID != a.Loginuid || len(a.Via) > 0 {
		user += " as " + uidName(a.EUID)
		if len(a.Via) > 0 {
			user += " through " + printableText(strings.Join(a.Via, ", "))
		}
	}
	return user
}

func uidName(uid uint32) string {
	if uid == 0 {
		return "root"
	}
	return fmt.Sprintf("uid %d", uid)
}

// from writes where the session came from.
func from(a *event.Actor) string {
	if a == nil {
		return ""
	}
	switch {
	case a.SourceIP != "" && a.SourcePort != 0:
		return "from " + addrPort(printableText(a.SourceIP), a.SourcePort)
	case a.SourceIP != "":
		return "from " + printableText(a.SourceIP)
	case a.Origin != "" && a.Origin != event.OriginUnknown:
		return "from " + printableText(a.Origin)
	}
	return "from an unknown origin"
}

func addrPort(ip string, port uint16) string {
	if strings.Contains(ip, ":") {
		return fmt.Sprintf("[%s]:%d", ip, port)
	}
	return fmt.Sprintf("%s:%d", ip, port)
}

// done writes an operation in the past tense.
func done(op string) string {
	switch op {
	case "write", "map_write":
		return "written"
	case "create", "mkdir", "mknod", "symlink", "link":
		return "created"
	case "unlink", "rmdir":
		return "removed"
	case "rename":
		return "renamed"
	case "truncate":
		return "truncated"
	case "chmod":
		return "given another mode"
	case "chown":
		return "given another owner"
	case "utimes":
		return "given other times"
	case "setxattr", "removexattr", "setacl", "setflags":
		return "given other attributes"
	case "kill":
		return "sent a signal"
	case "ptrace":
		return "attached to"
	case "limit":
		return "given other limits"
	}
	return "changed"
}

// stateText writes a state on one line.
func stateText(s *event.State) string {
	if s == nil {
		return "not known"
	}
	if !s.Exists {
		return "did not exist"
	}
	var parts []string
	switch {
	case s.Type == event.TypeSymlink:
		parts = append(parts, "symlink to "+shellQuote(string(s.Target)))
	case !s.Hash.IsZero():
		parts = append(parts, s.Hash.String())
	case s.Type != "":
		parts = append(parts, printableText(s.Type))
	}
	if s.Unread != "" {
		parts = append(parts, "(not read: "+printableText(s.Unread)+")")
	}
	if s.Type == event.TypeRegular {
		parts = append(parts, bytesText(s.Size))
	}
	parts = append(parts, s.Mode.String(), owner(s))
	for _, name := range s.XattrNames() {
		parts = append(parts, printableText(name))
	}
	return strings.Join(parts, "  ")
}

func owner(s *event.State) string {
	user, group := s.User, s.Group
	if user == "" {
		user = fmt.Sprint(s.UID)
	}
	if group == "" {
		group = fmt.Sprint(s.GID)
	}
	return printableText(user) + ":" + printableText(group)
}

// session writes the session of an actor.
func session(a *event.Actor) string {
	if a == nil || a.Session == "" {
		return "none"
	}
	s := printableText(a.Session)
	if a.Origin != "" && a.Origin != event.OriginUnknown {
		s += ", " + printableText(a.Origin)
	}
	if a.TTY != "" {
		s += " on " + printableText(a.TTY)
	}
	switch a.Evidence {
	case "":
	case event.EvidenceNone:
		s += "; where it came from is not known"
	default:
		s += "; known by " + strings.ReplaceAll(printableText(a.Evidence), "_", " ")
	}
	return s
}

// responseText writes what Holdfast did.
func responseText(r *event.Record) string {
	resp := r.Response
	s := fmt.Sprintf("%s %s", resp.Action, resp.Outcome)
	if resp.TookNS != 0 {
		s += " in " + took(resp.TookNS)
	}
	if resp.Evidence != "" {
		s += "; the displaced file is " + pathText(resp.Evidence)
	}
	if resp.Error != "" {
		s += ": " + resp.Error
	} else if r.Reason != "" {
		s += ": " + r.Reason
	}
	return printableText(s)
}
