package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Root is a root file system: what Debian packages make of a suite. Its zero value is
// the one that the scripts use.
type Root struct {
	// People is the suite of one in which people log in and services run: with systemd,
	// which starts the script as the service vm.service. "" is one without.
	People string
}

// rootSuite is the suite of the user land, the same for every kernel.
const rootSuite = "bookworm"

// rootPackages are what the scripts use beyond the essential packages.
var rootPackages = [...]string{
	"acl", "attr", "auditd", "b3sum", "bpftool", "btrfs-progs", "e2fsprogs", "ed", "git", "iproute2", "jq", "kmod", "libcap2-bin",
	"openssh-client", "openssh-server", "procps", "rsync", "sqlite3", "stress-ng", "sudo", "vim-tiny", "xfsprogs",
}

// peoplePackages are what the root file system of people has instead.
var peoplePackages = [...]string{
	"at", "b3sum", "busybox-static", "cron", "crun", "dbus-user-session", "ed", "expect", "git", "iproute2", "jq", "kmod", "libpam-systemd", "login",
	"opendoas", "openssh-client", "openssh-server", "passwd", "podman", "procps", "rsync", "screen", "socat", "sshpass", "sudo", "systemd-container",
	"systemd-sysv", "tcc", "tmux", "uidmap",
}

// rootSize and peopleSize are the sizes of the (sparse) images.
const (
	rootSize   = "1G"
	peopleSize = "2G"
)

func (r Root) made() (suite, size string, packages []string) {
	if r.People != "" {
		return r.People, peopleSize, peoplePackages[:]
	}
	return rootSuite, rootSize, rootPackages[:]
}

// prepareRoot returns the root file system image, building it when the cache
// has none made of the same list of packages.
func prepareRoot(ctx context.Context, cache string, r Root) (string, error) {
	suite, size, packages := r.made()
	img := filepath.Join(cache, "rootfs-"+fingerprint(append(slices.Clone(packages), suite, size)...)+".img")
	if exists(img) {
		return img, nil
	}
	tmp, err := os.MkdirTemp(cache, "rootfs-")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", img, err)
	}
	defer os.RemoveAll(tmp)
	if err := buildRoot(ctx, tmp, img, r); err != nil {
		return "", fmt.Errorf("build %s: %w", img, err)
	}
	return img, nil
}

func buildRoot(ctx context.Context, tmp, img string, r Root) error {
	suite, size, packages := r.made()
	// The machine's own apt settings (proxy, checks of validity) hold for the image too.
	acquire, err := output(ctx, "", "apt-config", "dump", "--no-empty", "Acquire")
	if err != nil {
		return err
	}
	conf := filepath.Join(tmp, "apt.conf")
	if err := os.WriteFile(conf, []byte(acquire), 0o644); err != nil {
		return err
	}
	tree, disk := filepath.Join(tmp, "tree"), filepath.Join(tmp, "disk")
	if _, err := output(ctx, "", "mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", "--aptopt="+conf,
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include="+strings.Join(packages, ","), suite, tree); err != nil {
		return err
	}
	if _, err := output(ctx, "", "mke2fs", "-q", "-t", "ext4", "-d", tree, disk, size); err != nil {
		return err
	}
	return os.Rename(disk, img)
}
