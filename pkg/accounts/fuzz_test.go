package accounts_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/holdfast/holdfast/pkg/accounts"
)

// whatKeysLookLike is written apart from the package's own idea of it.
var whatKeysLookLike = regexp.MustCompile(`\$(1|2[aby]|5|6|y|gy|7)\$[./A-Za-z0-9$=]{22,}|AAAA[BCEI][23N]z[A-Za-z0-9+/]{40,}`)

func FuzzMeaning(f *testing.F) {
	for _, p := range []string{"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/sudoers", "/etc/sudoers.d/a.b", "/root/.ssh/authorized_keys", "/etc/pam.d/login", "/etc/crontab",
		"/var/spool/cron/crontabs/bob", "/etc/systemd/system/x.service", "/etc/systemd/system/x.service.d/y.conf", "/etc/cron.daily/x"} {
		f.Add(p, "root:x:0:0::/root:/bin/sh\n", "root:$6$saltsaltsalt$abcdefghijklmnopqrstuvwxyzabcdefghijkl:0:0:::::\n")
		f.Add(p, "a ALL=(ALL) NOPASSWD: ALL\n[Service]\nEnvironment=A=$6$saltsaltsalt$abcdefghijklmnopqrstuvwxyz\n", "\"a\\\n* * * * * x\n@reboot\n")
		f.Add(p, "", keyOne+"\ncommand=\"a b\" "+keyTwo+"\n#"+keyTwo+"\n")
	}
	f.Fuzz(func(t *testing.T, path, before, after string) {
		side := func(s string) accounts.Side { return accounts.Side{Exists: s != "", Data: []byte(s)} }
		said := accounts.Meaning(path, side(before), side(after))
		if !accounts.Known(path) || before == after {
			if said != nil {
				t.Fatalf("%q of nothing", said)
			}
			return
		}
		if len(said) == 0 {
			t.Fatal("nothing is said of a difference")
		}
		for _, s := range said {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				t.Fatalf("%q steers a terminal", s)
			}
			if x := whatKeysLookLike.FindString(s); x != "" {
				t.Fatalf("%q holds %q", s, x)
			}
		}
		a, b := accounts.Redact(path, []byte(before), []byte(after))
		if !strings.Contains(before+after, "\x00") {
			if x := whatKeysLookLike.FindString(string(a)) + whatKeysLookLike.FindString(string(b)); x != "" {
				t.Fatalf("%q is shown", x)
			}
			if string(a) == string(b) {
				t.Fatal("a difference is not shown")
			}
		}
	})
}
