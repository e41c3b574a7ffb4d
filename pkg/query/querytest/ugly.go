package querytest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// ugly makes values that no sane host has and every hostile one can.
type ugly struct {
	*rand.Rand
	pool map[string][]string // values that were given before, by their use
}

// pieces are what texts are made of: what patterns, LIKE, regular expressions, SQL, JSON and terminals give a meaning.
func pieces() []string {
	return []string{"a", "b", "A", "etc", "passwd", "/", "//", ".", "..", "%", "_", `\`, `\\`, `\x`, `\x41`, `\n`, "[", "]", "[]", "[a-b]", "[!a]", "[^", "*", "**", "?", "{", "}", "(", ")", "|", "+", "^", "$",
		"'", "''", `"`, "`", ";", "--", "/*", "*/", " ", "\t", "\n", "\r", "\x1b[2J", "\x7f", "\x01", "\xff", "\xc3", "\xa4", "ä", "a\u0308", "日本", "🙂", "\u202e", "\ufeff", "\ufffd", "ß", "ſ", "K", "\u0085", "\u2028",
		"AND", "OR", "NOT", "NEAR", ":", "@", "~1", "-", "0", "NULL", "true", "\\E", "\\Q", "(?i)", "(opaque)", "$1", "{x:String}"}
}

func (u *ugly) text(most int) string {
	var b strings.Builder
	for range u.IntN(most + 1) {
		b.WriteString(choose(u.Rand, pieces()...))
	}
	return event.Text([]byte(b.String()))
}

// of gives a value for a use: mostly one that was given before.
func (u *ugly) of(use string, fresh func() string) string {
	if had := u.pool[use]; len(had) > 0 && u.IntN(4) > 0 {
		return had[u.IntN(len(had))]
	}
	s := fresh()
	u.pool[use] = append(u.pool[use], s)
	return s
}

func (u *ugly) path() string {
	return u.of("path", func() string {
		s := "/" + choose(u.Rand, "", "etc/", "srv/www/", "etc", "a/b/c/") + u.text(4)
		if u.IntN(30) == 0 {
			s += "/" + strings.Repeat("long/", 800)
		}
		return s
	})
}

func (u *ugly) argv() (out []string) {
	switch u.IntN(12) {
	case 0:
		return nil
	case 1:
		return []string{"sh", "-c", strings.Repeat(u.text(3)+"x", 30+u.IntN(300)), u.text(3)}
	}
	for range 1 + u.IntN(4) {
		out = append(out, u.of("arg", func() string { return u.text(3) }))
	}
	return out
}

func (u *ugly) address() string {
	return choose(u.Rand, "", "192.0.2.7", "::ffff:192.0.2.7", "fe80::1%eth0", "fe80::1%eth1", "fe80::1", "2001:db8::7", "::", "0.0.0.0", "::1", "::ffff:0:0", event.Unknown, "255.255.255.255", "64:ff9b::192.0.2.7")
}

func (u *ugly) time(near event.Time) event.Time {
	switch u.IntN(40) {
	case 0:
		return choose[event.Time](u.Rand, 0, 1, -1, math.MaxInt64, math.MinInt64+1, -2_208_988_800_000_000_000, -2_208_988_800_000_000_001, 9_223_286_400_000_000_000, 4_294_967_296_000_000_000)
	case 1:
		return near + event.Time(u.Int64N(2e15)-1e15)
	}
	return near + event.Time(u.Int64N(20))*500_000_000
}

// Ugly returns n records for each of so many hosts, host by host, each by its sequence, as journals have them. Hosts are
// named alike, boots and sessions and exec ids come again, and texts hold what means something to engines.
func Ugly(seed uint64, hosts, n int) (out []*event.Record) {
	u := &ugly{rand.New(rand.NewPCG(seed, 7)), map[string][]string{}}
	for h := range hosts {
		id := machine[:31] + fmt.Sprintf("%x", h%16)
		if h%3 == 2 { // one of an earlier host, begun again
			id = machine[:31] + fmt.Sprintf("%x", h-1) + event.Again + fmt.Sprint(h)
		}
		first := len(out)
		for i := range n {
			x := u.record(start+event.Time(i)*1_000_000_000, out)
			x.Host, x.HostID, x.Boot, x.Seq = choose(u.Rand, "web", "web", fmt.Sprint("web-", h)), id, fmt.Sprint("boot-", i*3/n), uint64(i+1)
			if h == 0 {
				x.Host = "web"
			}
			x.ID = fmt.Sprintf("%s/%s/%d", x.HostID, x.Boot, x.Seq)
			out = append(out, x)
		}
		// A journal takes the host's name from its options, one for each boot.
		for i := first; i < len(out); i++ {
			if i > first && out[i].Boot == out[i-1].Boot {
				out[i].Host = out[i-1].Host
			}
		}
	}
	return out
}

func (u *ugly) record(near event.Time, before []*event.Record) *event.Record {
	x := &event.Record{Time: u.time(near), Kind: choose(u.Rand, event.RecChange, event.RecChange, event.RecAttempt, event.RecExec, event.RecExit, event.RecCredential, event.RecSession, event.RecResponse)}
	if u.IntN(2) == 0 {
		x.TimeEnd = u.time(x.Time)
	}
	x.Op, x.Verdict, x.Found = choose(u.Rand, "write", "rename", "unlink", ""), choose(u.Rand, event.VerdictObserved, event.VerdictUnauthorized, event.VerdictBlocked, ""), choose(u.Rand, "", "", event.FoundAfterGap)
	x.Rule = u.of("rule", func() string { return u.text(2) })
	if u.IntN(5) > 0 {
		x.Path = u.path()
	}
	if u.IntN(4) == 0 {
		x.PathTo = u.path()
	}
	for range max(0, u.IntN(6)-3) {
		x.Meaning = append(x.Meaning, u.of("meaning", func() string { return "user `" + u.text(3) + "`" }))
	}
	if u.IntN(6) > 0 {
		x.Actor = &event.Actor{User: u.of("user", func() string { return u.text(2) }), Loginuid: event.Unset, Session: choose(u.Rand, "1", "2", "s%", "s_", ""),
			SourceIP: u.address(), SourcePort: choose[uint16](u.Rand, 0, 22, 65535)}
	}
	if u.IntN(6) > 0 {
		x.Process = &event.Process{PID: uint32(u.IntN(5)), ExecID: choose(u.Rand, "e1", "e2", "e%", "e\\", ""), Exe: u.of("exe", u.path), Argv: u.argv(), Start: near}
		for range u.IntN(4) {
			x.Process.Ancestors = append(x.Process.Ancestors, event.Ancestor{PID: uint32(u.IntN(4)), ExecID: choose(u.Rand, "e1", "e2", "e3", "e4", "")})
		}
	}
	if x.Kind == event.RecResponse && len(before) > 0 {
		x.Verdict, x.Response = event.VerdictRestored, &event.Response{Action: "restore", Outcome: choose(u.Rand, "done", "intended"), Of: before[u.IntN(len(before))].ID}
	}
	if x.Kind == event.RecChange {
		x.After = &event.State{Exists: true, Type: event.TypeRegular, Mtime: u.time(near), Target: []byte(u.text(2)), Xattrs: map[string]event.Bytes{"user." + u.text(1): event.Bytes("\x00\xff'")}}
	}
	return x
}

// pattern makes a path pattern that a record's path may match.
func (u *ugly) pattern(path string) string {
	c := []rune(path)
	if len(c) > 40 {
		c = c[:40]
	}
	cut := func() (int, int) {
		i := u.IntN(len(c) + 1)
		return i, i + u.IntN(len(c)-i+1)
	}
	if len(c) == 0 {
		return u.text(3)
	}
	switch i, j := cut(); u.IntN(9) {
	case 0:
		return path
	case 1:
		return path[:strings.LastIndexByte(path, '/')+1]
	case 2:
		return "**" + string(c[i:j]) + "**"
	case 3:
		return string(c[:i]) + "*" + string(c[j:])
	case 4:
		return string(c[:i]) + "**" + string(c[j:])
	case 5:
		return string(c[:i]) + strings.Repeat("?", j-i) + string(c[j:])
	case 6:
		return query.Quote(path)
	case 7:
		return string(c[:i]) + choose(u.Rand, "[a-z]", "[!/]", "[^a]", "[]", "[", "[*]", "[日-本]") + string(c[min(i+1, len(c)):])
	default:
		return string(c[:i]) + u.text(3) + string(c[j:])
	}
}

// part is a piece of s, in bytes: it may begin and end within a character.
func (u *ugly) part(s string) string {
	if s == "" {
		return u.text(2)
	}
	i := u.IntN(len(s))
	return s[i : i+1+u.IntN(min(12, len(s)-i))]
}

// filter asks about what r is, with one to three conditions, some of them of another record.
func (u *ugly) filter(records []*event.Record) (f query.Filter) {
	r := records[u.IntN(len(records))]
	for range 1 + u.IntN(3) {
		if u.IntN(4) == 0 {
			r = records[u.IntN(len(records))]
		}
		a, p := r.Actor, r.Process
		if a == nil {
			a = &event.Actor{User: u.text(1), SourceIP: u.address()}
		}
		if p == nil {
			p = &event.Process{Exe: u.text(2), Argv: u.argv()}
		}
		switch u.IntN(17) {
		case 0:
			f.Since = r.Time + event.Time(u.IntN(3)-1)
		case 1:
			f.Until = max(r.Time, r.TimeEnd) + event.Time(u.IntN(3)-1)
		case 2, 3, 4:
			f.Path = u.pattern(choose(u.Rand, r.Path, r.PathTo))
		case 5:
			f.User = a.User
		case 6:
			f.Source = choose(u.Rand, a.SourceIP, query.Address(a.SourceIP), "["+a.SourceIP+"]:22", a.SourceIP+":65535")
		case 7:
			f.Session = a.Session
		case 8:
			f.Exec = p.ExecID
		case 9:
			f.Below = choose(u.Rand, "e1", "e3", "e%", p.ExecID)
		case 10:
			f.Exe = choose(u.Rand, p.Exe, query.Base(p.Exe), u.part(p.Exe))
		case 11, 12:
			f.Command = u.part(strings.Join(p.Argv, " "))
		case 13:
			f.Meaning = u.part(strings.Join(r.Meaning, "\n"))
		case 14:
			f.Op, f.Kind, f.Verdict = r.Op, choose(u.Rand, r.Kind, ""), choose(u.Rand, r.Verdict, "")
		case 15:
			f.Rule, f.Found, f.Ticket = r.Rule, choose(u.Rand, r.Found, ""), choose(u.Rand, r.Detail["ticket"], "", "")
		case 16:
			f.Host = choose(u.Rand, r.Host, r.HostID, event.Machine(r.HostID), "web", "we")
			f.AfterSeq = choose(u.Rand, 0, r.Seq, 1<<63, math.MaxUint64)
		}
	}
	f.Limit = choose(u.Rand, 0, 0, 1, 5, 1000)
	return f
}

// RunUgly asks a store that holds those records of Ugly so many questions, which the seed chooses: log, who, sessions and tree.
func RunUgly(t *testing.T, s query.Store, records []*event.Record, seed uint64, questions int) {
	t.Helper()
	ctx, list := context.Background(), List(records)
	u := &ugly{rand.New(rand.NewPCG(seed, 9)), map[string][]string{}}
	answered := 0
	for range questions {
		f := u.filter(records)
		got, want := ask(t, s, f), answer(records, f)
		if !slices.Equal(ids(got), ids(want)) {
			t.Errorf("seed %d: %s: %s", seed, asked(f), apart(ids(got), ids(want)))
		}
		if len(want) > 0 {
			answered++
		}
		switch r := records[u.IntN(len(records))]; u.IntN(12) {
		case 0:
			path, host := choose(u.Rand, r.Path, r.PathTo, u.text(3)), choose(u.Rand, "", r.HostID, r.Host)
			got, err := query.Who(ctx, s, path, host)
			want, wantErr := query.Who(ctx, list, path, host)
			if (err == nil) != (wantErr == nil) || err == nil && got.ID != want.ID || err != nil && !errors.Is(err, query.ErrNotFound) {
				t.Errorf("seed %d: who changed %q on %q: %+v, %v; want %+v, %v", seed, path, host, got, err, want, wantErr)
			}
		case 1:
			got, err := query.Sessions(ctx, s, f)
			want, _ := query.Sessions(ctx, list, f) // a list does not fail
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("seed %d: sessions of %s: %+v, %v; want %+v", seed, asked(f), got, err, want)
			}
		case 2:
			id, host := choose(u.Rand, "1", "s%", "e1", "e3", "e\\"), choose(u.Rand, "", r.HostID, r.Host)
			got, nobody, err := query.Tree(ctx, s, id, host)
			want, wantNobody, wantErr := query.Tree(ctx, list, id, host)
			if fmt.Sprint(err) != fmt.Sprint(wantErr) || nobody != wantNobody || !reflect.DeepEqual(plain(got), plain(want)) {
				t.Errorf("seed %d: tree of %s on %q: %d processes, %v; want %d, %v", seed, id, host, len(got), err, len(want), wantErr)
			}
		}
	}
	if answered < questions/4 {
		t.Errorf("seed %d: only %d of %d questions have an answer", seed, answered, questions)
	}
}

func ids(records []*event.Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = r.ID
	}
	return out
}

// apart tells where two lists of ids begin to differ.
func apart(got, want []string) string {
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			return fmt.Sprintf("%d records, want %d; from number %d on %q, want %q", len(got), len(want), i, got[i:min(i+3, len(got))], want[i:min(i+3, len(want))])
		}
	}
	return "the same"
}

// asked writes the conditions of a filter.
func asked(f query.Filter) string {
	var out []string
	v := reflect.ValueOf(f)
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			out = append(out, fmt.Sprintf("%s=%q", v.Type().Field(i).Name, fmt.Sprint(v.Field(i))))
		}
	}
	return strings.Join(out, " ")
}

// plain is what a tree says, as text.
func plain(processes []*query.Process) (out []string) {
	for _, p := range processes {
		out = append(out, fmt.Sprintf("%s %s %q < %q %d %d %q %q %v %v", p.HostID, p.Boot, p.ExecID, p.Parent, p.Depth, p.PID, p.Exe, p.Argv, p.Start, p.Acts))
	}
	return out
}
