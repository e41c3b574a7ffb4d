package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast/holdfast/pkg/event"
)

// Retention takes whole finished segments, the oldest first:
//
//	record N "records 1 to M have expired" is appended
//	a checkpoint that covers N says "first M+1"       from here on they may be missing
//	the segments below M+1 are removed                 a crash before: the next open does it
//
// The hash file keeps the leaves of all, so that each root that was ever signed, and the bytes of an
// expired record that somebody kept, can still be proven.

// expireEvery is how often is looked for what is old enough. By age a hundredth of the segments, and at
// least one, goes at a look and in an hour of the monotonic clock, none in the first hour after Open: who sets the
// clock of the host ahead cannot have all of the log expire at once, however often the daemon begins.
const expireEvery = time.Hour

// expiry is what goes next.
type expiry struct {
	to      uint64 // last record
	seq     uint64 // number of the record that tells, 0: it is not appended yet
	bytes   int64
	why     string
	newest  event.Time // about the time of record to
	unsent  uint64     // records among them that were not shipped
	removed int        // segments
}

// toExpire looks what may go; nil for nothing.
func (w *writer) toExpire(now time.Time) (*expiry, error) {
	if w.o.KeepFor <= 0 && w.o.KeepBytes <= 0 {
		return nil, nil
	}
	segs, err := listSegments(w.dir)
	if err != nil {
		return nil, err
	}
	total, x := int64(0), expiry{}
	sizes := make([]int64, len(segs))
	for i, first := range segs {
		st, err := os.Stat(filepath.Join(w.dir, segmentName(first)))
		if err != nil {
			return nil, err
		}
		sizes[i] = st.Size()
		total += sizes[i]
	}
	shipped := ^uint64(0)
	if w.o.Shipped != nil {
		shipped = w.o.Shipped(w.o.HostID)
	}
	aged, most := 0, max(1, len(segs)/100)
	if w.o.ageMost > 0 {
		most = w.o.ageMost
	} else if time.Since(w.aged) < expireEvery {
		most = 0
	}
	for i := 0; i+1 < len(segs); i++ {
		last := segs[i+1] - 1
		if last >= w.sealed {
			break
		}
		at := timeOfFirst(w.dir, segs[i+1])
		switch {
		case w.o.KeepBytes > 0 && total > w.o.KeepBytes:
			x.why = fmt.Sprintf("the segments have %d bytes, %d are kept", total, w.o.KeepBytes)
		case w.o.KeepFor > 0 && aged < most && at != 0 && at.Go().Before(now.Add(-w.o.KeepFor)) && last <= shipped:
			x.why = "older than " + w.o.KeepFor.String()
			aged++
			w.aged = time.Now()
		default:
			return x.orNil(shipped, w.first), nil
		}
		total -= sizes[i]
		x.to, x.newest, x.bytes, x.removed = last, at, x.bytes+sizes[i], x.removed+1
	}
	return x.orNil(shipped, w.first), nil
}

func (x *expiry) orNil(shipped, first uint64) *expiry {
	if x.to == 0 {
		return nil
	}
	if x.to > shipped {
		x.unsent = x.to - max(shipped, first-1)
	}
	return x
}

// timeOfFirst is the time of a segment's first record, 0 if it cannot be read.
func timeOfFirst(dir string, first uint64) (at event.Time) {
	err := eachRecordIn(dir, first, func(_ uint64, b []byte) error {
		if r, err := Decode(b); err == nil {
			at = r.Time
		}
		return errStop
	})
	if !errors.Is(err, errStop) {
		return 0
	}
	return at
}

// record tells of x.
func (x *expiry) record(now time.Time, first uint64, root tlog.Hash) *event.Record {
	r := &event.Record{
		Time: event.TimeOf(now), Kind: event.RecAgent,
		Reason: fmt.Sprintf("records %d to %d have expired: %s", first, x.to, x.why),
		Detail: map[string]string{
			"expired_from": strconv.FormatUint(first, 10), "expired_to": strconv.FormatUint(x.to, 10), "records": strconv.FormatUint(x.to-first+1, 10),
			"segments": strconv.Itoa(x.removed), "bytes": strconv.FormatInt(x.bytes, 10), "root": root.String(),
		},
	}
	if x.newest != 0 {
		r.Detail["newest"] = x.newest.String()
	}
	if x.unsent > 0 {
		r.Detail["not_shipped"] = strconv.FormatUint(x.unsent, 10)
		r.Reason += fmt.Sprintf("; %d of them were not shipped", x.unsent)
	}
	return r
}

// expire appends the record of what goes next, if anything does and it is time to look.
func (j *Journal) expire(w *writer) {
	now := w.o.Now()
	if w.expiring != nil || !w.looked.IsZero() && w.segments == w.lookedAt && now.Sub(w.looked) < expireEvery && !now.Before(w.looked) {
		return
	}
	w.looked, w.lookedAt = now, w.segments
	x, err := w.toExpire(now)
	if err != nil {
		w.o.Logger.Error("what has expired cannot be found out", "err", err)
		return
	}
	if x == nil {
		return
	}
	t, err := loadTree(hashFile{w.hashes.f}, int64(x.to))
	if err != nil {
		w.o.Logger.Error("nothing expires without its root", "err", err)
		return
	}
	seq, err := j.append(x.record(now, w.first, t.root()), false)
	if err != nil { // the queue is full: the next look
		w.o.Logger.Warn("what expires cannot be told of yet", "err", err)
		return
	}
	x.seq = seq
	w.expiring = x
}

// expired is called when a checkpoint that says first is on disk.
func (w *writer) expired() error {
	x := w.expiring
	if x == nil || w.last.First <= x.to {
		return nil
	}
	w.expiring = nil
	n, freed, err := removeBelow(w.dir, w.first)
	w.segments -= n
	w.bytes -= freed
	w.lookedAt = w.segments
	w.expiredBytes += freed
	return err
}

// removeBelow removes the segments that hold only records below first.
func removeBelow(dir string, first uint64) (n int, freed int64, err error) {
	segs, err := listSegments(dir)
	if err != nil {
		return 0, 0, err
	}
	for i := 0; i+1 < len(segs) && segs[i+1] <= first; i++ {
		name := filepath.Join(dir, segmentName(segs[i]))
		st, err := os.Stat(name)
		if err == nil {
			err = os.Remove(name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return n, freed, fmt.Errorf("remove expired segment: %w", err)
		}
		n++
		freed += st.Size()
	}
	if n == 0 {
		return 0, 0, nil
	}
	return n, freed, syncDir(dir)
}

// kept returns the segments that hold records from first on.
func kept(segs []uint64, first uint64) []uint64 {
	for len(segs) > 1 && segs[1] <= first {
		segs = segs[1:]
	}
	return segs
}
