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

// moreModules and what they depend on are at hand in the guest's /lib/modules,
// for modprobe and for the kernel itself (mount -t xfs). They are not loaded at
// boot, because some take seconds to measure the emulated machine.
var moreModules = [...]string{"btrfs", "xfs", "vfat", "fuse", "brd", "dm_mod"}

// prepareKernel returns the files of k that QEMU boots, fetching and building them
// when the cache has none.
func prepareKernel(ctx context.Context, cache string, k Kernel) (image, initrd string, err error) {
	dir := filepath.Join(cache, "kernels", k.Name)
	image = filepath.Join(dir, "vmlinuz")
	initrd = filepath.Join(dir, "initrd-"+fingerprint(initramfsInit, strings.Join(guestModules[:], " "), strings.Join(moreModules[:], " "))+".cpio")
	if exists(image) && exists(initrd) {
		return image, initrd, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", fmt.Errorf("prepare kernel %s: %w", k.Name, err)
	}
	tree := filepath.Join(dir, "package")
	if !exists(tree) {
		if err := fetchPackage(ctx, cache, dir, k, tree); err != nil {
			return "", "", fmt.Errorf("prepare kernel %s: %w", k.Name, err)
		}
	}
	versions, err := filepath.Glob(filepath.Join(tree, "lib", "modules", "*"))
	if err != nil || len(versions) != 1 {
		return "", "", fmt.Errorf("prepare kernel %s: want one lib/modules/* in its package, found %d", k.Name, len(versions))
	}
	version := filepath.Base(versions[0])
	built := filepath.Join(versions[0], "vmlinuz")
	if !exists(built) {
		built = filepath.Join(tree, "boot", "vmlinuz-"+version) // before linux 7
	}
	if err := buildInitramfs(ctx, tree, version, initrd); err != nil {
		return "", "", fmt.Errorf("prepare kernel %s: %w", k.Name, err)
	}
	return image, initrd, copyFile(built, image)
}

// fetchPackage downloads the newest package that k names and unpacks it at
// tree, which appears only when it is complete. Since linux 7 Debian's image
// package is empty: what is built in is listed in linux-base-*, the image is in
// linux-binary-*, the modules are in linux-modules-*.
func fetchPackage(ctx context.Context, cache, dir string, k Kernel, tree string) error {
	apt, err := aptFor(ctx, cache, k.Suite)
	if err != nil {
		return err
	}
	names, err := output(ctx, "", "apt-cache", append(apt, "pkgnames", "linux-")...)
	if err != nil {
		return err
	}
	all := strings.Fields(names)
	found := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return !k.Package.MatchString(n) })
	if len(found) == 0 {
		return fmt.Errorf("find package %s in suite %s: none matches", k.Package, k.Suite)
	}
	name := slices.MaxFunc(found, compareVersions)
	packages := []string{name}
	for _, part := range []string{"linux-base-", "linux-binary-", "linux-modules-"} {
		if n := part + strings.TrimPrefix(name, "linux-image-"); slices.Contains(all, n) {
			packages = append(packages, n)
		}
	}
	return unpackPackages(ctx, apt, dir, packages, tree)
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
// of guestModules and moreModules, and the first init.
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
	order, err := copyModules(ctx, tree, version, filepath.Join(tmp, "modules"), guestModules[:])
	if err != nil {
		return err
	}
	if err := moduleTree(ctx, tree, version, tmp); err != nil {
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

// moduleTree makes root/lib/modules/version with moreModules, for modprobe.
func moduleTree(ctx context.Context, tree, version, root string) error {
	dir := filepath.Join("lib/modules", version)
	if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		if err := copyFile(filepath.Join(tree, dir, name), filepath.Join(root, dir, name)); err != nil {
			return err
		}
	}
	if _, err := copyModules(ctx, tree, version, filepath.Join(root, dir), moreModules[:]); err != nil {
		return err
	}
	_, err := output(ctx, "", "depmod", "-b", root, version)
	return err
}

// copyModules puts the modules named and their dependencies, unpacked, into dst
// and returns their file names in loading order.
func copyModules(ctx context.Context, tree, version, dst string, names []string) ([]string, error) {
	var order []string
	for _, m := range names {
		text, err := output(ctx, "", "modprobe", "-d", tree, "-S", version, "--show-depends", m)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) < 2 || f[0] != "insmod" {
				continue // "builtin name"
			}
			name, unpack := moduleName(f[1])
			if slices.Contains(order, name) {
				continue
			}
			order = append(order, name)
			if unpack == "" {
				err = copyFile(f[1], filepath.Join(dst, name))
			} else {
				var text string
				if text, err = output(ctx, "", unpack, "-dc", f[1]); err == nil {
					err = os.WriteFile(filepath.Join(dst, name), []byte(text), 0o644)
				}
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return order, nil
}

// moduleName returns the name of the module in file without its compression, and
// the program that takes this away, "" for none.
func moduleName(file string) (name, unpack string) {
	name = filepath.Base(file)
	for suffix, program := range map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"} {
		if short, ok := strings.CutSuffix(name, suffix); ok {
			return short, program
		}
	}
	return name, ""
}
