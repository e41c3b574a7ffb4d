package sense

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMountsAreReadAsFindmntReadsThem(t *testing.T) {
	got, err := Mounts()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("findmnt", "-rn", "-o", "ID,TARGET,FSTYPE").Output()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range got {
		lines = append(lines, " "+m.At+" "+m.Type)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if want := " " + f[1] + " " + f[2]; !slices.Contains(lines, want) {
			t.Errorf("findmnt knows %q, we do not", line)
		}
	}
}

func TestALineOfMountinfoIsTakenApart(t *testing.T) {
	const table = `36 35 98:0 /mnt1 /mnt\0402 rw,noatime shared:7 master:3 propagate_from:2 - ext3 /dev/root\011x rw,errors=continue
37 36 0:5 / /proc rw - proc proc rw
a line that means nothing
`
	got, err := parseMounts(strings.NewReader(table))
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	m := got[0]
	if m.ID != 36 || m.Parent != 35 || m.Dev != "98:0" || m.Root != "/mnt1" || m.At != "/mnt 2" || m.Options != "rw,noatime" ||
		m.Type != "ext3" || m.Source != "/dev/root\tx" || m.Super != "rw,errors=continue" || m.Shared != 7 || m.Master != 3 {
		t.Errorf("%+v", m)
	}
	if !m.Watchable() || got[1].Watchable() {
		t.Errorf("watchable: ext3 %v, proc %v", m.Watchable(), got[1].Watchable())
	}
}

func TestMountsSpreadFromPeerToPeerAndToThoseThatFollow(t *testing.T) {
	table := []Mount{
		{ID: 1, At: "/", Root: "/", Dev: "8:1"},
		{ID: 2, Parent: 1, At: "/srv/www", Root: "/srv/www", Dev: "8:1", Shared: 1},
		{ID: 3, Parent: 1, At: "/peer", Root: "/srv/www", Dev: "8:1", Shared: 1},
		{ID: 4, Parent: 1, At: "/follows", Root: "/srv/www/sub", Dev: "8:1", Master: 1, Shared: 2},
		{ID: 5, Parent: 1, At: "/second", Root: "/srv/www/sub", Dev: "8:1", Master: 2},
		{ID: 6, Parent: 1, At: "/alone", Root: "/srv/www", Dev: "8:1"},
		{ID: 7, Parent: 1, At: "/other", Root: "/srv/www", Dev: "8:2", Shared: 1},
	}
	id := uint64(10)
	for _, at := range []string{"/srv/www/sub/x", "/peer/sub/x", "/follows/x", "/second/x", "/alone/sub/x", "/other/sub/x", "/peer/y", "/srv/www/z"} {
		parent := uint64(1)
		for _, m := range table {
			if m.ID < 10 && m.At != "/" && strings.HasPrefix(at, m.At+"/") {
				parent = m.ID
			}
		}
		table = append(table, Mount{ID: id, Parent: parent, At: at, Root: "/", Dev: "0:40"})
		id++
	}
	tests := []struct {
		from, to string
		want     bool
	}{
		{"/peer/sub/x", "/srv/www/sub/x", true},
		{"/srv/www/sub/x", "/follows/x", true},
		{"/peer/sub/x", "/second/x", true},
		{"/follows/x", "/srv/www/sub/x", false}, // who follows shares nothing with whom he follows
		{"/alone/sub/x", "/srv/www/sub/x", false},
		{"/other/sub/x", "/srv/www/sub/x", false},
		{"/peer/y", "/srv/www/z", false},
		{"/nothing/here", "/srv/www/z", false},
	}
	for _, tt := range tests {
		if got := Spreads(table, tt.from, tt.to); got != tt.want {
			t.Errorf("from %s to %s: %v, want %v", tt.from, tt.to, got, tt.want)
		}
	}
}

// sys makes a /sys of block devices: name → device number, what it is made of.
func sys(t *testing.T, files map[string]string, links map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range links {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(dir, to), p); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAllDevicesBelowAFileSystemAreFound(t *testing.T) {
	// an encrypted volume on a mirror of a partition and a whole disk, a loop device, and a btrfs of two disks
	dir := sys(t, map[string]string{
		"devices/sda/dev": "8:0", "devices/sda/sda1/dev": "8:1", "devices/sda/sda1/partition": "1",
		"devices/sda/sda2/dev": "8:2", "devices/sda/sda2/partition": "2",
		"devices/sdb/dev": "8:16", "devices/md0/dev": "9:0", "devices/dm-0/dev": "253:0",
		"devices/sdc/dev": "8:32", "devices/sdd/dev": "8:48", "devices/loop0/dev": "7:0",
	}, map[string]string{
		"dev/block/8:0": "devices/sda", "dev/block/8:1": "devices/sda/sda1", "dev/block/8:2": "devices/sda/sda2",
		"dev/block/8:16": "devices/sdb", "dev/block/9:0": "devices/md0", "dev/block/253:0": "devices/dm-0",
		"dev/block/8:32": "devices/sdc", "dev/block/8:48": "devices/sdd", "dev/block/7:0": "devices/loop0",
		"devices/dm-0/slaves/md0": "devices/md0", "devices/md0/slaves/sda1": "devices/sda/sda1", "devices/md0/slaves/sdb": "devices/sdb",
		"fs/btrfs/one/devices/sdc": "devices/sdc", "fs/btrfs/one/devices/sdd": "devices/sdd",
	})
	tests := []struct {
		name string
		m    Mount
		want []string
	}{
		{"a whole disk", Mount{Dev: "8:16", Type: "ext4"}, []string{"8:16"}},
		{"a partition and its disk, not the other partition", Mount{Dev: "8:1", Type: "ext4"}, []string{"8:0", "8:1"}},
		{"device mapper over md over a partition and a disk", Mount{Dev: "253:0", Type: "xfs"}, []string{"253:0", "8:0", "8:1", "8:16", "9:0"}},
		{"btrfs on two disks", Mount{Dev: "8:32", Type: "btrfs"}, []string{"8:32", "8:48"}},
		{"no device", Mount{Dev: "0:30", Type: "tmpfs"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := slices.Sorted(maps.Keys(devices{sys: dir}.below(tt.m)))
			if !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestDeviceNumbersAreTheKernels(t *testing.T) {
	for dev, want := range map[string]uint64{"8:1": 8<<20 | 1, "259:1048575": 259<<20 | 1048575} {
		if got, ok := kernelNumber(dev); !ok || got != want {
			t.Errorf("%s is %d, want %d", dev, got, want)
		}
	}
	if _, ok := kernelNumber("none"); ok {
		t.Error("a word is no device number")
	}
}
