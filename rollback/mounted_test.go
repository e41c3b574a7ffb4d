package rollback

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/rollback/storetest"
)

func TestAFileThatIsMountedElsewhereIsRestoredAndTheMountIsNamed(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	file, here, there := filepath.Join(p.dir, "f"), filepath.Join(p.dir, "here"), filepath.Join(p.dir, "there")
	for _, f := range []string{file, here, there} {
		write(t, f, "good")
	}
	v := capture(t, s, file)
	storetest.Run(t, "mount", "--bind", file, here)
	defer storetest.Run(t, "umount", "--lazy", here)
	// A container: a mount namespace of its own.
	c := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-euc", `mount --bind "$1" "$2"; echo mounted; read end`, "sh", file, there)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = c.Wait() // read fails at the end of its input
	}()
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	write(t, file, "evil")
	r, err := s.RestorePath(t.Context(), file, v)
	if err != nil {
		t.Fatal(err)
	}
	if read(t, file) != "good" || read(t, here) != "evil" {
		t.Errorf("at the path %q, at the mount %q", read(t, file), read(t, here))
	}
	if !strings.Contains(r.Step.Reason, here) || !strings.Contains(r.Step.Reason, there+" of process") {
		t.Errorf("reason %q does not name both mounts", r.Step.Reason)
	}
	write(t, file, "evil")
	if r, err := s.RestorePath(t.Context(), file, v); err != nil || strings.Contains(r.Step.Reason, "mounted") {
		t.Errorf("the new inode is mounted nowhere: %q, %v", r.Step.Reason, err)
	}
}

func TestAFileThatWasAMountPointWhenItWasKeptIsWrittenInPlace(t *testing.T) {
	for _, damage := range []string{`echo longer evil >> "$1"`, `: > "$1"`, `printf evil > "$1"; chmod 666 "$1"; chattr +i "$1"`, `chmod 666 "$1"`} {
		t.Run(damage, func(t *testing.T) {
			dir := t.TempDir()
			s := open1(t, filepath.Join(t.TempDir(), "vault"), Options{})
			file, source := filepath.Join(dir, "f"), filepath.Join(dir, "source")
			write(t, file, "below")
			storetest.Sh(t, `cp /bin/true "$1"; setcap cap_net_raw=ep "$1"; mount --bind "$1" "$2"`, source, file)
			defer storetest.Run(t, "umount", "--lazy", file)
			defer storetest.Loosen(t, dir)
			v := capture(t, s, file)
			want := storetest.Truth(t, file)
			storetest.Sh(t, damage, file)
			was, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.RestorePath(t.Context(), file, v)
			if err != nil {
				t.Fatal(err)
			}
			if got := storetest.Truth(t, file); got != want {
				t.Errorf("before:\n%s\nafter:\n%s", want, got)
			}
			if got := storetest.Truth(t, source); got != want {
				t.Errorf("the mounted file was\n%s\nand is\n%s", want, got)
			}
			if r.Step.Action == ActionWrite && (!strings.Contains(r.Step.Reason, "in place") || read(t, r.Evidence) != string(was)) {
				t.Errorf("reason %q, evidence %q", r.Step.Reason, r.Evidence)
			}
			noLeftovers(t, dir)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
