package sense_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// login starts a program inside a login of its own.
func login(t *testing.T, script string, files ...*os.File) *exec.Cmd {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", "echo 65534 >/proc/self/loginuid; "+script)
	c.ExtraFiles = files
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // it may have ended
		_ = c.Wait()
	})
	return c
}

// await returns the events that want chooses, as soon as there are n.
func (w *watcher) await(t *testing.T, n int, want func(e *seen) bool) []seen {
	t.Helper()
	var out []seen
	for range 500 {
		out = nil
		w.mu.Lock()
		for i := range w.events {
			if want(&w.events[i]) {
				out = append(out, w.events[i])
			}
		}
		w.mu.Unlock()
		if len(out) >= n {
			return out
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%d events, want %d: %+v", len(out), n, out)
	return nil
}

// A program that serves a login may ask others over the network, a directory of users
// for one: where the login came from is who connected, and not who was connected to.
func TestOnlyConnectionsThatWereAcceptedAreLearnt(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			l, err := net.Listen(network, map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network])
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			out, err := net.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			in, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			var files []*os.File
			for _, c := range []net.Conn{out, in} {
				f, err := c.(*net.TCPConn).File()
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				defer c.Close()
				files = append(files, f)
			}
			c := login(t, "exec sleep 60", files...)
			w := watch(t) // the login is older
			for !strings.Contains(commOf(c.Process.Pid), "sleep") {
				time.Sleep(time.Millisecond)
			}
			if err := w.Learn(); err != nil {
				t.Fatal(err)
			}
			mine := func(kind event.Kind) func(e *seen) bool {
				return func(e *seen) bool { return e.Kind == kind && int(e.Key.PID) == c.Process.Pid }
			}
			w.await(t, 1, mine(event.KindSocket))
			time.Sleep(50 * time.Millisecond) // one that must not come
			var peers []string
			for _, e := range w.await(t, 1, mine(event.KindSocket)) {
				peers = append(peers, e.Peer.String())
			}
			if got, want := fmt.Sprint(peers), fmt.Sprint([]string{in.RemoteAddr().String()}); got != want {
				t.Errorf("connections %s, want %s: %s was connected to", got, want, out.RemoteAddr())
			}
		})
	}
}

func commOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestProcessesTellTheirEndTheirScriptAndTheirCredentials(t *testing.T) {
	w := watch(t)
	if err := w.Learn(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nexit 7\n"
	if err := os.WriteFile(dir+"/script", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c := login(t, "cd "+dir+`; ./script; setpriv --reuid 65534 --regid 65533 --clear-groups sh -c 'kill -9 $$'; exit 3`)
	if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != 3 {
		t.Fatalf("it ended with %v", err)
	}
	in := func(kind event.Kind) []seen {
		w.await(t, 1, func(e *seen) bool { return e.Kind == event.KindExit && int(e.Key.PID) == c.Process.Pid })
		return w.await(t, 0, func(e *seen) bool { return e.Kind == kind && e.Login == 65534 })
	}
	var ends []int32
	for _, e := range in(event.KindExit) {
		ends = append(ends, e.Ret)
	}
	if got, want := fmt.Sprint(ends), fmt.Sprint([]int32{7 << 8, int32(unix.SIGKILL), 3 << 8}); got != want {
		t.Errorf("statuses %s, want %s", got, want)
	}
	var as []string
	for _, e := range in(event.KindCred) {
		if e.CredHow == event.CredDone || e.CredHow == event.CredCommit {
			as = append(as, fmt.Sprintf("%d:%d %d", e.After.UID, e.After.GID, e.Target.PID))
		}
	}
	if !strings.Contains(fmt.Sprint(as), "65534:65533 0") {
		t.Errorf("credentials %q", as)
	}
	if begun := in(event.KindSession); len(begun) != 1 || int(begun[0].Key.PID) != c.Process.Pid {
		t.Errorf("beginnings of the session: %+v", begun)
	}
	scripts := w.await(t, 0, func(e *seen) bool { return e.Kind == event.KindExec && e.script != "" && e.Login == 65534 })
	if len(scripts) != 1 || scripts[0].script != "./script" {
		t.Errorf("%+v", scripts)
	}
}
