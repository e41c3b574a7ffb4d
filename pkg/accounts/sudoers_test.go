package accounts

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sudoersTexts are files that sudo 1.9 takes.
func sudoersTexts() map[string]string {
	return map[string]string{
		"the file of Debian": `Defaults	env_reset
Defaults	secure_path="/usr/local/sbin:/usr/local/bin"
Defaults:alice !lecture,tty_tickets
root	ALL=(ALL:ALL) ALL
%sudo	ALL=(ALL:ALL) ALL # trailing
@includedir /etc/sudoers.d
`,
		"tags that go on": `alice ALL=(www-data) NOPASSWD: /bin/a, /bin/b, PASSWD: /bin/c, (root) NOEXEC: /bin/d
`,
		"several hosts and privileges": `bob web1, web2 = /bin/ls : db1 = (postgres) NOPASSWD: /usr/bin/psql, /bin/cat /var/log/*
`,
		"lists, negation, ids":       "alice, %ops, #1000, !mallory ALL=(ALL, !root) ALL, !/bin/su\n",
		"continued lines":            "alice ALL = \\\n\t(root) \\\n\tNOPASSWD: /bin/a, \\\n /bin/b\n",
		"aliases":                    "User_Alias ADMINS = alice, bob : OPS = carol\nCmnd_Alias SHELLS = /bin/sh, /bin/bash\nHost_Alias WEB = web1, 10.0.0.0/8\nRunas_Alias DB = postgres, mysql\nADMINS WEB = (DB) NOPASSWD: SHELLS\n",
		"arguments with escapes":     "alice ALL = /bin/mail -s a\\,b x\\:y, /bin/echo \"\"\n",
		"a group alone":              "alice ALL = (:adm) /bin/ls\n",
		"sudoedit and digests":       "alice ALL = sudoedit /etc/motd, sha224:0GomF8mNN3wlDt1HD9XldjJ3SNgpFdbjO1+NsQ== /bin/ls\n",
		"a quoted name with a blank": "\"%domain users\" ALL = (ALL) NOPASSWD: ALL\n",
		"options":                    "alice ALL = (root) TIMEOUT=5m NOPASSWD: /bin/a, /bin/b\n",
		"comments and blanks":        "# a comment\n\n   # another\n#1001 ALL = /bin/ls\n",
	}
}

type sudoName struct {
	Username, Usergroup, Useralias, Hostname, Hostalias, Networkaddr, Runasalias, Command, Cmndalias string
	Userid, Usergid                                                                                  int
	Negated                                                                                          bool
}

func (n sudoName) String() string {
	s := n.Username + n.Useralias + n.Hostname + n.Hostalias + n.Networkaddr + n.Runasalias + n.Command + n.Cmndalias
	switch {
	case n.Usergroup != "":
		s = "%" + n.Usergroup
	case n.Userid != 0:
		s = "#" + string(json.Number(itoa(n.Userid)))
	}
	if n.Negated {
		s = "!" + s
	}
	return s
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// cvtsudoers gives "user host as nopasswd command" for each grant, as sudo's own parser reads it.
func cvtsudoers(t *testing.T, text string) []string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "sudoers")
	if err := os.WriteFile(f, []byte(text), 0o440); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("cvtsudoers", "-f", "json", f).Output()
	if err != nil {
		t.Fatalf("cvtsudoers: %v", err)
	}
	var doc struct {
		UserSpecs []struct {
			UserList  []sudoName `json:"User_List"`
			HostList  []sudoName `json:"Host_List"`
			CmndSpecs []struct {
				Runasusers, Runasgroups []sudoName
				Options                 []map[string]any
				Commands                []sudoName
			} `json:"Cmnd_Specs"`
		} `json:"User_Specs"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	join := func(n []sudoName) string {
		var s []string
		for _, x := range n {
			s = append(s, x.String())
		}
		return strings.Join(s, ",")
	}
	var all []string
	for _, u := range doc.UserSpecs {
		for _, c := range u.CmndSpecs {
			pw := "password"
			for _, o := range c.Options {
				if o["authenticate"] == false {
					pw = "nopasswd"
				}
			}
			as := join(c.Runasusers)
			switch g := join(c.Runasgroups); {
			case as == "" && g == "":
				as = "root"
			case g != "":
				as += ":" + strings.ReplaceAll(g, "%", "")
			}
			for _, user := range u.UserList {
				for _, host := range u.HostList {
					for _, cmd := range c.Commands {
						all = append(all, strings.Join([]string{user.String(), host.String(), as, pw, cmd.String()}, " | "))
					}
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

func TestGrantsAreThoseThatSudoReads(t *testing.T) {
	for name, text := range sudoersTexts() {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, l := range sudoLines([]byte(text)) {
				if l.err != nil {
					t.Errorf("%q: %v", l.text, l.err)
				}
				for _, g := range l.grants {
					pw := "password"
					if slices.Contains(strings.Fields(g.tags), "NOPASSWD") {
						pw = "nopasswd"
					}
					as := strings.ReplaceAll(g.as, ", ", ",")
					if rest, ok := strings.CutPrefix(as, "group "); ok {
						as = ":" + rest
					}
					cmnd := g.cmnd
					if sum, rest, ok := strings.Cut(cmnd, " "); ok && strings.HasPrefix(sum, "sha") {
						cmnd = rest
					}
					got = append(got, strings.Join([]string{g.user, g.host, as, pw, cmnd}, " | "))
				}
			}
			slices.Sort(got)
			want := cvtsudoers(t, text)
			for i := range want { // "(ALL:ALL)" is told as ALL
				want[i] = strings.ReplaceAll(want[i], "ALL:ALL", "ALL")
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n%s\nsudo reads\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestWhatVisudoRefusesIsNotUnderstood(t *testing.T) {
	for _, line := range []string{"alice", "alice ALL", "alice ALL =", "alice ALL = ls", "ALL = ALL", "alice ALL = (root ALL", "User_Alias lower = bob", "Cmnd_Alias X =", "Defaults", "alice ALL = NOPASSWD:", "alice ALL (ALL) ALL", "eve ALL=(ALL) NOPASSWD ALL"} {
		f := filepath.Join(t.TempDir(), "sudoers")
		if err := os.WriteFile(f, []byte(line+"\n"), 0o440); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("visudo", "-cf", f).CombinedOutput(); err == nil {
			t.Fatalf("visudo takes %q: %s", line, out)
		}
		if l := sudoLines([]byte(line + "\n")); len(l) != 1 || l[0].err == nil {
			t.Errorf("%q is understood as %+v", line, l)
		}
	}
}
