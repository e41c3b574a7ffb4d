package accounts

import (
	"path"
	"strings"
)

// kind is what a file holds.
type kind int

const (
	none kind = iota
	passwd
	shadow
	group
	gshadow
	subids // subuid and subgid
	sudoers
	keys
	pam
	crontab // lines without a user
	crond   // lines with one
	script  // in cron.daily and its like
	unit
)

// file is a path that was understood.
type file struct {
	kind  kind
	owner string // keys, crontab: whose it is, "" if the path does not tell
	name  string // the last element
	dir   string // the one before it
	mute  string // why nobody reads it although it lies there, "" if somebody does
	path  string
}

// Known reports whether a file of that path has a meaning.
func Known(p string) bool {
	_, ok := parsePath(p)
	return ok
}

// parsePath tells what a path holds. It goes by the end of the path: of another root
// all is as of this one.
func parsePath(p string) (file, bool) {
	if !strings.HasPrefix(p, "/") {
		return file{}, false
	}
	f := file{name: path.Base(p), path: p}
	up := path.Dir(p)
	f.dir = path.Base(up)
	parent := path.Base(path.Dir(up))
	switch {
	case f.dir == "etc":
		f.kind = map[string]kind{"passwd": passwd, "shadow": shadow, "group": group, "gshadow": gshadow, "subuid": subids, "subgid": subids,
			"sudoers": sudoers, "pam.conf": pam, "crontab": crond}[f.name]
	case parent == "etc" && f.dir == "sudoers.d":
		f.kind = sudoers
		if strings.Contains(f.name, ".") || strings.HasSuffix(f.name, "~") { // sudoers(5), @includedir
			f.mute = "sudo does not read a file of that name"
		}
	case parent == "etc" && f.dir == "pam.d":
		f.kind = pam
	case parent == "etc" && f.dir == "cron.d":
		f.kind = crond
		if strings.ContainsFunc(f.name, notOfRunParts) { // cron(8)
			f.mute = "cron does not read a file of that name"
		}
	case parent == "etc" && (f.dir == "cron.hourly" || f.dir == "cron.daily" || f.dir == "cron.weekly" || f.dir == "cron.monthly"):
		f.kind = script
		if strings.ContainsFunc(f.name, notOfRunParts) {
			f.mute = "run-parts does not run a file of that name"
		}
	case strings.HasSuffix(up, "/spool/cron/crontabs"), strings.HasSuffix(up, "/spool/cron"), strings.HasSuffix(up, "/spool/cron/tabs"):
		if !strings.HasPrefix(f.name, "tmp.") && f.name != "crontabs" && f.name != "tabs" && !strings.HasPrefix(f.name, "at") {
			f.kind, f.owner = crontab, f.name
		}
	case f.dir == ".ssh" && (f.name == "authorized_keys" || f.name == "authorized_keys2"):
		f.kind = keys
		switch home := path.Dir(up); {
		case path.Base(home) == "root":
			f.owner = "root"
		case parent != "/" && path.Base(path.Dir(home)) == "home":
			f.owner = parent
		}
	case strings.HasSuffix(up, "/etc/ssh/authorized_keys.d"), strings.HasSuffix(up, "/etc/ssh/authorized_keys"):
		f.kind, f.owner = keys, f.name
	default:
		if isUnit(p, f.name, f.dir) {
			f.kind = unit
		}
	}
	return f, f.kind != none
}

// notOfRunParts reports what a name must not hold for run-parts(8) and cron(8) of Debian.
func notOfRunParts(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
}

// isUnit reports whether a path is a unit file, a drop-in of one, or a link by which one is
// enabled (systemd.unit(5)).
func isUnit(p, name, dir string) bool {
	if !strings.Contains(p, "/systemd/system/") && !strings.Contains(p, "/systemd/user/") {
		return false
	}
	if strings.HasSuffix(name, ".conf") {
		return strings.HasSuffix(dir, ".d")
	}
	switch path.Ext(name) {
	case ".service", ".socket", ".timer", ".path", ".mount", ".automount", ".target", ".slice", ".swap":
		return true
	}
	return false
}
