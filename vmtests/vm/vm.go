package vm

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed initramfs.sh
var initramfsInit string

//go:embed init.sh
var guestInit string

//go:embed vm.service
var guestUnit string

// outSize is the room for the tar of /out; the disk is sparse.
const outSize = 512 << 20

// Options say what to boot and what to run in it.
type Options struct {
	Cache   string            // directory for kernels and images; required
	Kernel  Kernel            // one of kernels.txt
	Root    Root              // the user land
	Script  string            // text of a program for the guest, usually starting with #!/bin/sh
	Files   map[string]string // guest path → host path of a file or directory
	Append  string            // kernel parameters; without an lsm= among them DefaultLSM is added
	Out     string            // host directory that receives what the script left in /out; "" to drop it
	Log     string            // file that receives the serial line; "" for none
	Timeout time.Duration     // 0 for five minutes
	CPUs    int               // 0 for two
	MiB     int               // memory; 0 for 1536
	// Count makes the guest's clock count instructions: one nanosecond each, on one
	// processor, whatever CPUs says. Figures repeat to within half a percent.
	Count bool
}

// DefaultLSM is the kernel parameter with which the lsm tier works.
const DefaultLSM = "lsm=lockdown,capability,bpf"

// Result is what came out of a run.
type Result struct {
	Release string // uname -r of the guest
	Output  string // what the script printed, both streams
	Exit    int    // its exit code
	Took    time.Duration
}

// ErrNoEnd is wrapped when the guest stopped without telling an exit code: it
// crashed, hung until the time limit, or never came to the script.
var ErrNoEnd = errors.New("the guest told no end")

// Prepare builds what Run needs of k, so that a later Run only boots.
func Prepare(ctx context.Context, cache string, k Kernel, r Root) error {
	_, err := prepare(ctx, cache, k, r)
	return err
}

// machine is what a guest is made of.
type machine struct {
	emulator      []string // the start of its command line
	image, initrd string   // of the kernel
	root          string   // the image of the root file system
}

func prepare(ctx context.Context, cache string, k Kernel, r Root) (m machine, err error) {
	cache, err = filepath.Abs(cache) // programs of the host run in other directories
	if err != nil {
		return m, fmt.Errorf("prepare kernel %s: %w", k.Name, err)
	}
	unlock, err := lock(cache)
	if err != nil {
		return m, err
	}
	defer unlock()
	if m.emulator, err = prepareEmulator(ctx, cache); err != nil {
		return m, err
	}
	if m.image, m.initrd, err = prepareKernel(ctx, cache, k); err != nil {
		return m, err
	}
	m.root, err = prepareRoot(ctx, cache, r)
	return m, err
}

// Run boots o.Kernel, runs o.Script and waits for the machine to turn itself
// off. A script that fails is no error: its code is in Result.Exit. On ErrNoEnd
// the result holds what the serial line said until then.
func Run(ctx context.Context, o Options) (Result, error) {
	m, err := prepare(ctx, o.Cache, o.Kernel, o.Root)
	if err != nil {
		return Result{}, err
	}
	tmp, err := os.MkdirTemp("", "holdfast-vm-")
	if err != nil {
		return Result{}, fmt.Errorf("run vm: %w", err)
	}
	defer os.RemoveAll(tmp)
	in, out := filepath.Join(tmp, "in"), filepath.Join(tmp, "out")
	if err := packIn(in, o); err != nil {
		return Result{}, fmt.Errorf("pack files for the vm: %w", err)
	}
	if err := os.WriteFile(out, nil, 0o600); err != nil {
		return Result{}, fmt.Errorf("run vm: %w", err)
	}
	if err := os.Truncate(out, outSize); err != nil {
		return Result{}, fmt.Errorf("run vm: %w", err)
	}
	start := time.Now()
	var said io.Writer = io.Discard
	if o.Log != "" {
		f, err := os.Create(o.Log)
		if err != nil {
			return Result{}, fmt.Errorf("keep log of the vm: %w", err)
		}
		defer f.Close()
		said = f
	}
	serial, qerr := qemu(ctx, o, m, in, out, said)
	res, err := parseSerial(serial)
	res.Took = time.Since(start)
	if err != nil {
		return res, fmt.Errorf("run kernel %s: %w (qemu: %v)%s", o.Kernel.Name, err, qerr, lastLines(serial, 40))
	}
	if o.Out == "" {
		return res, nil
	}
	return res, unpackOut(out, o.Out)
}

