package attribute

import (
	"net/netip"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// originOfProgram names the way in that a login program is for.
func originOfProgram(base string) string {
	switch base {
	case "sshd", "sshd-session", "sshd-auth", "dropbear", "dropbearmulti":
		return event.OriginSSH
	case "login", "agetty", "mgetty", "getty", "mingetty", "sulogin", "greetd",
		"gdm-session-worker", "gdm-session-wor", "sddm-helper", "lightdm", "lxdm-session", "xdm":
		return event.OriginConsole
	case "cron", "crond", "anacron":
		return event.OriginCron
	case "atd":
		return event.OriginAt
	case "systemd", "systemd-executor", "(systemd)":
		return event.OriginSystemd
	}
	return event.OriginUnknown
}

// program names what an image runs: by its executable, or if that is not known
// by the name that the process goes by.
func program(i *image, comm string) string {
	if i != nil && i.exe != "" {
		return exeBase(i.exe)
	}
	return comm
}

// originOf tells where a login by program comes from. A connection counts for
// programs that serve one: a cron daemon that was started over ssh inherits
// that connection and has nothing to do with it.
func originOf(program string, peer netip.AddrPort, how uint8) (origin, evidence string, source netip.AddrPort) {
	origin = originOfProgram(program)
	bound := how != event.HowNone && peer.IsValid() && peer.Addr().IsValid() && !peer.Addr().IsUnspecified()
	switch {
	case !bound, origin == event.OriginCron, origin == event.OriginAt, origin == event.OriginSystemd:
		return origin, event.EvidenceLogin, netip.AddrPort{}
	case origin == event.OriginConsole:
		origin = event.OriginUnknown // a login over the network that is not ssh
	}
	switch how {
	case event.HowHeld:
		evidence = event.EvidenceAccepted
	case event.HowInherited:
		evidence = event.EvidenceInherited
	default:
		evidence = event.EvidenceProcScan
	}
	return origin, evidence, unmap(peer)
}

func unmap(p netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()) }

// service tells where work outside any login comes from.
func (t *Table) service(ev *event.Event, c []*node) (origin, evidence string) {
	if ev.Kthread {
		return event.OriginKernel, event.EvidenceKernel
	}
	g := t.cgroup(ev.Cgroup)
	if g.container != "" {
		return event.OriginContainer, event.EvidenceCgroup
	}
	if strings.HasSuffix(g.unit, ".service") || g.unit == "init.scope" {
		switch g.unit {
		case "cron.service", "crond.service":
			return event.OriginCron, event.EvidenceUnit
		case "atd.service":
			return event.OriginAt, event.EvidenceUnit
		}
		return event.OriginSystemd, event.EvidenceUnit
	}
	for _, n := range c[1:] {
		if n.is(flagKthread) {
			return event.OriginKernel, event.EvidenceAncestor
		}
		if n.is(flagStub) {
			break
		}
		switch o := originOfProgram(program(n.image, "")); o {
		case event.OriginCron, event.OriginAt:
			return o, event.EvidenceAncestor
		}
	}
	return event.OriginUnknown, event.EvidenceNone
}

// ttyText writes the kernel's name of a pseudo terminal as people do.
func ttyText(s string) string {
	if n, ok := strings.CutPrefix(s, "pts"); ok && n != "" && n[0] >= '0' && n[0] <= '9' {
		return "pts/" + n
	}
	return text(s)
}
