package fleettest

import (
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/judge"
	"github.com/holdfast/holdfast/pkg/window"
)

// scene is one actor at work: a clock that goes on, and the process that acts.
type scene struct {
	h     *host
	at    event.Time
	actor event.Actor
	proc  event.Process
}

// step lets time pass, up to n.
func (s *scene) step(n event.Time) { s.at += 1 + event.Time(s.h.r.Int64N(int64(n))) }

// login begins a session of a person.
func (h *host) login(at event.Time, user string, uid uint32, origin, address string) *scene {
	h.session++
	s := &scene{h: h, at: at, actor: event.Actor{
		User: user, Loginuid: uid, UID: uid, EUID: uid, SUID: uid, FSUID: uid, GID: uid, EGID: uid, FSGID: uid,
		Session: fmt.Sprint(h.session), Origin: origin, TTY: fmt.Sprintf("pts/%d", h.r.IntN(6)), Evidence: event.EvidenceLogin,
	}}
	first := "/usr/sbin/cron"
	switch origin {
	case event.OriginSSH:
		s.actor.SourceIP, s.actor.SourcePort, s.actor.Evidence = address, uint16(20000+h.r.IntN(40000)), event.EvidenceAccepted
		first = "/usr/sbin/sshd"
	case event.OriginCron:
		s.actor.TTY = ""
	case event.OriginConsole:
		s.actor.TTY, first = "tty1", "/usr/bin/login"
	}
	s.proc = event.Process{Unit: "session-" + s.actor.Session + ".scope", Cgroup: fmt.Sprintf("/user.slice/user-%d.slice/session-%s.scope", uid, s.actor.Session)}
	s.exec(first, first[strings.LastIndexByte(first, '/')+1:])
	h.add(s.sessionRecord("login", 0), nil)
	s.step(5 * second)
	if origin != event.OriginCron {
		s.exec("/usr/bin/bash", "-bash")
	}
	return s
}

func (s *scene) sessionRecord(reason string, end event.Time) *event.Record {
	a, p := s.actor, s.proc
	return &event.Record{Time: s.at, TimeEnd: end, Kind: event.RecSession, Reason: reason, Actor: &a, Process: &p}
}

// logout ends the session that began at.
func (s *scene) logout(began event.Time) {
	s.step(minute)
	r := s.sessionRecord("logout", s.at)
	r.Time = began
	s.h.add(r, nil)
}

// service is what a unit does outside any login.
func (h *host) service(at event.Time, unit, exe string, argv ...string) *scene {
	a := *event.Nobody()
	a.UID, a.EUID, a.SUID, a.FSUID, a.GID, a.EGID, a.FSGID = 0, 0, 0, 0, 0, 0, 0
	a.Origin, a.Evidence, a.Session = event.OriginSystemd, event.EvidenceUnit, "unit:"+unit
	s := &scene{h: h, at: at, actor: a, proc: event.Process{Unit: unit, Cgroup: "/system.slice/" + unit}}
	s.exec("/usr/lib/systemd/systemd", "/sbin/init")
	s.exec(exe, argv...)
	return s
}

// exec starts a program below the one that runs.
func (s *scene) exec(exe string, argv ...string) {
	h := s.h
	if s.proc.PID != 0 {
		user := s.actor.User
		if s.actor.EUID == 0 {
			user = "root"
		}
		a := event.Ancestor{PID: s.proc.PID, ExecID: s.proc.ExecID, Exe: s.proc.Exe, Argv: s.proc.Argv, User: user}
		s.proc.Ancestors = append([]event.Ancestor{a}, s.proc.Ancestors...)
	}
	h.pid += 1 + uint32(h.r.IntN(7))
	p := &s.proc
	p.PID, p.TID, p.Exe, p.Argv = h.pid, h.pid, exe, argv
	p.ExecID = fmt.Sprintf("%d-1-%d", p.PID, uint64(s.at-h.booted)/1000)
	p.Comm = exe[strings.LastIndexByte(exe, '/')+1:]
	p.Comm = p.Comm[:min(15, len(p.Comm))]
	p.ExeHash, p.Cwd, p.Start, p.MntNS = programHash(exe), "/root", s.at, "4026531841"
}

// back returns to the program before.
func (s *scene) back(before event.Process) { s.proc = before }

// sudo makes the person root.
func (s *scene) sudo() {
	s.exec("/usr/bin/sudo", "sudo", "-s")
	a := &s.actor
	a.UID, a.EUID, a.SUID, a.FSUID, a.GID, a.EGID, a.FSGID = 0, 0, 0, 0, 0, 0, 0
	a.Via = []string{"sudo"}
	s.exec("/usr/bin/bash", "/bin/bash")
}

// programHash is what a program's content hashes to, the same on all hosts.
func programHash(exe string) (x event.Hash) {
	sum := uint64(14695981039346656037) // FNV-1a: any spread will do
	for i := range x {
		for _, c := range []byte(exe) {
			sum = (sum ^ uint64(c)) * 1099511628211
		}
		x[i] = byte(sum >> 32)
	}
	return x
}

