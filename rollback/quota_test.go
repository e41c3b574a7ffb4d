package rollback

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/rollback/storetest"
)

// TestAnUndoThatMeetsAQuotaGoesOnWhenThereIsRoom: btrfs holds root to a quota, too (ext4 does
// not: linux v6.1 fs/quota/dquot.c:ignore_hardlimit).
func TestAnUndoThatMeetsAQuotaGoesOnWhenThereIsRoom(t *testing.T) {
	base := storetest.Disk(t)
	mnt := filepath.Join(base, "files")
	mkdirs(t, mnt)
	storetest.Sh(t, `truncate -s 200M "$1.img"; mkfs.btrfs -q "$1.img"; mount -o loop "$1.img" "$1"; btrfs quota enable "$1" 2>/dev/null`, mnt)
	t.Cleanup(func() { storetest.Run(t, "umount", "--lazy", mnt) })
	s := open1(t, filepath.Join(base, "vault"), Options{})
	h := &diary{t: t, s: s}
	good := map[string]string{}
	for i := range 6 {
		path := filepath.Join(mnt, fmt.Sprint("f", i))
		storetest.Sh(t, `head -c 2000000 /dev/urandom > "$1"`, path)
		good[path] = read(t, path)
		h.do("mallory", "write", path, "", `echo evil > "$1"`)
	}
	storetest.Sh(t, `sync -f "$1"; btrfs quota rescan -w "$1" >/dev/null; btrfs qgroup limit 5M 0/5 "$1"`, mnt)
	plan, err := s.PlanUndo(t.Context(), h.all, nil, UndoOptions{})
	if err != nil || len(plan.Conflicts) > 0 || len(plan.Steps) != len(good) {
		t.Fatalf("%+v, %v", plan, err)
	}
	id, err := s.Begin(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	note := func(r Result) {
		if told[r.Step.Path] == OutcomeDone {
			t.Errorf("%s is done twice", r.Step.Path)
		}
		told[r.Step.Path] = r.Outcome
	}
	err = s.Apply(t.Context(), plan, note)
	if !errors.Is(err, unix.EDQUOT) || !Passing(err) {
		t.Fatalf("with no room: %v", err)
	}
	noLeftovers(t, mnt)
	failed := 0
	for path, text := range good {
		switch got := read(t, path); {
		case told[path] == OutcomeFailed && got == "evil\n":
			failed++
		case told[path] == OutcomeDone && got == text:
		default:
			t.Errorf("%s: told %q, and there are %d bytes", path, told[path], len(got))
		}
	}
	pending, err := s.Pending()
	if err != nil || len(pending) != 1 || pending[0].ID != id {
		t.Fatalf("%+v, %v", pending, err)
	}
	storetest.Sh(t, `btrfs qgroup limit none 0/5 "$1"`, mnt)
	clear(told)
	if err := s.Continue(t.Context(), pending[0], note); err != nil {
		t.Errorf("when there is room: %v", err)
	}
	done := 0
	for path, text := range good {
		if read(t, path) != text {
			t.Errorf("%s is not as it was", path)
		}
		if told[path] == OutcomeDone {
			done++
		}
	}
	if failed == 0 || done != failed || len(told) != len(good) {
		t.Errorf("%d failed, then %d were done: %v", failed, done, told)
	}
	noLeftovers(t, mnt)
	clean(t, s)
}
