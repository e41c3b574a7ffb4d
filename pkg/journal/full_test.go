package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk is a file system of its own with that many bytes. It needs root, as the daemon does.
func smallDisk(t *testing.T, size string) *log {
	t.Helper()
	d := t.TempDir()
	if err := unix.Mount("tmpfs", d, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", d, err)
		}
	})
	return &log{t: t, dir: filepath.Join(d, "journal"), keys: filepath.Join(d, "keys"), o: testOptions()}
}

// fillDisk takes all space that is left.
func fillDisk(t *testing.T, l *log) string {
	t.Helper()
	name := filepath.Join(filepath.Dir(l.dir), "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 64<<10); ; {
		if _, err := f.Write(b); errors.Is(err, unix.ENOSPC) {
			return name
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func (l *log) until(what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func TestAFullDiskLosesNothingAndCriticalRecordsStillFit(t *testing.T) {
	l := smallDisk(t, "8m")
	l.o.ReserveBytes = 1 << 20
	l.o.SegmentBytes = 200 << 10
	j := l.open()
	ctx := context.Background()
	last := uint64(0)
	for i := range 300 {
		seq, err := j.Append(sample(i))
		if err != nil {
			t.Fatal(err)
		}
		last = seq
	}
	l.sync(j)
	filler := fillDisk(t, l)

	// Ordinary records wait while the disk is full ...
	for i := range 100 {
		seq, err := j.Append(sample(i))
		if err != nil {
			t.Fatal(err)
		}
		last = seq
	}
	l.until("a failed commit", func() bool { return j.Stats().Failing })
	if s := j.Stats(); s.Errors == 0 || s.LastError == "" || s.Durable >= last || s.Reserve != 1<<20 {
		t.Fatalf("%+v", s)
	}
	// ... a critical one takes the reserve, and what is before it in the log goes along.
	seq, err := j.AppendDurable(ctx, sample(1000))
	if err != nil {
		t.Fatal(err)
	}
	if s := j.Stats(); s.Durable < seq || s.Reserve != 0 || seq != last+1 {
		t.Fatalf("record %d, %+v", seq, s)
	}
	// The reserve is spent: now the queue fills up, and what does not fit is refused, not lost silently.
	refused := 0
	for i := range 5000 {
		seq, err := j.Append(sample(i))
		switch {
		case errors.Is(err, ErrFull):
			refused++
		case err != nil:
			t.Fatal(err)
		default:
			last = seq
		}
	}
	if s := j.Stats(); refused == 0 || s.Full != uint64(refused) || s.Seq != last {
		t.Fatalf("%d refused, %+v", refused, s)
	}
	// What the disk has left is for critical records, many of them.
	critical := 0
	for err == nil && critical < 5000 {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		seq, err = j.AppendDurable(short, sample(1))
		cancel()
		if seq != last+1 {
			t.Fatalf("record %d, %v", seq, err)
		}
		last = seq
		critical++
	}
	if !errors.Is(err, context.DeadlineExceeded) || critical < 100 {
		t.Fatalf("%d critical records, then %v", critical, err)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	l.until("the queue to be written", func() bool { s := j.Stats(); return s.Durable == last && !s.Failing })
	l.until("the reserve to be taken again", func() bool { return j.Stats().Reserve == 1<<20 })
	if _, err := j.AppendDurable(ctx, sample(1)); err != nil {
		t.Fatal(err)
	}
	l.close(j)
	if sum, found := l.verify(""); len(found) > 0 || sum.Matched != last+1 {
		t.Fatalf("found %q, %+v", found, sum)
	}
}

func TestClosingOnAFullDiskSaysWhatIsNotWritten(t *testing.T) {
	l := smallDisk(t, "1m")
	j := l.open()
	if _, err := j.AppendDurable(context.Background(), sample(1)); err != nil {
		t.Fatal(err)
	}
	filler := fillDisk(t, l)
	for i := range 100 {
		if _, err := j.Append(sample(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	j = l.open()
	if op := j.Opened(); op.Size == 0 || len(op.Tampered) > 0 || op.TornBytes != 0 {
		t.Fatalf("%+v", op)
	}
	l.close(j)
	if _, found := l.verify(""); len(found) > 0 {
		t.Fatalf("found %q", found)
	}
}

func TestAnUnsignedEndIsSignedAtAnOpenOnAFullDisk(t *testing.T) {
	l := smallDisk(t, "4m")
	l.o.ReserveBytes = 1 << 20
	l.fill(5)
	file := l.readFile(seg1)
	for i := 6; i <= 205; i++ { // enough for the hashes to need another page
		r := sample(i)
		r.Seq = uint64(i)
		b, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		file = appendFrame(file, frameRecord, b)
	}
	l.writeFile(seg1, file)
	fillDisk(t, l)
	j := l.open()
	if op := j.Opened(); op.Recovered != 200 || op.Size != 205 || j.Stats().Reserve != 0 {
		t.Fatalf("%+v, %+v", op, j.Stats())
	}
	l.close(j)
	if sum, found := l.verify(""); len(found) > 0 || sum.Recovered != 200 {
		t.Fatalf("found %q, %+v", found, sum)
	}
}

func TestAJournalCannotBeBegunOnAFullDisk(t *testing.T) {
	l := smallDisk(t, "64k")
	filler := fillDisk(t, l)
	if _, err := Open(l.dir, l.keys, l.o); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	l.fill(3)
	if _, found := l.verify(""); len(found) > 0 {
		t.Fatalf("found %q", found)
	}
}
