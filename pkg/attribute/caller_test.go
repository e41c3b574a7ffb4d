package attribute

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

func TestACallerIsNamedWhenTheTableKnowsWhatItRuns(t *testing.T) {
	tr, stop := child(t, "asks")
	start := startOf(t, tr.PID)
	table := New(NewSystem(uint32(os.Getpid())))
	if _, _, ok := table.Caller(tr.PID, start+1); ok {
		t.Error("a process that was never reported is named")
	}
	shell := &event.Event{Kind: event.KindExec, Key: event.ProcKey{PID: tr.PID, Start: start, Execs: 3}, Login: event.Unset, Audit: event.Unset,
		ExeDev: tr.Dev, ExeIno: tr.Ino + 1, Exe: []byte("/bin/sh"), Argv: []byte("sh\x00"), Cwd: []byte("/"), Time: start + 2}
	table.Observe(shell)
	if _, p, ok := table.Caller(tr.PID, start+3); ok {
		t.Errorf("named as %s, which it ran before", p.Exe)
	}
	now := *shell
	now.Key.Execs, now.ExeIno, now.Exe, now.Argv, now.Time = 4, tr.Ino, []byte(tr.Exe), []byte("t\x00asks\x00"), start+4
	table.Observe(&now)
	a, p, ok := table.Caller(tr.PID, start+5)
	if !ok || p.Exe != tr.Exe || p.ExecID != ExecID(now.Key) || len(p.Argv) != 2 || p.Argv[1] != "asks" {
		t.Errorf("caller %v %+v", ok, p)
	}
	if a.UID != uint32(os.Getuid()) || a.FSGID != uint32(os.Getegid()) || a.Origin == "" {
		t.Errorf("actor %+v", a)
	}
	if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", tr.PID)); err != nil || p.MntNS != ns {
		t.Errorf("mount namespace %q, want %q, %v", p.MntNS, ns, err)
	}
	stop()
	if _, _, ok := table.Caller(tr.PID, start+6); ok {
		t.Error("a process that has ended is named")
	}
}

func TestProcTellsOfAProcessWhatPsTells(t *testing.T) {
	tr, _ := child(t)
	p, err := readLive(tr.PID)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ps", "-o", "ruid=,euid=,suid=,fsuid=,rgid=,egid=,sgid=,fsgid=,comm=", "-p", fmt.Sprint(tr.PID)).Output()
	if err != nil {
		t.Fatal(err)
	}
	c := p.Creds
	got := fmt.Sprint(c.UID, c.EUID, c.SUID, c.FSUID, c.GID, c.EGID, c.SGID, c.FSGID, " ", p.Comm)
	if want := strings.Join(strings.Fields(string(out)), " "); strings.Join(strings.Fields(got), " ") != want {
		t.Errorf("got %s, ps says %s", got, want)
	}
	if p.ExeDev != tr.Dev || p.ExeIno != tr.Ino {
		t.Errorf("executable %d %d, want %d %d", p.ExeDev, p.ExeIno, tr.Dev, tr.Ino)
	}
}

func TestTerminalsAreNamedAsTheKernelDoes(t *testing.T) {
	for nr, want := range map[uint32]string{
		0: "", 136 << 8: "pts0", 136<<8 | 7: "pts7", 136<<8 | 1<<20 | 2: "pts258", 4<<8 | 1: "tty1", 4<<8 | 64: "ttyS0", 5<<8 | 1: "",
	} {
		if got := ttyName(nr); got != want {
			t.Errorf("%#x is %q, want %q", nr, got, want)
		}
	}
}
