package accounts_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/accounts"
)

func text(lines ...string) string { return strings.Join(lines, "\n") + "\n" }

func TestMergeTakesOneChangeBackAndKeepsTheOther(t *testing.T) {
	const (
		root, alice, bob, eve     = "root:x:0:0::/root:/bin/bash", "alice:x:1000:1000::/home/alice:/bin/bash", "bob:x:1001:1001::/home/bob:/bin/bash", "eve:x:0:0::/root:/bin/sh"
		sroot, salice, sbob, seve = "root:*:1:0:99999:7:::", "alice:$6$a$oldoldold:1:0:99999:7:::", "bob:!:1:0:99999:7:::", "eve:$6$e$evilevil:9:0:99999:7:::"
		salice2, salice3          = "alice:$6$b$newnewnew:9:0:99999:7:::", "alice:$6$c$thirdthird:10:0:99999:7:::"
	)
	for _, c := range []struct {
		name, path        string
		left, before, now string
		want              string
		conflict          string
	}{
		{"a user that was added goes, a shell that another changed stays", "/etc/passwd",
			text(root, alice, eve), text(root, alice), text(root, "alice:x:1000:1000::/home/alice:/bin/zsh", eve, bob), text(root, "alice:x:1000:1000::/home/alice:/bin/zsh", bob), ""},
		{"a password that was changed meanwhile stays", "/etc/shadow",
			text(sroot, salice, seve), text(sroot, salice), text(sroot, salice2, seve), text(sroot, salice2), ""},
		{"a user that was removed comes back in its place", "/etc/passwd",
			text(root, bob), text(root, alice, bob), text(root, "bob:x:1001:1001::/home/bob:/bin/zsh"), text(root, alice, "bob:x:1001:1001::/home/bob:/bin/zsh"), ""},
		{"a password that both changed is nobody's to guess", "/etc/shadow",
			text(sroot, salice2), text(sroot, salice), text(sroot, salice3), "", "`alice` was changed on both sides"},
		{"a user that was added and changed since", "/etc/passwd",
			text(root, eve), text(root), text(root, "eve:x:0:0::/root:/bin/bash"), "", "`eve` was changed since"},
		{"a user that was changed and removed since", "/etc/passwd",
			text(root, "bob:x:0:0::/home/bob:/bin/bash"), text(root, bob), text(root), "", "`bob` was taken away since"},
		{"a member that joined leaves, one that another added stays", "/etc/group",
			text("root:x:0:", "sudo:x:27:alice,eve"), text("root:x:0:", "sudo:x:27:alice"), text("root:x:0:", "sudo:x:27:alice,eve,bob"), text("root:x:0:", "sudo:x:27:alice,bob"), ""},
		{"administrators and members in gshadow", "/etc/gshadow",
			text("sudo:*:eve:alice,eve"), text("sudo:*::alice"), text("sudo:*:eve,bob:alice,eve,bob"), text("sudo:*:bob:alice,bob"), ""},
		{"a gid that both changed", "/etc/group",
			text("root:x:0:", "g:x:5:"), text("root:x:0:", "g:x:4:"), text("root:x:0:", "g:x:6:"), "", "`g` was changed on both sides"},
		{"a rule of sudoers", "/etc/sudoers",
			text("root ALL=(ALL:ALL) ALL", "eve ALL=(ALL) NOPASSWD: ALL", "@includedir /etc/sudoers.d"), text("root ALL=(ALL:ALL) ALL", "@includedir /etc/sudoers.d"),
			text("Defaults env_reset", "root ALL=(ALL:ALL) ALL", "eve ALL=(ALL) NOPASSWD: ALL", "@includedir /etc/sudoers.d", "bob ALL = /bin/ls"),
			text("Defaults env_reset", "root ALL=(ALL:ALL) ALL", "@includedir /etc/sudoers.d", "bob ALL = /bin/ls"), ""},
		{"a rule where another one was put", "/etc/sudoers",
			text("root ALL=(ALL) ALL"), text("root ALL=(ALL) ALL", "alice ALL = /bin/ls"), text("root ALL=(ALL) ALL", "alice ALL = !ALL"), "", "the last rule that matches counts"},
		{"the order of rules", "/etc/sudoers.d/x",
			text("a ALL = /bin/b", "a ALL = !/bin/b"), text("a ALL = !/bin/b", "a ALL = /bin/b"), text("c ALL = ALL", "a ALL = /bin/b", "a ALL = !/bin/b"), "", "the order of its rules"},
		{"a key", "/root/.ssh/authorized_keys",
			text(keyOne, keyTwo), text(keyOne), text(keyOne, keyTwo, "# note"), text(keyOne, "# note"), ""},
		{"the options of a key that another changed", "/root/.ssh/authorized_keys",
			text(keyOne, "restrict "+keyTwo), text(keyOne), text(keyOne, "no-pty "+keyTwo), "", "was changed since"},
		{"a job of cron", "/var/spool/cron/crontabs/root",
			text("* * * * * /tmp/x", "0 3 * * * backup"), text("0 3 * * * backup"), text("* * * * * /tmp/x", "0 4 * * * backup"), text("0 4 * * * backup"), ""},
		{"what would leave nobody to be root", "/etc/passwd",
			text(root, eve), text(alice), text(root, eve, bob), "", "there is no record of `root`"},
		{"what would leave two of a name", "/etc/passwd",
			text(root), text(root, "bob:x:5:5::/:/bin/sh", "bob:x:6:6::/:/bin/sh"), text(root, alice), "", "there are two records of `bob`"},
		{"the same change on both sides", "/etc/passwd", text(root, eve), text(root), text(root), text(root), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, conflicts, ok := accounts.Merge(c.path, []byte(c.left), []byte(c.before), []byte(c.now))
			if !ok {
				t.Fatal("is not known")
			}
			said := strings.Join(conflicts, "; ")
			if c.conflict != "" {
				if !strings.Contains(said, c.conflict) || got != nil {
					t.Errorf("conflicts %q, want %q; result\n%s", said, c.conflict, got)
				}
			} else if string(got) != c.want || said != "" {
				t.Errorf("conflicts %q, got\n%swant\n%s", said, got, c.want)
			}
			for _, secret := range []string{"oldoldold", "newnewnew", "thirdthird", "evilevil", keyOne[20:60], keyTwo[20:60]} {
				if strings.Contains(said, secret) {
					t.Errorf("%q holds a secret", said)
				}
			}
		})
	}
	if got, _, ok := accounts.Merge("/etc/passwd-", []byte("root:x:0:0::/:\neve:x:0:0::/:\n"), []byte("root:x:0:0::/:\n"), []byte("root:x:0:0::/:\neve:x:0:0::/:\nbob:x:1:1::/:\n")); !ok || string(got) != "root:x:0:0::/:\nbob:x:1:1::/:\n" {
		t.Errorf("of the copy that shadow-utils leaves: %v %s", ok, got)
	}
	if _, _, ok := accounts.Merge("/etc/hosts", nil, nil, nil); ok {
		t.Error("/etc/hosts is merged")
	}
}

