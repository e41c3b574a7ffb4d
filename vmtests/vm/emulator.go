package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// emulatorSuite has a QEMU of 8.1 or newer for Debian 12, built against its libraries.
//
// Debian 12's own, 7.2, translates a page while another processor rewrites it: a
// guest that switches static keys (each tracepoint that is attached does) meets a
// breakpoint that is not there any more, and ends with "Oops: int3". QEMU 8.1 locks
// the page ("accel/tcg: Always lock pages before translation").
const emulatorSuite = "bookworm-backports"

// emulatorPackages hold the program, its option ROMs and its BIOS. What the program
// is linked with comes with the machine's own package qemu-system-x86.
var emulatorPackages = [...]string{"qemu-system-x86", "qemu-system-data", "seabios"}

// prepareEmulator returns the start of QEMU's command line, fetching it when the
// cache has none.
func prepareEmulator(ctx context.Context, cache string) ([]string, error) {
	dir := filepath.Join(cache, "qemu-"+fingerprint(append(emulatorPackages[:], emulatorSuite)...))
	if !exists(dir) {
		apt, err := aptFor(ctx, cache, emulatorSuite)
		if err != nil {
			return nil, fmt.Errorf("fetch qemu: %w", err)
		}
		if err := unpackPackages(ctx, apt, cache, emulatorPackages[:], dir); err != nil {
			return nil, fmt.Errorf("fetch qemu: %w", err)
		}
	}
	return []string{filepath.Join(dir, "usr/bin/qemu-system-x86_64"),
		"-L", filepath.Join(dir, "usr/share/qemu"), "-L", filepath.Join(dir, "usr/share/seabios")}, nil
}

// unpackPackages downloads Debian packages of the suites that apt's options name
// and unpacks them at tree, which appears only when it is complete. Work files
// are below dir.
func unpackPackages(ctx context.Context, apt []string, dir string, packages []string, tree string) error {
	tmp, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if _, err := output(ctx, tmp, "apt-get", slices.Concat(apt, []string{"-q", "download"}, packages)...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != len(packages) {
		return fmt.Errorf("download %v: found %d packages", packages, len(debs))
	}
	un := filepath.Join(tmp, "tree")
	for _, deb := range debs {
		if _, err := output(ctx, "", "dpkg-deb", "-x", deb, un); err != nil {
			return err
		}
	}
	if !exists(filepath.Join(un, "lib")) { // packages of a merged /usr
		if err := os.Symlink("usr/lib", filepath.Join(un, "lib")); err != nil {
			return err
		}
	}
	return os.Rename(un, tree)
}
