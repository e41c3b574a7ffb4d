package journal

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is how the disk of a test behaves.
type disk struct {
	mu    sync.Mutex
	err   error
	delay time.Duration
}

func (d *disk) set(err error, delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.delay = err, delay
}

func (d *disk) fault() error {
	d.mu.Lock()
	err, delay := d.err, d.delay
	d.mu.Unlock()
	time.Sleep(delay)
	return err
}

func TestADiskThatRefusesForAWhileLosesOnlyWhatWasRefused(t *testing.T) {
	for name, err := range map[string]error{"read-only": unix.EROFS, "failing": unix.EIO, "over quota": unix.EDQUOT} {
		t.Run(name, func(t *testing.T) {
			var d disk
			l := newLog(t)
			l.o.QueueBytes, l.o.fault = 64<<10, d.fault
			j := l.open()
			taken := uint64(0)
			for i := range 20 {
				if _, err := j.AppendDurable(context.Background(), sample(i)); err != nil {
					t.Fatal(err)
				}
				taken++
			}
			d.set(err, 0)
			refused := uint64(0)
			for i := range 500 {
				switch _, err := j.Append(sample(i)); {
				case errors.Is(err, ErrFull):
					refused++
				case err != nil:
					t.Fatal(err)
				default:
					taken++
				}
			}
			l.until("a failed commit", func() bool { return j.Stats().Failing })
			if s := j.Stats(); refused == 0 || s.Full != refused || s.Durable != 20 || s.LastError == "" {
				t.Fatalf("%d refused, %+v", refused, s)
			}
			// A critical record has room of its own in the queue.
			short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer cancel()
			if _, err := j.AppendDurable(short, sample(1)); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			taken++
			d.set(nil, 0)
			l.until("all that was taken on disk", func() bool { s := j.Stats(); return s.Durable == taken && !s.Failing })
			l.close(j)
			if sum, found := l.verify(l.pub()); len(found) > 0 || sum.Matched != taken {
				t.Fatalf("found %q, %+v", found, sum)
			}
		})
	}
}

func TestOnASlowDiskAppendsDoNotWait(t *testing.T) {
	var d disk
	l := newLog(t)
	l.o.fault = d.fault
	j := l.open()
	d.set(nil, 200*time.Millisecond) // each write and each sync
	const n = 2000
	for i := range n {
		if _, err := j.Append(sample(i)); err != nil {
			t.Fatal(err)
		}
	}
	if s := j.Stats(); s.Seq != n || s.Durable == n {
		t.Fatalf("the appends waited for the disk: %+v", s)
	}
	l.sync(j)
	if s := j.Stats(); s.Commits > 20 {
		t.Fatalf("%d commits for %d records: they were not gathered", s.Commits, n)
	}
	d.set(nil, 0)
	l.close(j)
	if sum, found := l.verify(l.pub()); len(found) > 0 || sum.Matched != n {
		t.Fatalf("found %q, %+v", found, sum)
	}
}

// TestARefusedChangeOfKeysLeavesTheOldKeyInForce: a key that cannot be changed signs on.
func TestARefusedChangeOfKeysLeavesTheOldKeyInForce(t *testing.T) {
	l := newLog(t)
	l.o.KeyEvery = time.Nanosecond
	var d disk
	l.o.fault = func() error { return nil }
	l.fill(3)
	l.o.keyFault = d.fault
	d.set(unix.ENOSPC, 0)
	before := l.secrets()
	l.fill(9)
	if after := l.secrets(); string(after[keyName]) != string(before[keyName]) {
		t.Fatal("the key was changed")
	}
	d.set(nil, 0)
	l.fill(12)
	if after := l.secrets(); string(after[keyName]) == string(before[keyName]) {
		t.Fatal("the key was not changed")
	}
	if sum, found := l.verify(l.pub()); len(found) > 0 || sum.Matched != 12 {
		t.Fatalf("found %q, %+v", found, sum)
	}
}