const (
	keyOne = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHqmTBbFreZsMl92d/DHmys2t6kdsm9J2LAw2bdsxmID admin@desk"
	keyTwo = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHbgbaxqYz1N0cPJjcJ8NpUyuVSetSwTOvMlLME5unMM eve@laptop"
)

// diff3 gives what diff3(1) makes of three contents, false where it sees a conflict.
func diff3(t *testing.T, mine, base, theirs string) (string, bool) {
	t.Helper()
	dir := t.TempDir()
	for name, s := range map[string]string{"mine": mine, "base": base, "theirs": theirs} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("diff3", "-m", "mine", "base", "theirs")
	cmd.Dir = dir
	out, err := cmd.Output()
	return string(out), err == nil
}

// Where diff3 merges lines without a conflict, the records are the same.
func TestMergeAgreesWithDiff3(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	user := func(n, shell int) string { return fmt.Sprintf("u%d:x:%d:%d::/home/u%d:/bin/sh%d", n, n, n, n, shell) }
	edit := func(lines []string) string {
		out := append([]string{}, lines...)
		for range 1 + r.IntN(3) {
			i := 1 + r.IntN(len(out)-1)
			switch r.IntN(3) {
			case 0:
				out = append(out[:i], out[i+1:]...)
			case 1:
				out[i] = out[i] + "x"
			default:
				out = append(out[:i], append([]string{user(1000+r.IntN(9000), 0)}, out[i:]...)...)
			}
		}
		return text(out...)
	}
	agreed := 0
	for range 150 {
		lines := []string{"root:x:0:0::/root:/bin/bash"}
		for i := range 40 {
			lines = append(lines, user(i+1, 0))
		}
		base, theirs, mine := text(lines...), edit(lines), edit(lines)
		want, clean := diff3(t, mine, base, theirs)
		got, conflicts, _ := accounts.Merge("/etc/passwd", []byte(base), []byte(theirs), []byte(mine))
		if !clean {
			continue
		}
		agreed++
		if string(got) != want {
			t.Fatalf("conflicts %q\n--- base\n%s--- theirs\n%s--- mine\n%s--- got\n%s--- diff3\n%s", conflicts, base, theirs, mine, got, want)
		}
	}
	if agreed < 50 {
		t.Fatalf("diff3 merged only %d of 150", agreed)
	}
}

func FuzzMerge(f *testing.F) {
	for _, p := range []string{"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers", "/etc/cron.d/x", "/root/.ssh/authorized_keys"} {
		f.Add(p, "root:x:0:0::/root:/bin/sh\n", "root:x:0:0::/root:/bin/sh\na:x:1:1::/:\n", "root:x:0:0::/root:/bin/sh\nb:x:2:2::/:\n")
		f.Add(p, "a ALL=ALL\n", "a ALL=ALL\\\n\nb", "# x\n\n")
	}
	f.Fuzz(func(t *testing.T, path, base, theirs, mine string) {
		end := func(s string) string {
			if s != "" && !strings.HasSuffix(s, "\n") {
				s += "\n"
			}
			return s
		}
		base, theirs, mine = end(base), end(theirs), end(mine)
		if strings.Contains(base+theirs+mine, "\x00") {
			return
		}
		merge := func(b, x, m string) (string, []string, bool) {
			out, c, ok := accounts.Merge(path, []byte(b), []byte(x), []byte(m))
			return string(out), c, ok
		}
		if _, _, ok := merge(base, theirs, mine); !ok {
			return
		}
		if got, c, _ := merge(base, base, mine); got != mine && len(c) == 0 {
			t.Fatalf("nothing to take back: %q became %q", mine, got)
		}
		if got, c, _ := merge(base, theirs, theirs); got != theirs && len(c) == 0 {
			t.Fatalf("both did the same: %q became %q", theirs, got)
		}
		if got, c, _ := merge(base, theirs, mine); len(c) == 0 {
			// taken back once, nothing is left to take back
			if again, c, _ := merge(base, theirs, got); len(c) == 0 && again != got {
				t.Fatalf("%q, and again %q", got, again)
			}
		}
	})
}