// rule is what holds for a path.
func rule(path string) (name, mode string) {
	switch {
	case strings.HasPrefix(path, "/etc/"), strings.HasPrefix(path, "/root/.ssh/"):
		return "etc", event.ModeRestore
	case strings.HasPrefix(path, "/usr/"):
		return "programs", event.ModeBlock
	case strings.HasPrefix(path, "/srv/app/"):
		return "app", event.ModeRestore
	default:
		return "data", event.ModeObserve
	}
}

// approval is what a change was approved by.
type approval struct {
	listed bool // the program is on the rule's list
	window window.Window
}

var (
	byNobody = approval{}
	byRule   = approval{listed: true}
)

// byWindow is a window that was opened for a ticket on each host.
func byWindow(ticket string) approval {
	return approval{window: window.Window{Number: 1 + uint64(programHash(ticket)[0]%20), Ticket: ticket}}
}

// judge is what the daemon would say of r.
func (a approval) judge(r *event.Record) {
	c := judge.Case{Rule: r.Rule, Mode: r.Mode, Blocked: r.Kind == event.RecAttempt, Allowed: a.listed}
	c.Op, _ = event.ParseOp(r.Op)
	if a.window.Number != 0 {
		c.Window, r.Detail = a.window.Name(), a.window.Mark()
		delete(r.Detail, "window_record") // its opening is not among these records
	}
	if r.Before != nil {
		c.Before, c.After, c.Trusted = *r.Before, *r.After, r.Before
	}
	if c.Mode == event.ModeBlock && !c.Blocked && r.Sensor.Tier == "tracepoint" {
		c.Mode = event.ModeRestore
	}
	v := judge.Judge(c)
	r.Verdict, r.Reason = v.Verdict, v.Reason
}

// change is a change that happened.
func (s *scene) change(op, path string, a approval) *event.Record {
	h := s.h
	s.step(2 * second)
	before, known := h.files[path]
	if !known {
		before = event.State{Exists: op != "create" && op != "mkdir", Type: event.TypeRegular, Hash: h.hash(), Size: uint64(100 + h.r.IntN(20_000)),
			Mode: 0o644, User: "root", Group: "root", Mtime: s.at - 30*24*hour}
	}
	if op == "unlink" {
		before.Exists = true // else there was nothing to do
	}
	if !before.Exists {
		before = event.State{}
	}
	after := before
	after.Exists, after.Type = true, event.TypeRegular
	count, bytes := uint64(1), uint64(0)
	switch op {
	case "unlink":
		after = event.State{}
	case "chmod":
		if after.Mode = choose[event.Mode](h.r, 0o600, 0o666, 0o4755); after.Mode == before.Mode {
			after.Mode = 0o777
		}
	default:
		after.Hash, after.Size, after.Mtime = h.hash(), uint64(100+h.r.IntN(20_000)), s.at
		if after.User == "" {
			after.User, after.Group, after.Mode = "root", "root", 0o644
		}
		count, bytes = uint64(1+h.r.IntN(9)), after.Size
	}
	r := s.record(event.RecChange, op, path)
	r.TimeEnd, r.Count, r.Bytes = s.at+event.Time(h.r.IntN(50_000_000)), count, bytes
	r.Ops = []string{"open", op}
	r.Before, r.After = &before, &after
	a.judge(r)
	if r.Verdict != event.VerdictUnauthorized { // else it is put back, or an event of its own tells
		h.files[path] = after
	}
	return h.add(r, nil)
}

// attempt is what a hook refused.
func (s *scene) attempt(op, path string) *event.Record {
	s.step(2 * second)
	r := s.record(event.RecAttempt, op, path)
	r.Count, r.Ops = 1, []string{op}
	byNobody.judge(r)
	return s.h.add(r, nil)
}

func (s *scene) record(kind, op, path string) *event.Record {
	a, p := s.actor, s.proc
	name, mode := rule(path)
	return &event.Record{Time: s.at, Kind: kind, Op: op, Path: path, Rule: name, Mode: mode,
		File: &event.File{Type: event.TypeRegular, Dev: 2049, Ino: inode(path), Nlink: 1}, Actor: &a, Process: &p,
		Sensor: &event.Sensor{Tier: s.h.tier, Hook: "inode_" + op}}
}

func inode(path string) uint64 {
	x := programHash(path)
	return uint64(x[0])<<16 | uint64(x[1])<<8 | uint64(x[2])
}

// restored is how an unauthorized change ends: the intent, and the outcome.
func (s *scene) restored(of *event.Record, failure string) {
	h := s.h
	took := uint64(3_000_000 + h.r.Int64N(60_000_000))
	for i, outcome := range []string{"intended", "done"} {
		r := &event.Record{Time: of.Time + event.Time(took)*event.Time(i+1)/2, Kind: event.RecResponse, Path: of.Path, Rule: of.Rule, Mode: of.Mode,
			Response: &event.Response{Action: "restore", Outcome: outcome}}
		if i == 1 {
			r.Verdict, r.Response.TookNS = event.VerdictRestored, took
			r.Response.Evidence = "evidence/" + of.After.Hash.Hex()[:16]
			if failure != "" {
				r.Verdict, r.Response.Outcome, r.Response.Error, r.Response.Evidence = event.VerdictRestoreFailed, "failed", failure, ""
			}
		}
		h.add(r, of)
	}
	if failure != "" {
		h.files[of.Path] = *of.After
	}
}
