package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast/holdfast/pkg/event"
)

// aging is a log of segments of ten records, one record a minute, whose clock the test sets.
func aging(t *testing.T) (l *log, clock *time.Time) {
	l = newLog(t)
	now := time.Unix(1_700_000_000, 0)
	clock = &now
	l.o.SegmentBytes, l.o.HistoryEvery, l.o.FlushEvery = 1, time.Nanosecond, time.Hour
	l.o.Now, l.o.ageMost = func() time.Time { return *clock }, 1000
	return l, clock
}

// minutes appends n records, one a minute, and returns the open log.
func (l *log) minutes(clock *time.Time, n int) {
	l.t.Helper()
	j := l.open()
	for i := range n {
		*clock = clock.Add(time.Minute)
		r := sample(i)
		r.Time = event.TimeOf(*clock)
		if _, err := j.Append(r); err != nil {
			l.t.Fatal(err)
		}
		if j.Stats().Seq%10 == 0 {
			l.sync(j)
		}
	}
	l.close(j)
}

func TestOldRecordsExpireOnTheRecordAndWhatIsLeftIsProven(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(l *log)
		why  string
	}{
		{"by age", func(l *log) { l.o.KeepFor = 30 * time.Minute }, "older than 30m0s"},
		{"by size", func(l *log) { l.o.KeepBytes = 20 << 10 }, "20480 are kept"},
		{"by age, as far as it was shipped", func(l *log) {
			l.o.KeepFor, l.o.Shipped = 10*time.Minute, func(string) uint64 { return 25 }
		}, "older than 10m0s"},
		{"by size, though it was not shipped", func(l *log) {
			l.o.KeepBytes, l.o.Shipped = 20<<10, func(string) uint64 { return 5 }
		}, "were not shipped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, clock := aging(t)
			l.minutes(clock, 60)
			old := l.read()
			kept, err := latestNote(l.dir, checkpointName)
			if err != nil {
				t.Fatal(err)
			}
			early, err := Prove(context.Background(), l.dir, 3, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.set(l)
			l.minutes(clock, 20)

			left := l.read()
			first := left[0].Seq
			if first%10 != 1 || first < 11 || first > 51 {
				t.Fatalf("the first record is %d", first)
			}
			if c.name == "by age, as far as it was shipped" && first != 21 {
				t.Fatalf("record %d is the first, 21 is the first of the segment that was not shipped as a whole", first)
			}
			told := uint64(0)
			for i, e := range left {
				if e.Seq != first+uint64(i) || e.Seq <= 60 && string(e.Bytes) != string(old[e.Seq-1].Bytes) {
					t.Fatalf("record %d in place %d", e.Seq, i)
				}
				r, err := Decode(e.Bytes)
				if err != nil {
					t.Fatal(err)
				}
				if to := r.Detail["expired_to"]; to != "" {
					if told, err = strconv.ParseUint(to, 10, 64); err != nil || !strings.Contains(r.Reason, c.why) {
						t.Fatalf("%q, %v", r.Reason, err)
					}
					// the root it names is that of the log of that size
					var leaves [][]byte
					for _, o := range old[:told] {
						leaves = append(leaves, o.Bytes)
					}
					if want := tlog.Hash(merkle(leaves)).String(); r.Detail["root"] != want {
						t.Fatalf("root %s, want %s", r.Detail["root"], want)
					}
				}
			}
			if told != first-1 {
				t.Fatalf("the log begins at %d, the record tells of %d", first, told)
			}
			sum, found := l.verify(l.pub(), kept)
			if len(found) > 0 || sum.First != first || sum.Missing > 0 {
				t.Fatalf("found %q, %+v", found, sum)
			}
			// Proofs: of what is left, of what somebody kept, of the log before.
			if p, err := Prove(context.Background(), l.dir, first, nil); err != nil {
				t.Fatal(err)
			} else if _, err := p.Check(l.pub()); err != nil {
				t.Fatal(err)
			}
			if _, err := Prove(context.Background(), l.dir, first-1, nil); !errors.Is(err, ErrNoRecord) {
				t.Fatal(err)
			}
			if _, err := early.Check(l.pub()); err != nil {
				t.Fatal(err)
			}
			if _, err := ProveEarlier(l.dir, kept); err != nil {
				t.Fatal(err)
			}
			// What is missing beyond that is not covered by it.
			l.remove(segmentName(first))
			if _, found := l.verify(l.pub()); len(found) != 1 || !strings.HasPrefix(found[0], fmt.Sprintf("missing_segment %d-", first)) {
				t.Fatalf("found %q", found)
			}
		})
	}
}

func TestAnExpiryThatIsKilledIsEndedAtTheNextOpen(t *testing.T) {
	l, clock := aging(t)
	l.minutes(clock, 60)
	before := listing(t, l.dir)
	l.o.KeepFor = 30 * time.Minute
	l.minutes(clock, 20)
	first := l.read()[0].Seq
	if first == 1 {
		t.Fatal("nothing expired")
	}
	// Killed before the segments were removed: all or some are still there.
	for _, name := range []string{segmentName(1), segmentName(11)} {
		l.writeFile(name, []byte(before[filepath.Join(l.dir, name)]))
		if _, found := l.verify(l.pub()); len(found) > 0 {
			t.Fatalf("found %q", found)
		}
		if got := l.read()[0].Seq; got != first {
			t.Fatalf("the first record is %d", got)
		}
	}
	l.minutes(clock, 1)
	if segs, err := listSegments(l.dir); err != nil || segs[0] != first {
		t.Fatalf("%v, %v", segs, err)
	}
	if _, found := l.verify(l.pub()); len(found) > 0 {
		t.Fatalf("found %q", found)
	}
}

