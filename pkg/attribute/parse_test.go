package attribute

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

func TestUnitsAndContainersFromControlGroups(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const id2 = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	for _, c := range []struct{ path, unit, container string }{
		{"/", "", ""},
		{"", "", ""},
		{"/init.scope", "init.scope", ""},
		{"/system.slice/nginx.service", "nginx.service", ""},
		{"/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", ""},
		{"/system.slice/nginx.service/worker", "nginx.service", ""},
		{"/system.slice/_odd.service", "odd.service", ""},
		{"/user.slice/user-1000.slice/session-3.scope", "session-3.scope", ""},
		{"/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", "user@1000.service/foo.service", ""},
		{"/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service/init.scope", ""},
		{"/user.slice/user-1000.slice/user@1000.service", "user@1000.service", ""},
		{"/docker/" + id, "", id},
		{"/system.slice/docker-" + id + ".scope", "docker-" + id + ".scope", id},
		{"/system.slice/docker-" + id + ".scope/init.scope", "docker-" + id + ".scope", id},
		{"/docker/" + id + "/docker/" + id2, "", id2},
		{"/machine.slice/libpod-" + id + ".scope", "libpod-" + id + ".scope", id},
		{"/machine.slice/libpod-" + id + ".scope/container", "libpod-" + id + ".scope", id},
		{"/machine.slice/libpod-conmon-" + id + ".scope", "libpod-conmon-" + id + ".scope", ""},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope", "user@1000.service/libpod-" + id + ".scope", id},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-" + id + ".scope", "cri-containerd-" + id + ".scope", id},
		{"/kubepods.slice/kubepods-pod1.slice/crio-" + id + ".scope", "crio-" + id + ".scope", id},
		{"/kubepods/besteffort/pod1-2-3/" + id, "", id},
		{"/default/" + id, "", id},
		{"/lxc/web", "", "web"},
		{"/lxc.payload.web/system.slice/cron.service", "", "web"},
		{"/lxc.monitor.web", "", ""},
		{"/machine.slice/machine-my\\x2dbox.scope/payload", "machine-my\\x2dbox.scope", "my-box"},
		{"/machine.slice/machine-qemu\\x2d1\\x2dvm.scope", "machine-qemu\\x2d1\\x2dvm.scope", ""},
		{"/machine.slice/systemd-nspawn@box.service/payload", "systemd-nspawn@box.service", "box"},
		{"/ecs/0123456789abcdef0123456789abcdef/" + id, "", id},
		{"/docker/buildx", "", ""},
		{"/system.slice/docker.service", "docker.service", ""},
		{"/system.slice/docker-notahash.scope", "docker-notahash.scope", ""},
	} {
		if got := unitOf(c.path); got != c.unit {
			t.Errorf("unit of %s is %q, want %q", c.path, got, c.unit)
		}
		if got := containerOf(c.path); got != c.container {
			t.Errorf("container of %s is %q, want %q", c.path, got, c.container)
		}
	}
}

func TestTheCgroupMountIsFoundInBothLayouts(t *testing.T) {
	for _, c := range []struct{ name, mounts, want string }{
		{"unified", "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup"},
		{"hybrid", "34 25 0:29 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n35 34 0:30 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n36 34 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n", "/sys/fs/cgroup/unified"},
		{"part of it first", "30 1 0:30 /a /mnt/a rw - cgroup2 none rw\n35 24 0:30 / /x\\040y rw - cgroup2 none rw\n", "/x y"},
		{"only a part of it", "30 1 0:30 /a /mnt/a rw - cgroup2 none rw\n", "/mnt/a"},
		{"v1 only", "36 34 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n", ""},
		{"garbage", "x\n - cgroup2 \n\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := filepath.Join(t.TempDir(), "mountinfo")
			if err := os.WriteFile(f, []byte(c.mounts), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := cgroupMount(f); err != nil || got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestExecIDsAreReadBackAndNothingElseIs(t *testing.T) {
	for _, k := range []event.ProcKey{
		{PID: 1, Start: 0, Execs: 1}, {PID: 4711, Start: 86_400_000_000_000, Execs: 3},
		{PID: math.MaxUint32, Start: math.MaxUint64, Execs: math.MaxUint32},
	} {
		got, err := ParseExecID(ExecID(k))
		if err != nil || got != k {
			t.Errorf("%s read back as %+v, %v", ExecID(k), got, err)
		}
	}
	if s := ExecID(event.ProcKey{}); s != "" {
		t.Errorf("the zero key is %q", s)
	}
	for _, s := range []string{"", "1", "1-2", "1-2-3-4", "01-2-3", "1-2-+3", "1-A-3", " 1-2-3", "4294967296-1-1", "0-0-0"} {
		if k, err := ParseExecID(s); err == nil {
			t.Errorf("%q read as %+v", s, k)
		}
	}
}

func FuzzParseExecID(f *testing.F) {
	f.Add("4711-1zq3k9d2-3")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseExecID(s)
		if err == nil && ExecID(k) != s {
			t.Errorf("%q read as %q", s, ExecID(k))
		}
	})
}

func TestTheStartIsFoundBehindAnyCommand(t *testing.T) {
	rest := "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21"
	for _, comm := range []string{"(cat)", "(a b) c)", "()", "(x) S 1 2 3)", "(\n)"} {
		got, err := startTicks([]byte("12 " + comm + " " + rest))
		if err != nil || got != 987654 {
			t.Errorf("%q: %d, %v", comm, got, err)
		}
	}
}

func FuzzStartTicks(f *testing.F) {
	f.Add([]byte("12 (cat) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := startTicks(b); err != nil && v != 0 && v != math.MaxUint64 {
			t.Errorf("value %d and error %v", v, err)
		}
	})
}

func FuzzCgroupPath(f *testing.F) {
	f.Add("/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service")
	f.Add("/machine.slice/machine-my\\x2dbox.scope")
	f.Fuzz(func(t *testing.T, p string) {
		if u := unitOf(p); len(u) > len(p)+1 {
			t.Errorf("unit %q of %q", u, p)
		}
		if c := containerOf(p); len(c) > len(p) {
			t.Errorf("container %q of %q", c, p)
		}
	})
}

func TestTerminalsAreNamedAsPeopleDo(t *testing.T) {
	for kernel, want := range map[string]string{"pts0": "pts/0", "pts12": "pts/12", "tty1": "tty1", "ttyS0": "ttyS0", "": "", "ptsx": "ptsx"} {
		if got := ttyText(kernel); got != want {
			t.Errorf("%s is %q, want %q", kernel, got, want)
		}
	}
}

func ExampleExecID() {
	fmt.Println(ExecID(event.ProcKey{PID: 4711, Start: 86_400_000_000_000, Execs: 3}))
	// Output: 4711-umjm17uo0-3
}
