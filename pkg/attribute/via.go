package attribute

import (
	"path"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// escalators are the programs whose trade is to run others with different
// credentials. Only those in a place that the system owns count by their name.
var escalators = [...]string{"sudo", "sudo-rs", "su", "su-rs", "doas", "pkexec", "runuser", "setpriv", "login", "machinectl", "ksu", "super", "calife"}

var systemDirs = [...]string{"/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/", "/usr/local/bin/", "/usr/local/sbin/"}

func escalator(exe string) string {
	if exe == "" {
		return ""
	}
	base := exeBase(exe)
	if !slices.Contains(escalators[:], base) {
		return ""
	}
	dir := exe[:strings.LastIndexByte(exe, '/')+1]
	if slices.Contains(systemDirs[:], dir) || strings.HasPrefix(exe, "/run/wrappers/") {
		return base
	}
	return ""
}

// exeBase is the last component of an executable's path, also of one that was
// deleted since.
func exeBase(exe string) string { return path.Base(strings.TrimSuffix(exe, " (deleted)")) }

// via tells how the credentials act were reached by the first program of part,
// a chain inside one session (see inSession), oldest step first:
//
//	"sudo"          sudo, su, doas ... ran in between
//	"setuid:/path"  executing this file gave a user id that the caller could not take
//	"setgid:/path"  the same for a group id
//	"unknown"       the ids changed and nothing that was seen explains it
//
// A way counts only if it was left with other ids than it was entered with.
func (t *Table) via(part []*node, whole bool, act ids) []string {
	top := part[len(part)-1]
	var out []string
	if u := top.up; u != nil && u.is(flagCut) {
		out = append(out, t.cuts[u].via...)
	} else if s := top.sess; s != nil && (!whole || procOf(top.key) != s.opener) && !top.ids.person(s.login) {
		out = append(out, event.Unknown)
	}
	var name string // a way to other credentials that the chain is inside of
	var before ids  // and the ids before it
	leave := func(now ids) {
		if name != "" && now.differs(before) {
			out = append(out, name)
		}
		name = ""
	}
	now := top.ids
	for i := len(part) - 2; i >= 0; i-- {
		n := part[i]
		pre := now
		now = n.ids
		if n.is(flagCopy) {
			if name == "" && pre.gained(now) {
				out = append(out, event.Unknown)
			}
			continue
		}
		left := now
		if pre.gained(now) { // the new program's own doing
			left.euid, left.egid = pre.euid, pre.egid
		}
		leave(left)
		if name = wayOf(n.image, pre, now); name != "" {
			before = pre
		} else if pre.gained(now) {
			out = append(out, event.Unknown)
		}
	}
	if name == "" && now.gained(act) {
		out = append(out, event.Unknown)
	}
	leave(act)
	return out
}

// wayOf names what executing i has done to the ids pre, "" if nothing or if an
// exec alone cannot have done it.
func wayOf(i *image, pre, now ids) string {
	if e := escalator(i.exe); e != "" {
		return e
	}
	switch {
	case pre.gained(now) && pre.has(now.uid):
		return "setuid:" + exeText(i)
	case pre.gained(now), pre.has(0):
		return ""
	case now.egid != pre.gid && now.egid != pre.egid && now.egid != pre.sgid:
		return "setgid:" + exeText(i)
	}
	return ""
}

// differs reports whether what i and o may do differs by user or group.
func (i ids) differs(o ids) bool {
	return i.uid != o.uid || i.euid != o.euid || i.gid != o.gid || i.egid != o.egid
}

// person reports whether i are the plain credentials of the user uid.
func (i ids) person(uid uint32) bool { return i.uid == uid && i.euid == uid && i.suid == uid }

// has reports whether a process with the ids i may take uid without privilege.
func (i ids) has(uid uint32) bool { return uid == i.uid || uid == i.euid || uid == i.suid }

// gained reports whether now holds a user id that a process with the ids i,
// none of them root's, could not take (linux kernel/sys.c:__sys_setresuid).
func (i ids) gained(now ids) bool {
	if i.has(0) {
		return false
	}
	return !i.has(now.uid) || !i.has(now.euid) || !i.has(now.suid)
}

func exeText(i *image) string {
	if i.exe == "" {
		return event.Unknown
	}
	return text(i.exe)
}
