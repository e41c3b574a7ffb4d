package rollback

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/rollback/storetest"
)

func TestAFullDiskLosesNothingAndTheReserveLetsARestoreThrough(t *testing.T) {
	mnt := storetest.Temp(t)
	storetest.Run(t, "mount", "-t", "tmpfs", "-o", "size=8m", "none", mnt)
	defer storetest.Run(t, "umount", "--lazy", mnt)
	files, vault := filepath.Join(mnt, "files"), filepath.Join(mnt, "vault")
	mkdirs(t, files)
	s, err := Open(vault, Options{ReserveBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got := s.Stats().Reserve; got != 1<<20 {
		t.Fatalf("reserve %d", got)
	}
	file := filepath.Join(files, "f")
	good := storetest.Run(t, "head", "-c", "500000", "/bin/bash")
	write(t, file, good)
	v := capture(t, s, file)
	sync1(t, s)
	write(t, file, "evil")
	storetest.Sh(t, `dd if=/dev/zero of="$1/fill" bs=64k 2>/dev/null || true`, mnt)
	if _, err := s.RestorePath(t.Context(), file, v); err != nil {
		t.Fatalf("restore on a full disk: %v", err)
	}
	if read(t, file) != good {
		t.Error("the restored file differs")
	}
	if got := s.Stats().Reserve; got != 0 {
		t.Errorf("the reserve was not used: %d", got)
	}
	storetest.Sh(t, `dd if=/dev/zero of="$1/fill2" bs=4k 2>/dev/null || true`, mnt)
	other := filepath.Join("/dev/shm", filepath.Base(mnt)+"-other")
	defer os.Remove(other)
	write(t, other, storetest.Run(t, "head", "-c", "300000", "/usr/bin/perl"))
	if _, err := s.Capture(t.Context(), other, Provenance{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("capture on a full disk: %v", err)
	}
	if err := os.Remove(filepath.Join(mnt, "fill")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Capture(t.Context(), other, Provenance{}); err != nil {
		t.Errorf("capture when there is room again: %v", err)
	}
	sync1(t, s)
	if got := s.Stats().Reserve; got != 1<<20 {
		t.Errorf("the reserve was not taken back: %d", got)
	}
	clean(t, s)
}

// TestCapturesLeaveRoomForOthers: what is kept free on a full disk is for
// records and restores.
func TestCapturesLeaveRoomForOthers(t *testing.T) {
	mnt := storetest.Temp(t)
	storetest.Run(t, "mount", "-t", "tmpfs", "-o", "size=8m", "none", mnt)
	defer storetest.Run(t, "umount", "--lazy", mnt)
	s, err := Open(filepath.Join(mnt, "vault"), Options{ReserveBytes: 1 << 20, FreeFloor: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	file := filepath.Join(mnt, "f")
	write(t, file, "good")
	v := capture(t, s, file)
	sync1(t, s)
	write(t, file, "evil")
	storetest.Sh(t, `head -c 5500k /dev/zero > "$1/fill"`, mnt)
	if _, err := s.Capture(t.Context(), file, Provenance{}); !errors.Is(err, ErrNoRoom) {
		t.Errorf("capture of a file: %v", err)
	}
	if _, err := s.Absent(file, Provenance{}); !errors.Is(err, ErrNoRoom) {
		t.Errorf("capture of nothing: %v", err)
	}
	in := s.Intake()
	st := readState(t, file, in)
	if _, err := s.CaptureState(file, st, in, Provenance{}); !errors.Is(err, ErrNoRoom) {
		t.Errorf("capture of a state: %v", err)
	}
	if got := s.Stats(); got.Reserve != 1<<20 || got.Versions != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := s.RestorePath(t.Context(), file, v); err != nil || read(t, file) != "good" {
		t.Errorf("restore: %v", err)
	}
	if err := os.Remove(filepath.Join(mnt, "fill")); err != nil {
		t.Fatal(err)
	}
	write(t, file, "new")
	capture(t, s, file)
}

func TestEvidenceIsCappedAndTheOldestGoesFirst(t *testing.T) {
	for i, p := range places(t) {
		t.Run(p.name, func(t *testing.T) {
			at := time.Unix(1_700_000_000, 0)
			o := Options{EvidenceMax: 10_000, EvidenceDir: filepath.Join(filepath.Dir(p.vault), "kept"), Now: func() time.Time { at = at.Add(time.Second); return at }}
			s := open1(t, p.vault, o)
			file := filepath.Join(p.dir, "f")
			var kept []string
			for i := range 6 {
				write(t, file, strings.Repeat(fmt.Sprint(i), 3000))
				r, err := s.RestorePath(t.Context(), file, Version{Path: file})
				if err != nil {
					t.Fatal(err)
				}
				if got := read(t, r.Evidence); got != strings.Repeat(fmt.Sprint(i), 3000) {
					t.Errorf("evidence %d is %.10q", i, got)
				}
				kept = append(kept, r.Evidence)
				told := strings.Contains(r.Step.Reason, "older evidence was dropped")
				if i < 3 && told || i >= 3 && (!told || !strings.HasSuffix(r.Step.Reason, ": "+filepath.Base(kept[i-3]))) {
					t.Errorf("restore %d says %q", i, r.Step.Reason)
				}
			}
			there := 0
			for i, k := range kept {
				if _, err := os.Stat(k); err == nil {
					if there++; i < 3 {
						t.Errorf("evidence %d is still there", i)
					}
				}
			}
			if st := s.Stats(); there != 3 || st.EvidenceItems != 3 || st.Evidence != 9000 || st.EvidenceDropped != 3 {
				t.Errorf("%d there, stats %+v", there, st)
			}
			if mode := storetest.Run(t, "stat", "-c", "%a", o.EvidenceDir); mode != "700\n" {
				t.Errorf("the evidence directory has mode %s", mode)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open1(t, p.vault, o)
			if st := s.Stats(); st.Evidence != 9000 {
				t.Errorf("after reopening: %+v", st)
			}
			// More than the limit in one piece: kept where a rename does it.
			write(t, file, strings.Repeat("big", 10_000))
			r, err := s.RestorePath(t.Context(), file, Version{Path: file})
			if sameFS := i < 2; sameFS != (r.Evidence != "") || sameFS != (err == nil) || sameFS != strings.Contains(r.Step.Reason, "3 items, from "+filepath.Base(kept[3])+" to "+filepath.Base(kept[5])) {
				t.Errorf("evidence %q, error %v: %s", r.Evidence, err, r.Step.Reason)
			}
			// In the way of a trusted file it is dropped rather than left beside it.
			write(t, file, "good")
			v := capture(t, s, file)
			write(t, file, strings.Repeat("big", 10_000))
			if r, err = s.RestorePath(t.Context(), file, v); err != nil {
				t.Fatal(err)
			}
			if sameFS := i < 2; sameFS != (r.Evidence != "") || sameFS == strings.Contains(r.Step.Reason, "what was displaced was dropped") {
				t.Errorf("evidence %q, reason %q", r.Evidence, r.Step.Reason)
			}
			noLeftovers(t, p.dir)
		})
	}
}
