package querytest

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// What the records are made of. Names repeat so that each filter selects some.
const (
	host    = "web-1"
	machine = "3f1b6c0d9e2a47b8a5c4d3e2f1a09b8c"
	hostID  = machine + event.Again + "1"
	start   = event.Time(1_780_000_000_000_000_000)
)

func choose[T any](r *rand.Rand, v ...T) T { return v[r.IntN(len(v))] }

func paths() []string {
	return []string{
		"/etc/passwd", "/etc/shadow", "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/10-a.conf", "/etc/ssh/sshd_config.d/x/deep.conf",
		"/etc", "/etcetera/passwd", "/etc/Passwd", "/srv/www/index.html", "/srv/www/a b.html", "/srv/www/ä.html", "/srv/www/日本.html",
		"/srv/www/[1].html", "/srv/www/1.html", "/srv/www/*.html", "/srv/www/100%_.html", "/srv/www/100ab.html", `/srv/www/\xFF\x0A.bin`, "/srv/www/back\\slash",
		"/srv/www/'quoted' \"name\"", "/srv/wwwx/index.html", "/", "/usr/bin/passwd",
	}
}

// Records returns n records of one host with ids, as a journal has them: two boots,
// times that step back now and then, and every kind of hole.
func Records(n int) []*event.Record {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]*event.Record, n)
	for i := range out {
		x := record(r, i)
		x.Host, x.HostID, x.Boot, x.Seq = host, hostID, "boot-a", uint64(i+1)
		if i >= n*2/3 {
			x.Boot = "boot-b"
		}
		x.ID = fmt.Sprintf("%s/%s/%d", x.HostID, x.Boot, x.Seq)
		if i > 0 && x.Kind == event.RecResponse {
			of := out[r.IntN(i)]
			x.Path, x.Actor, x.Process, x.Op, x.PathTo = of.Path, nil, nil, "", ""
			x.Verdict = choose(r, event.VerdictRestored, event.VerdictRestored, event.VerdictRestoreFailed, "")
			x.Response = &event.Response{Action: "restore", Outcome: choose(r, "intended", "done", "done", "failed"), Of: of.ID, TookNS: 12345}
		}
		out[i] = x
	}
	return out
}

func record(r *rand.Rand, i int) *event.Record {
	x := &event.Record{
		Time: start + event.Time(i)*1_000_000_000 - event.Time(r.IntN(5))*1_500_000_000,
		Kind: choose(r, event.RecChange, event.RecChange, event.RecChange, event.RecAttempt, event.RecExec, event.RecSession, event.RecResponse, event.RecGap, event.RecAgent),
	}
	switch x.Kind {
	case event.RecChange, event.RecAttempt:
		x.TimeEnd = x.Time + event.Time(r.IntN(1000))
		x.Op = choose(r, "write", "create", "unlink", "rename", "chmod")
		x.Ops, x.Count = []string{"open", x.Op}, 2
		x.Path = choose(r, paths()...)
		if x.Op == "rename" {
			x.PathTo = choose(r, append(paths(), "", "/elsewhere/passwd")...)
		}
		x.Rule, x.Mode = choose(r, "etc", "www", ""), choose(r, event.ModeObserve, event.ModeRestore)
		x.Verdict = choose(r, event.VerdictObserved, event.VerdictUnauthorized, event.VerdictExpected)
		if x.Kind == event.RecAttempt {
			x.Verdict = event.VerdictBlocked
		}
		if r.IntN(10) == 0 { // a window instead of a moment
			x.Found = choose(r, event.FoundAfterGap, event.FoundWhileDown)
			x.TimeEnd, x.Gap = x.Time+event.Time(r.IntN(100))*1_000_000_000, &event.Gap{Of: hostID + "/boot-a/1"}
		}
		if x.Verdict == event.VerdictExpected {
			x.Detail = map[string]string{"window": "3", "ticket": choose(r, "CHG-42", "CHG-4", "ä 'quoted'"), "window_record": hostID + "/boot-a/2"}
		}
		if i%5 == 0 {
			x.Meaning = []string{"user `eve` added with uid 0", fmt.Sprintf("`bob` joined group `g%d`", i%3), `100%_\x0A`}[:1+i%3]
		}
		x.Before = &event.State{Exists: true, Type: event.TypeRegular, Size: uint64(i), Mode: 0o644, Mtime: x.Time - 5}
		x.After = &event.State{Exists: true, Type: event.TypeRegular, Hash: event.Hash{1, byte(i)}, Size: uint64(i), Mode: 0o600, Mtime: x.Time}
	case event.RecGap:
		x.Gap = &event.Gap{Lost: uint64(i), From: x.Time - 10, To: x.Time, Causes: []string{event.CauseRing}, Trees: []string{"/etc"}, Rescan: event.RescanDone, Looked: 7, Changes: uint64(i % 3)}
		return x
	case event.RecAgent:
		x.Reason, x.Detail = "started", map[string]string{"version": "0.1", "tier": "lsm"}
		return x
	}
	x.Actor, x.Process = actor(r), process(r)
	if r.IntN(20) == 0 {
		x.Actor = nil
	}
	if r.IntN(20) == 0 {
		x.Process = nil
	}
	if x.Kind == event.RecSession {
		x.TimeEnd = choose(r, 0, x.Time+event.Time(r.IntN(100))*1_000_000_000)
	}
	return x
}

func actor(r *rand.Rand) *event.Actor {
	a := &event.Actor{User: choose(r, "alice", "bob", event.Unknown, "alice2"), Loginuid: choose(r, 1000, 1001, event.Unset), UID: choose[uint32](r, 0, 1000)}
	a.Session = choose(r, "41", "42", "4", "svc-1-2-3", "")
	a.Origin = choose(r, event.OriginSSH, event.OriginCron, event.OriginUnknown)
	a.SourceIP = choose(r, "192.0.2.7", "192.0.2.70", "2001:db8::7", "::ffff:192.0.2.7", "")
	if a.SourceIP != "" {
		a.SourcePort = choose[uint16](r, 50122, 22, 0)
	}
	if a.Origin == event.OriginSSH {
		a.Via = []string{"sudo"}
	}
	return a
}

func process(r *rand.Rand) *event.Process {
	return &event.Process{
		PID: uint32(r.IntN(9999)), ExecID: choose(r, "10-1-500", "10-2-500", "11-1-501", ""), Comm: "sed",
		Exe: choose(r, "/usr/bin/sed", "/opt/tools/sed", "/usr/bin/vim", "/usr/bin/sed.real", ""),
		Argv: choose(r, []string{"sed", "-i", "s/ä/b/"}, []string{"sed", "-i", `s%b\c_`}, nil, []string{"vim"}, []string{""}, []string{"", ""}, []string{"Sed", `.\xFF\x80`, "b"},
			[]string{"sh", "-c", `echo "it's "quoted"" *`}, []string{"日本語"}, []string{"sh", strings.Repeat("xyz ", 400) + "the very end"}),
		Ancestors: []event.Ancestor{{PID: 9, ExecID: choose(r, "9-1-400", "9-2-400", ""), Exe: "/usr/bin/bash"}, {PID: 1, ExecID: "1-1-1", Exe: "/usr/lib/systemd/systemd"}},
	}
}
