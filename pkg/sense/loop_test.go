package sense

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestALoopDeviceIsFoundByTheFileThatItIsMadeOf(t *testing.T) {
	sys, disk := t.TempDir(), t.TempDir()
	put := func(name, text string) {
		t.Helper()
		p := filepath.Join(sys, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(disk, "image")
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	put("block/loop900/dev", "7:900")
	put("block/loop900/loop/backing_file", image)
	put("block/loop900/loop900p1/dev", "259:5")
	put("block/loop900/loop900p1/partition", "1")
	put("block/dm-3/dev", "254:3")
	put("block/loop901/dev", "7:901") // bound to nothing
	put("block/loop902/dev", "7:902")
	put("block/loop902/loop/backing_file", image+" (deleted)")
	if err := os.MkdirAll(filepath.Join(sys, "block/loop900/loop900p1/holders"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../dm-3", filepath.Join(sys, "block/loop900/loop900p1/holders/dm-3")); err != nil {
		t.Fatal(err)
	}
	d := devices{sys: sys, mounts: []Mount{
		{ID: 1, Dev: "8:1", Root: "/", At: "/"},
		{ID: 2, Dev: "8:2", Root: "/", At: disk},
		{ID: 3, Dev: "8:2", Root: "/", At: "/other"},
		{ID: 4, Dev: "8:2", Root: "/sub", At: "/sub"},
	}}
	loops := d.loops()
	if len(loops) != 1 {
		t.Fatalf("%d loop devices, want 1", len(loops))
	}
	if want := []string{image, "/other/image"}; !slices.Equal(loops[0].files, want) {
		t.Errorf("its file is at %q, want %q", loops[0].files, want)
	}
	if got, want := slices.Sorted(maps.Keys(loops[0].devices)), []string{"254:3", "259:5", "7:900"}; !slices.Equal(got, want) {
		t.Errorf("devices %q, want %q", got, want)
	}
}
