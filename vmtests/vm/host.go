package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// output runs a program of the host and returns what it printed. Its standard
// error becomes part of the error.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if !strings.Contains(name, "/") {
		for _, d := range []string{"/usr/sbin", "/sbin"} { // depmod, mke2fs: not in every PATH
			if p := filepath.Join(d, name); exists(p) {
				cmd.Path, cmd.Err = p, nil
			}
		}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// aptFor returns the options that make apt look at suite: none if the machine's
// own lists have it, else those of a list of our own below cache, from the same
// mirror as the machine's.
func aptFor(ctx context.Context, cache, suite string) ([]string, error) {
	own, err := mirrors(ctx)
	if err != nil {
		return nil, err
	}
	if _, ok := own[suite]; ok {
		return nil, nil
	}
	var mirror string
	for s, site := range own {
		if !strings.Contains(s, "security") && !strings.Contains(s, "debug") {
			mirror = site
		}
	}
	if mirror == "" {
		return nil, fmt.Errorf("find a mirror for suite %s: apt of this machine has no Debian lists; run apt-get update on a Debian machine", suite)
	}
	base := filepath.Join(cache, "apt", suite)
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			return nil, err
		}
	}
	list := filepath.Join(base, "sources.list")
	text := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", mirror, suite)
	if err := os.WriteFile(list, []byte(text), 0o644); err != nil {
		return nil, err
	}
	apt := []string{"-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::State::lists=" + filepath.Join(base, "lists"), "-o", "Dir::Cache=" + filepath.Join(base, "cache")}
	_, err = output(ctx, "", "apt-get", append(apt, "-q", "update")...)
	return apt, err
}

// mirrors maps each Debian suite that apt of this machine knows to its archive.
func mirrors(ctx context.Context) (map[string]string, error) {
	text, err := output(ctx, "", "apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)", "Identifier: Packages", "Origin: Debian")
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 {
			m[f[0]] = f[1]
		}
	}
	return m, nil
}

func staticBusybox() (string, error) {
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if exists(p) {
			return p, nil
		}
	}
	return "", fmt.Errorf("find busybox: not installed (make tools installs busybox-static)")
}

// lock holds the cache directory against a second builder until the returned
// function is called.
func lock(cache string) (func(), error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("lock %s: %w", cache, err)
	}
	f, err := os.OpenFile(filepath.Join(cache, "vm.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", cache, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", cache, err)
	}
	return func() { f.Close() }, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// copyFile makes dst, complete or not at all, equal to src.
func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(dst), ".copy-")
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(out.Name(), dst)
	}
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", src, dst, err)
	}
	return nil
}

// fingerprint names what a cached file was made of.
func fingerprint(parts ...string) string {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(h[:6])
}
