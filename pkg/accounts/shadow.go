package accounts

import (
	"strconv"
	"strings"
	"time"
)

// The states of a password field.
const (
	pwNone   = "no password needed"
	pwBarred = "no password"
	pwLocked = "locked"
	pwSet    = "set"
)

// password tells what a password field of shadow does, and the scheme of its hash.
func password(f string) (state, hash, scheme string) {
	hash = strings.TrimLeft(f, "!")
	scheme = schemeOf(hash)
	switch {
	case f == "":
		return pwNone, "", ""
	case scheme == "":
		return pwBarred, "", "" // *, !, !! and whatever crypt(3) never gives
	case hash != f:
		return pwLocked, hash, scheme
	}
	return pwSet, hash, scheme
}

// schemeOf names the scheme of a hash, "" if it is none (crypt(5)).
func schemeOf(h string) string {
	for _, s := range []struct{ prefix, name string }{
		{"$y$", "yescrypt"}, {"$gy$", "gost-yescrypt"}, {"$7$", "scrypt"}, {"$6$", "SHA-512"}, {"$5$", "SHA-256"},
		{"$2", "bcrypt"}, {"$1$", "MD5"}, {"$md5", "SunMD5"}, {"$sha1$", "SHA-1"}, {"$3$", "NT"}, {"_", "BSDi DES"}, {"$", "another scheme"},
	} {
		if strings.HasPrefix(h, s.prefix) && len(h) > len(s.prefix) {
			return s.name
		}
	}
	if len(h) >= 13 && strings.Trim(h, "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == "" {
		return "DES"
	}
	return ""
}

// passwordChange tells what became of a password; who is "`alice`" or "group `x`".
func (t *told) passwordChange(who, a, b string) {
	sa, ha, ka := password(a)
	sb, hb, kb := password(b)
	also := ""
	if ha != "" && hb != "" && ka != kb {
		also = ", from " + ka + " to " + kb
	}
	switch {
	case sb == pwNone:
		t.say("password of %s removed: none is needed now", who)
	case sa == pwSet && sb == pwLocked && ha == hb:
		t.say("password of %s locked", who)
	case sa == pwLocked && sb == pwSet && ha == hb:
		t.say("password of %s unlocked", who)
	case sb == pwBarred:
		t.say("password of %s taken away: no password is accepted now", who)
	case ha == "":
		t.say("password of %s set (%s)", who, kb)
	case sb == pwLocked && ha == hb:
		t.say("password of %s is locked in another way now", who)
	case sb == pwLocked:
		t.say("password of %s changed and locked%s", who, also)
	case sa == pwLocked:
		t.say("password of %s changed and unlocked%s", who, also)
	default:
		t.say("password of %s changed%s", who, also)
	}
}

func (t *told) shadow(before, after []byte) {
	t.records(rowsOf(shadow, before), rowsOf(shadow, after), sayings{
		same: func(a, b *row) bool {
			_, hash, _ := password(a.f[1])
			return hash != "" && a.f[1] == b.f[1]
		},
		renamed: "password entry of %s is that of %s now",
		gone:    func(r *row) { t.say("password entry of %s removed", quote(r.f[0])) },
		come: func(r *row) {
			state, _, scheme := password(r.f[1])
			if scheme != "" {
				state += ", " + scheme
			}
			t.say("password entry of %s added (%s)", quote(r.f[0]), state)
		},
		changed: func(a, b *row) { t.entry(a.f, b.f) },
	})
}

func (t *told) entry(a, b []string) {
	name := quote(b[0])
	if a[1] != b[1] {
		t.passwordChange(name, a[1], b[1])
	}
	if a[2] != b[2] {
		switch {
		case b[2] == "0":
			t.say("%s must change the password at the next login", name)
		case a[1] == b[1]:
			t.say("the password of %s counts as last changed %s", name, day(b[2]))
		}
	}
	for i, what := range []string{3: "days until the password of %s may be changed", 4: "days until the password of %s must be changed",
		5: "days of warning before the password of %s expires", 6: "days from there until account %s is closed"} {
		if what != "" && a[i] != b[i] {
			t.say(what+": %s, was %s", name, or(text(b[i]), "no limit"), or(text(a[i]), "no limit"))
		}
	}
	if a[7] != b[7] {
		if b[7] == "" {
			t.say("account %s never expires now", name)
		} else {
			t.say("account %s expires %s", name, day(b[7]))
		}
	}
}

// day writes days since 1970 as a date.
func day(f string) string {
	n, err := strconv.ParseInt(f, 10, 32)
	if err != nil || n < 0 {
		return "at no time that can be read"
	}
	return "on " + time.Unix(n*86400, 0).UTC().Format("2006-01-02")
}

func (t *told) gshadow(before, after []byte) {
	t.records(rowsOf(gshadow, before), rowsOf(gshadow, after), sayings{
		gone: func(r *row) { t.say("group %s removed from gshadow", quote(r.f[0])) },
		come: func(r *row) {
			s := "group " + quote(r.f[0]) + " added to gshadow"
			if m := split(r.f[3]); len(m) > 0 {
				s += " with the members " + quoteAll(m)
			}
			t.say("%s", s)
		},
		changed: func(a, b *row) {
			name := "group " + quote(b.f[0])
			if a.f[1] != b.f[1] {
				t.passwordChange(name, a.f[1], b.f[1])
			}
			t.members(a.f[2], b.f[2], "the administrators of "+name, "")
			t.members(a.f[3], b.f[3], name, " (gshadow)")
		},
	})
}
