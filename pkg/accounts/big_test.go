package accounts_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/holdfast/holdfast/pkg/accounts"
)

// An attacker can make a file long: what is told of it stays short.
func TestLongFilesAreToldInFewSentences(t *testing.T) {
	fill := func(format string) []byte {
		var b bytes.Buffer
		for i := 0; b.Len() < 200<<10; i++ {
			fmt.Fprintf(&b, format, i, i)
		}
		return b.Bytes()
	}
	for path, lines := range map[string][2]string{
		"/etc/passwd":                   {"u%d:x:%d:1::/:/bin/sh\n", "v%d:x:%d:1::/:/bin/sh\n"},
		"/etc/group":                    {"g%d:x:%d:\n", "h%d:x:%d:a\n"},
		"/etc/sudoers":                  {"u%d ALL = /bin/x%d\n", "v%d ALL = /bin/x%d\n"},
		"/etc/pam.d/x":                  {"auth a%d b%d\n", "auth c%d d%d\n"},
		"/etc/cron.d/x":                 {"* * * * * u%d x%d\n", "* * * * * v%d x%d\n"},
		"/root/.ssh/authorized_keys":    {"a%d b%d\n", "c%d d%d\n"},
		"/etc/systemd/system/x.service": {"A%d=%d\n", "B%d=%d\n"},
	} {
		a, b := fill(lines[0]), fill(lines[1])
		if said := accounts.Meaning(path, accounts.Side{Exists: true, Data: a}, accounts.Side{Exists: true, Data: b}); len(said) == 0 || len(said) > 50 {
			t.Errorf("%s: %d sentences", path, len(said))
		}
		if _, conflicts, ok := accounts.Merge(path, a, b, a); ok && len(conflicts) > 50 {
			t.Errorf("%s: %d conflicts", path, len(conflicts))
		}
	}
}
