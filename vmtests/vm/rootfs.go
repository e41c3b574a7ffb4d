package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// rootSuite is the suite of the user land, the same for every kernel.
const rootSuite = "bookworm"

// rootPackages are what the scripts use beyond the essential packages.
var rootPackages = [...]string{
	"acl", "attr", "auditd", "b3sum", "bpftool", "btrfs-progs", "e2fsprogs", "ed", "git", "iproute2", "jq", "kmod", "libcap2-bin",
	"openssh-client", "openssh-server", "procps", "rsync", "sqlite3", "stress-ng", "sudo", "vim-tiny", "xfsprogs",
}

// rootSize is the size of the (sparse) image.
const rootSize = "1G"

// prepareRoot returns the root file system image, building it when the cache
// has none made of the same list of packages.
func prepareRoot(ctx context.Context, cache string) (string, error) {
	img := filepath.Join(cache, "rootfs-"+fingerprint(append(rootPackages[:], rootSuite, rootSize)...)+".img")
	if exists(img) {
		return img, nil
	}
	tmp, err := os.MkdirTemp(cache, "rootfs-")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", img, err)
	}
	defer os.RemoveAll(tmp)
	if err := buildRoot(ctx, tmp, img); err != nil {
		return "", fmt.Errorf("build %s: %w", img, err)
	}
	return img, nil
}

func buildRoot(ctx context.Context, tmp, img string) error {
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
		"--include="+strings.Join(rootPackages[:], ","), rootSuite, tree); err != nil {
		return err
	}
	if _, err := output(ctx, "", "mke2fs", "-q", "-t", "ext4", "-d", tree, disk, rootSize); err != nil {
		return err
	}
	return os.Rename(disk, img)
}