// qemu runs the emulator to its end and returns the serial line's bytes, which said
// gets as they come.
func qemu(ctx context.Context, o Options, m machine, in, out string, said io.Writer) ([]byte, error) {
	limit := o.Timeout
	if limit == 0 {
		limit = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// A guest whose kernel fails or locks up ends at once, and says where each processor is.
	cmdline := "console=ttyS0 panic=-1 quiet loglevel=3 oops=panic softlockup_panic=1 softlockup_all_cpu_backtrace=1 watchdog_thresh=30 " + o.Append
	if o.Root.People != "" {
		cmdline += " systemd.show_status=0 systemd.wants=vm.service systemd.mask=getty.target systemd.mask=timers.target systemd.mask=serial-getty@ttyS0.service"
	}
	if !strings.Contains(o.Append, "lsm=") {
		cmdline += " " + DefaultLSM
	}
	disk := func(serial, file, more string) []string {
		return []string{"-drive", "if=none,format=raw,id=" + serial + ",file=" + file + more,
			"-device", "virtio-blk-pci,drive=" + serial + ",serial=" + serial}
	}
	// Without cmpxchg16b: QEMU (seen with 7.2) leaves wrong flags behind it, and an interrupt
	// before the next instruction that sets them ends the guest in a double fault.
	// Without AVX2: QEMU (seen with 10.0) reads more than the 16 bytes of a vector that
	// is inserted from memory, and b3sum meets the end of a mapping.
	processor := []string{"-accel", "tcg,thread=multi", "-cpu", "max,-cx16,-avx2", "-smp", strconv.Itoa(orDefault(o.CPUs, 2))}
	if o.Count {
		// erms and fsrm make one instruction of a copy of any length.
		processor = []string{"-accel", "tcg,thread=single", "-cpu", "max,-avx2,-erms,-fsrm", "-smp", "1", "-icount", "shift=0,sleep=off"}
		cmdline += " no_timer_check" // the check compares two clocks that no longer run side by side
	}
	args := slices.Concat(m.emulator[1:], processor, []string{"-nographic", "-no-reboot", "-nic", "none", "-m", strconv.Itoa(orDefault(o.MiB, 1536)),
		"-kernel", m.image, "-initrd", m.initrd, "-append", cmdline})
	args = append(args, disk("root", m.root, ",snapshot=on")...)
	args = append(args, disk("in", in, ",readonly=on")...)
	args = append(args, disk("out", out, "")...)
	cmd := exec.CommandContext(ctx, m.emulator[0], args...)
	cmd.Env = append(os.Environ(), "QEMU_MODULE_DIR="+filepath.Dir(m.emulator[0])) // not those of the machine's own QEMU
	var serial bytes.Buffer
	both := io.MultiWriter(&serial, said)
	cmd.Stdout, cmd.Stderr = both, both
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("ended after %s: %w", limit, ctx.Err())
	}
	return bytes.ReplaceAll(serial.Bytes(), []byte("\r"), nil), err
}

func orDefault(v, d int) int {
	if v == 0 {
		return d
	}
	return v
}

var (
	beginLine = regexp.MustCompile(`(?m)^@@BEGIN (\S+)\n`)
	exitLine  = regexp.MustCompile(`(?m)^@@EXIT ([0-9]+)$`)
)

// parseSerial cuts the script's output and exit code out of the serial line.
func parseSerial(b []byte) (Result, error) {
	var r Result
	begin := beginLine.FindSubmatchIndex(b)
	if begin == nil {
		return r, fmt.Errorf("boot: %w", ErrNoEnd)
	}
	r.Release = string(b[begin[2]:begin[3]])
	rest := b[begin[1]:]
	ends := exitLine.FindAllSubmatchIndex(rest, -1)
	if ends == nil {
		r.Output = string(rest)
		return r, fmt.Errorf("run script: %w", ErrNoEnd)
	}
	end := ends[len(ends)-1]
	r.Output = strings.TrimSuffix(string(rest[:end[0]]), "\n")
	code, err := strconv.Atoi(string(rest[end[2]:end[3]]))
	r.Exit = code
	return r, err
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return "\n\t" + strings.Join(lines[max(0, len(lines)-n):], "\n\t")
}

// packIn writes the tar that the guest unpacks over its root.
func packIn(dst string, o Options) error {
	f, err := os.Create(dst)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	own := map[string]string{"run/vm/init": guestInit, "run/vm/script": o.Script, "run/vm/hostname": "vm-" + o.Kernel.Name + "\n"}
	if o.Root.People != "" {
		own["run/systemd/system/vm.service"] = guestUnit
	}
	for name, text := range own {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	for _, guest := range slices.Sorted(maps.Keys(o.Files)) {
		if err := packTree(w, strings.TrimPrefix(guest, "/"), o.Files[guest]); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

// packTree adds the host's file or directory src under the name guest.
func packTree(w *tar.Writer, guest, src string) error {
	return filepath.Walk(src, func(p string, fi os.FileInfo, err error) error {
		if err != nil || fi.IsDir() {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.Join(guest, rel), Mode: int64(fi.Mode().Perm()), Size: fi.Size(), ModTime: fi.ModTime()}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
}

// unpackOut writes the regular files of the guest's /out below dir.
func unpackOut(disk, dir string) error {
	f, err := os.Open(disk)
	if err != nil {
		return fmt.Errorf("unpack files of the vm: %w", err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack files of the vm: %w", err)
		}
		name := filepath.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || !filepath.IsLocal(name) {
			continue
		}
		if err := unpackFile(r, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("unpack %s of the vm: %w", name, err)
		}
	}
}

func unpackFile(r io.Reader, dst string) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	f, err := os.Create(dst)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
