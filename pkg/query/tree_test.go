package query_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/query/querytest"
)

// What pstree -p would have drawn while it ran is in the expectation.
func TestTreeIsTheProcessesAsTheyBeganEachOther(t *testing.T) {
	seq := uint64(0)
	rec := func(kind, session, chain string, more func(*event.Record)) *event.Record {
		seq++
		p := strings.Fields(chain) // the process, then its ancestors: pid/exec
		ids := func(s string) (uint32, string) {
			var pid uint32
			_, _ = fmt.Sscanf(s, "%d", &pid)
			return pid, strings.TrimPrefix(s, fmt.Sprint(pid, "/"))
		}
		pid, exec := ids(p[0])
		r := &event.Record{ID: fmt.Sprintf("h/b/%d", seq), HostID: "h", Boot: "b", Seq: seq, Time: event.Time(seq), Kind: kind,
			Actor: &event.Actor{Session: session}, Process: &event.Process{PID: pid, ExecID: exec, Exe: "/bin/" + exec}}
		for _, a := range p[1:] {
			pid, exec := ids(a)
			r.Process.Ancestors = append(r.Process.Ancestors, event.Ancestor{PID: pid, ExecID: exec, Exe: "/bin/" + exec})
		}
		if more != nil {
			more(r)
		}
		return r
	}
	write := func(path string) func(*event.Record) {
		return func(r *event.Record) { r.Op, r.Path = "write", path }
	}
	all := []*event.Record{
		rec(event.RecSession, "7", "10/sshd", nil),
		rec(event.RecExec, "7", "11/bash 10/sshd", nil),
		rec(event.RecChange, "7", "13/sed 12/sudo 11/bash 10/sshd", write("/a")),
		rec(event.RecExec, "7", "12/sudo 11/bash 10/sshd", nil),
		rec(event.RecChange, "8", "20/other", write("/b")),
		rec(event.RecChange, "7", "11/bash 10/sshd", write("/c")),
		rec(event.RecExit, "7", "13/sed", func(r *event.Record) { r.Exit = &event.Exit{Code: 3} }),
		rec(event.RecChange, "7", "14/vim 11/bash 10/sshd", write("/d")),
		rec(event.RecChange, "7", "13/sed 99/elsewhere", write("/e")),                                             // reparented since
		rec(event.RecChange, "7", "10/sshd 13/sed", write("/f")),                                                  // contradicts the others
		{ID: "h/b/11", HostID: "h", Boot: "b", Seq: 11, Kind: event.RecChange, Actor: &event.Actor{Session: "7"}}, // of nobody
	}
	draw := func(id string) (string, int) {
		list, nobody, err := query.Tree(context.Background(), querytest.List(all), id, "")
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, p := range list {
			fmt.Fprintf(&b, "%s%s", strings.Repeat(" ", p.Depth), p.ExecID)
			for _, a := range p.Acts {
				b.WriteString(" " + a.Path)
			}
			if p.Exit != nil {
				fmt.Fprintf(&b, " exit %d", p.Exit.Code)
			}
			b.WriteByte('\n')
		}
		return b.String(), nobody
	}
	if got, nobody := draw("7"); got != "sshd /f\n bash /c\n  sudo\n   sed /a /e exit 3\n  vim /d\nelsewhere\n" || nobody != 1 {
		t.Errorf("%d of nobody\n%s", nobody, got)
	}
	if got, _ := draw("sudo"); got != "sudo\n sed /a /e exit 3\n" {
		t.Errorf("below sudo:\n%s", got)
	}
}

// Exec ids begin again with each boot and on each host, and are then of other sessions, or of none.
func TestTreeOfAnExecIDInSeveralBoots(t *testing.T) {
	rec := func(seq uint64, hostID, boot, session, exec string) *event.Record {
		return &event.Record{ID: fmt.Sprintf("%s/%s/%d", hostID, boot, seq), HostID: hostID, Boot: boot, Seq: seq, Time: event.Time(seq), Kind: event.RecChange, Op: "write", Path: "/" + hostID + boot,
			Actor: &event.Actor{Session: session}, Process: &event.Process{PID: 5, ExecID: exec}}
	}
	all := querytest.List{rec(1, "h", "1", "7", "x"), rec(2, "h", "1", "8", "y"), rec(3, "h", "2", "8", "x"), rec(4, "h", "2", "7", "y"), rec(5, "h", "3", "", "x"), rec(1, "i", "1", "9", "x")}
	for host, want := range map[string]string{"": "/h1 /h2 /h3 /i1", "h": "/h1 /h2 /h3", "i": "/i1"} {
		list, _, err := query.Tree(context.Background(), all, "x", host)
		var got []string
		for _, p := range list {
			for _, a := range p.Acts {
				got = append(got, a.Path)
			}
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("on %q: %s, %v, want %s", host, got, err, want)
		}
	}
}
