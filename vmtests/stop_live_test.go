//go:build live

package vmtests

import (
	"os/exec"
	"strings"
	"testing"
)

// holdfast stop ends the daemon in order; its record names the reason and who
// asked, with the chain. A stop without a reason, or of nobody, is refused.
func TestLiveStopNamesWhoAskedAndWhy(t *testing.T) {
	m := newMachine(t)
	tree := m.path("tree")
	m.must("mkdir", tree)
	m.start(tree + "=observe")
	if !strings.Contains(string(m.statusJSON()), `"guard":{"on":false,"reason":"tier tracepoint cannot refuse"}`) {
		t.Errorf("status does not say why the guard is off: %s", m.statusJSON())
	}
	none := m.command("stop", "--wait", "--reason", "  ")
	if out, err := none.CombinedOutput(); err == nil || none.ProcessState.ExitCode() != 2 {
		t.Errorf("a stop without a reason: %v\n%s", err, out)
	}
	stop := m.command("stop", "--wait", "--reason", "moving house")
	out := m.output(exec.Command("bash", append([]string{"-c", `"$@"; true`, "bash"}, stop.Args...)...))
	t.Logf("%s", out)
	err := <-m.done
	if m.done <- err; err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	m.logTo("log.ndjson")
	for _, err := range check(m.dir, "records log.ndjson\n"+
		"record kind=agent op=stop reason~moving.house process.exe="+m.bin["holdfast"]+" chain=bash,holdfast actor.uid=0 process.exec_id~.+ process.exe_hash~blake3:.+\n"+
		"record kind=agent reason=stopped\n") {
		t.Error(err)
	}
	m.output(m.command("verify"))
	again := m.command("stop", "--wait", "--reason", "twice")
	if out, err := again.CombinedOutput(); err == nil || again.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "not running") {
		t.Errorf("a stop of nobody: %v\n%s", err, out)
	}
}
