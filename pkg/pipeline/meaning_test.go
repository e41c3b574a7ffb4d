package pipeline_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

// Hashes as mkpasswd(1) of Debian 12 writes them, of the words "first" and "second".
const (
	hashOne = "$y$j9T$Ts9iJ3PqH8DkXSUVwsEFH0$eDUn5WRUKRqMMhLFn7RBSjEHhBFcKNXpqFzWTdXSPV4"
	hashTwo = "$6$Yn1mYqFzQm3wcaxL$bHtAFXYQhTYSa7mXRv5zGmYpjQ3YtAqCqbbnPBRrqvXLJ4ESHyoBdJXC9gxQzMnCvyVWaVqWwQ1VRZ6UpbMRy1"
)

func meanings(all []event.Record) []string {
	var out []string
	for _, r := range changes(all) {
		out = append(out, r.Meaning...)
	}
	return out
}

func TestAChangeOfAnAccountFileIsToldInWords(t *testing.T) {
	for _, mode := range []string{event.ModeObserve, event.ModeRestore} {
		t.Run(mode, func(t *testing.T) {
			s := pipelinetest.NewScene(t, mode)
			s.Do(os.Mkdir(s.At("etc"), 0o755))
			s.Do(os.WriteFile(s.At("etc/passwd"), []byte("root:x:0:0:root:/root:/bin/bash\n"), 0o644))
			s.Do(os.WriteFile(s.At("etc/shadow"), []byte("root:"+hashOne+":19000:0:99999:7:::\n"), 0o600))
			s.Start()
			a := s.Actor(7)
			s.Do(a.Write("etc/passwd", "eve:x:0:0::/root:/bin/sh\n", os.O_APPEND))
			s.Do(a.Write("etc/shadow+", "root:"+hashTwo+":19700:0:99999:7:::\n", os.O_CREATE)) // as shadow-utils do it
			s.Do(a.Rename("etc/shadow+", "etc/shadow"))
			want := []string{"user `eve` added with uid 0, the same as `root`, gid 0, home /root, shell /bin/sh", "password of `root` changed, from yescrypt to SHA-512"}
			all := s.Wait("the records", func(r []event.Record) bool { return len(meanings(r)) >= len(want) })
			s.Stop()
			all, _ = s.Journal.Records()
			for _, w := range want {
				if !slices.Contains(meanings(all), w) {
					t.Errorf("%q is not among %q", w, meanings(all))
				}
			}
			said, err := json.Marshal(all)
			s.Do(err)
			for _, secret := range []string{hashOne, hashTwo, hashOne[len(hashOne)-20:], hashTwo[len(hashTwo)-20:]} {
				if strings.Contains(string(said), secret) {
					t.Errorf("%q is in a record", secret)
				}
			}
		})
	}
}

// argvs is an Attributor whose processes have hashes and keys on their command lines.
type argvs struct {
	pipeline.Attributor
	shared event.Process
}

func (a *argvs) Who(ev *event.Event) (event.Actor, event.Process) { return event.Actor{}, a.shared }

func TestHashesAndKeysOnACommandLineAreNotRecorded(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	const key = "AAAAC3NzaC1lZDI1NTE5AAAAIHbgbaxqYz1N0cPJjcJ8NpUyuVSetSwTOvMlLME5unMM"
	at := &argvs{Attributor: s.Options.Attribute, shared: event.Process{
		Argv:      []string{"usermod", "-p", "ab1cD2efGhIjk", "alice"},
		Ancestors: []event.Ancestor{{Argv: []string{"sh", "-c", "usermod -p '" + hashTwo + "' bob; echo ssh-ed25519 " + key + " x >> .ssh/authorized_keys"}}, {Argv: []string{"bash"}}},
	}}
	s.Options.Attribute = at
	s.Start()
	s.Do(s.Actor(7).Write("f", "x", os.O_CREATE))
	all := s.Wait("the record", func(r []event.Record) bool { return len(changes(r)) > 0 })
	p := changes(all)[0].Process
	if want := []string{"usermod", "-p", "(hash)", "alice"}; !slices.Equal(p.Argv, want) {
		t.Errorf("argv %q", p.Argv)
	}
	// the fingerprint is what ssh-keygen -lf says of that key
	if want := "usermod -p '(hash)' bob; echo ssh-ed25519 (SHA256:cPWFYFlGzM4rjSn1AZuGJD2d33uzNofpfrVVSzRC310) x >> .ssh/authorized_keys"; p.Ancestors[0].Argv[2] != want {
		t.Errorf("ancestor's argv %q", p.Ancestors[0].Argv)
	}
	if at.shared.Argv[2] != "ab1cD2efGhIjk" || !strings.Contains(at.shared.Ancestors[0].Argv[2], key) {
		t.Error("the attributor's own lists were changed")
	}
}
