package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Kernel is one line of kernels.txt.
type Kernel struct {
	Name    string         // what KERNEL=… selects
	Package *regexp.Regexp // matches the whole name of its Debian packages
	Suite   string         // the Debian suite that has them
}

// ErrUnknownKernel is returned for a name that kernels.txt does not have.
var ErrUnknownKernel = errors.New("unknown kernel")

// ParseKernels reads the text of kernels.txt.
func ParseKernels(text []byte) ([]Kernel, error) {
	var ks []Kernel
	sc := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("read kernels.txt:%d: want name, package pattern and suite, have %d fields", n, len(f))
		}
		if slices.ContainsFunc(ks, func(k Kernel) bool { return k.Name == f[0] }) {
			return nil, fmt.Errorf("read kernels.txt:%d: kernel %s appears twice", n, f[0])
		}
		re, err := regexp.Compile("^(?:" + f[1] + ")$")
		if err != nil {
			return nil, fmt.Errorf("read kernels.txt:%d: %w", n, err)
		}
		ks = append(ks, Kernel{Name: f[0], Package: re, Suite: f[2]})
	}
	return ks, sc.Err()
}

// Find returns the kernel called name.
func Find(ks []Kernel, name string) (Kernel, error) {
	for _, k := range ks {
		if k.Name == name {
			return k, nil
		}
	}
	return Kernel{}, fmt.Errorf("find kernel %s: %w", name, ErrUnknownKernel)
}

// guestModules are loaded before the root file system is mounted, in this
// order, each after what it depends on. Those built into a kernel are left out.
var guestModules = [...]string{"virtio_pci", "virtio_blk", "ext4", "overlay", "loop", "veth", "dummy"}

// bootFiles are what QEMU needs of one kernel.
type bootFiles struct{ image, initrd string }

// prepareKernel returns the boot files of k, fetching and building them when
// the cache has none.
func prepareKernel(ctx context.Context, cache string, k Kernel) (bootFiles, error) {
	dir := filepath.Join(cache, "kernels", k.Name)
	b := bootFiles{image: filepath.Join(dir, "vmlinuz"), initrd: filepath.Join(dir, "initrd-"+fingerprint(initramfsInit, strings.Join(guestModules[:], " "))+".cpio")}
	if exists(b.image) && exists(b.initrd) {
		return b, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return b, fmt.Errorf("prepare kernel %s: %w", k.Name, err)
	}
	tree := filepath.Join(dir, "package")
	if !exists(tree) {
		if err := fetchPackage(ctx, cache, dir, k, tree); err != nil {
			return b, fmt.Errorf("prepare kernel %s: %w", k.Name, err)
		}
	}
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return b, fmt.Errorf("prepare kernel %s: want one boot/vmlinuz-* in its package, found %d", k.Name, len(images))
	}
	version := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	if err := buildInitramfs(ctx, tree, version, b.initrd); err != nil {
		return b, fmt.Errorf("prepare kernel %s: %w", k.Name, err)
	}
	return b, copyFile(images[0], b.image)
}

// fetchPackage downloads the newest package that k names and unpacks it at
// tree, which appears only when it is complete.
func fetchPackage(ctx context.Context, cache, dir string, k Kernel, tree string) error {
	apt, err := aptFor(ctx, cache, k.Suite)
	if err != nil {
		return err
	}
	names, err := output(ctx, "", "apt-cache", append(apt, "pkgnames", "linux-image-")...)
	if err != nil {
		return err
	}
	var found []string
	for _, n := range strings.Fields(names) {
		if k.Package.MatchString(n) {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("find package %s in suite %s: none matches", k.Package, k.Suite)
	}
	name := slices.MaxFunc(found, compareVersions)
	tmp, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if _, err := output(ctx, tmp, "apt-get", append(apt, "-q", "download", name)...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("download %s: found %d packages", name, len(debs))
	}
	un := filepath.Join(tmp, "tree")
	if _, err := output(ctx, "", "dpkg-deb", "-x", debs[0], un); err != nil {
		return err
	}
	if !exists(filepath.Join(un, "lib")) { // merged-/usr packages
		if err := os.Symlink("usr/lib", filepath.Join(un, "lib")); err != nil {
			return err
		}
	}
	return os.Rename(un, tree)
}

// compareVersions orders package names by the numbers in them: 6.1.0-9 before 6.1.0-41.
func compareVersions(a, b string) int {
	num := regexp.MustCompile(`[0-9]+`)
	x, y := num.FindAllString(a, -1), num.FindAllString(b, -1)
	for i := range min(len(x), len(y)) {
		p, q := strings.TrimLeft(x[i], "0"), strings.TrimLeft(y[i], "0")
		if len(p) != len(q) {
			return len(p) - len(q)
		}
		if c := strings.Compare(p, q); c != 0 {
			return c
		}
	}
	return len(x) - len(y)
}

// buildInitramfs writes an uncompressed cpio with a static busybox, the modules
// of guestModules and the first init.
func buildInitramfs(ctx context.Context, tree, version, dst string) error {
	busybox, err := staticBusybox()
	if err != nil {
		return err
	}
	if _, err := output(ctx, "", "depmod", "-b", tree, version); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dst), "initramfs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, d := range []string{"bin", "modules", "dev", "proc", "sys", "newroot"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(busybox, filepath.Join(tmp, "bin/busybox")); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(tmp, "bin/busybox"), 0o755); err != nil {
		return err
	}
	order, err := copyModules(ctx, tree, version, filepath.Join(tmp, "modules"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "modules/order"), []byte(strings.Join(order, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "init"), []byte(initramfsInit), 0o755); err != nil {
		return err
	}
	cpio := exec.CommandContext(ctx, "sh", "-c", `cd "$1" && find . | cpio -o -H newc --quiet > "$2.tmp" && mv "$2.tmp" "$2"`, "sh", tmp, dst)
	if out, err := cpio.CombinedOutput(); err != nil {
		return fmt.Errorf("pack %s: %w: %s", dst, err, bytes.TrimSpace(out))
	}
	return nil
}

// copyModules puts guestModules and their dependencies, unpacked, into dst and
// returns their file names in loading order.
func copyModules(ctx context.Context, tree, version, dst string) ([]string, error) {
	var order []string
	for _, m := range guestModules {
		text, err := output(ctx, "", "modprobe", "-d", tree, "-S", version, "--show-depends", m)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) < 2 || f[0] != "insmod" {
				continue // "builtin name"
			}
			name := strings.TrimSuffix(filepath.Base(f[1]), ".xz")
			if slices.Contains(order, name) {
				continue
			}
			order = append(order, name)
			if err := unpackModule(ctx, f[1], filepath.Join(dst, name)); err != nil {
				return nil, err
			}
		}
	}
	return order, nil
}

func unpackModule(ctx context.Context, src, dst string) error {
	if !strings.HasSuffix(src, ".xz") {
		return copyFile(src, dst)
	}
	text, err := output(ctx, "", "xz", "-dc", src)
	if err != nil {
		return err
	}
	return os.WriteFile(dst, []byte(text), 0o644)
}