func TestAReaderPassesOverWhatExpiresBeforeIt(t *testing.T) {
	l, clock := aging(t)
	l.minutes(clock, 60)
	r, err := OpenReader(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for want := uint64(1); want <= 3; want++ {
		if e, err := r.Next(context.Background()); err != nil || e.Seq != want {
			t.Fatalf("%d, %v", e.Seq, err)
		}
	}
	l.o.KeepFor = 30 * time.Minute
	l.minutes(clock, 10)
	first := l.read()[0].Seq
	var got []uint64
	for {
		e, err := r.Next(context.Background())
		if err != nil {
			break
		}
		got = append(got, e.Seq)
	}
	// the rest of the segment in hand, and then what is there
	if len(got) < 10 || got[6] != 10 || got[7] != first || !slices.IsSorted(got) {
		t.Fatalf("read %v, the log begins at %d", got, first)
	}
}

func TestAClockSetAheadDoesNotHaveTheLogExpire(t *testing.T) {
	l, clock := aging(t)
	l.o.KeepFor, l.o.ageMost, l.o.ageIdle = 400*24*time.Hour, 0, 2*time.Hour
	l.minutes(clock, 200)
	*clock = clock.Add(10 * 365 * 24 * time.Hour)
	l.minutes(clock, 100) // ten looks and more
	if first := l.read()[0].Seq; first != 11 {
		t.Fatalf("the log begins at record %d", first)
	}
	if _, found := l.verify(l.pub()); len(found) > 0 {
		t.Fatalf("found %q", found)
	}
}

func TestNothingExpiresThatNoOneAskedFor(t *testing.T) {
	l, clock := aging(t)
	l.minutes(clock, 30)
	*clock = clock.Add(100 * 365 * 24 * time.Hour)
	l.minutes(clock, 10)
	if e := l.read(); e[0].Seq != 1 || len(e) != 40 {
		t.Fatalf("%d records from %d on", len(e), e[0].Seq)
	}
}

// TestALogWithNothingToGoOnFromIsSetAside: a daemon must record, whatever was done to its log.
func TestALogWithNothingToGoOnFromIsSetAside(t *testing.T) {
	for name, spoil := range map[string]func(l *log){
		"the key is gone":    func(l *log) { must(l.t, os.Remove(filepath.Join(l.keys, keyName))) },
		"the key is damaged": func(l *log) { must(l.t, os.WriteFile(filepath.Join(l.keys, keyName), []byte("x"), 0o600)) },
		"no checkpoint":      func(l *log) { l.remove(checkpointName); l.remove(historyName) },
		"neither hashes nor records": func(l *log) {
			l.remove(hashesName)
			l.edit(seg2, func(f [][]byte) [][]byte { f[4] = forge(l.t.(*testing.T), f[4]); return f })
		},
		"all is gone but the key": func(l *log) { must(l.t, os.RemoveAll(l.dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			l := tenEach(t)
			pub, last := l.pub(), l.read()[59]
			spoil(l)
			l.o.Continue = true
			j := l.open()
			if op := j.Opened(); !op.Created || len(op.Tampered) == 0 {
				t.Fatalf("%+v", op)
			}
			r := sample(1)
			if _, err := j.AppendDurable(context.Background(), r); err != nil {
				t.Fatal(err)
			}
			l.close(j)
			j = l.open() // the ids stay
			again := sample(2)
			if _, err := j.AppendDurable(context.Background(), again); err != nil {
				t.Fatal(err)
			}
			l.close(j)
			old, err := Decode(last.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(r.HostID, old.HostID+"~") || again.HostID != r.HostID || r.Boot != old.Boot || !strings.HasPrefix(r.ID, r.HostID+"/"+r.Boot+"/") {
				t.Fatalf("id %s after %s, then %s", r.ID, old.ID, again.ID)
			}
			if _, found := l.verify(""); len(found) > 0 {
				t.Fatalf("found %q", found)
			}
			if sum, _ := l.verify(pub); sum.OK() {
				t.Fatal("with the first public key of the earlier log nothing is wrong")
			}
			l.o.Boot = "the next boot"
			j = l.open()
			if _, err := j.AppendDurable(context.Background(), again); err != nil || again.Boot != "the next boot" || again.HostID != r.HostID || j.HostID() != r.HostID {
				t.Fatal(again.ID, err)
			}
			l.close(j)
			must(t, os.RemoveAll(l.dir)) // and a second time
			j = l.open()
			if _, err := j.AppendDurable(context.Background(), again); err != nil || again.HostID == r.HostID || strings.Count(again.HostID, "~") != 1 {
				t.Fatal(again.ID, err)
			}
			l.close(j)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
