package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/regular"
)

// retryEvery is the pause between attempts to commit on a disk that refuses.
const retryEvery = 500 * time.Millisecond

// keyRetryEvery is the pause after a change of keys that failed.
const keyRetryEvery = 10 * time.Second

// compactAbove is the size at which the checkpoint file is replaced by its last note.
const compactAbove = 64 << 10

// appendFile is a file that grows by whole writes: what a failed one left is cut off.
type appendFile struct {
	f     *os.File
	size  int64
	fault func() error // see Options
}

func (w *writer) openAppend(name string) (*appendFile, error) {
	a, err := openAppend(w.dir, name)
	if err == nil {
		a.fault = w.o.fault
	}
	return a, err
}

func openAppend(dir, name string) (*appendFile, error) {
	f, err := regular.Open(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, strange(err)
	}
	n, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &appendFile{f: f, size: n}, nil
}

// add writes b and, with sync, makes it durable. On an error the file is as
// before: data whose fdatasync failed cannot be trusted to be on disk and is
// written again by the next attempt.
func (a *appendFile) add(b []byte, sync bool) error {
	var err error
	if a.fault != nil {
		err = a.fault()
	}
	if err == nil {
		_, err = a.f.Write(b)
	}
	if err == nil && sync {
		err = fdatasync(a.f)
	}
	if err != nil {
		if terr := a.f.Truncate(a.size); terr != nil {
			err = errors.Join(err, terr)
		}
		return fmt.Errorf("append to %s: %w", a.f.Name(), err)
	}
	a.size += int64(len(b))
	return nil
}

// ours reports whether the file is still linked and as long as we made it.
func (a *appendFile) ours() bool {
	var st unix.Stat_t
	return unix.Fstat(int(a.f.Fd()), &st) == nil && st.Size == a.size && st.Nlink > 0
}

func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// writer is what the commit goroutine owns. Each step of a commit advances one
// of the numbers, so that a failed commit is repeated from the step that failed.
type writer struct {
	dir    string
	keyDir string
	o      Options
	signer *signer
	keyed  Checkpoint // the note that put signer in force
	keys   int        // of the chain

	keyRetry time.Time // no attempt to change the key before

	first        uint64        // records below it have expired
	floor        atomic.Uint64 // first, once a checkpoint says so; read by others
	expiring     *expiry       // what goes once a checkpoint says so
	looked       time.Time     // when was last looked for what has expired
	lookedAt     int           // segments then
	aged         time.Time     // when something last went by age
	expiredBytes int64

	seg      *appendFile // nil: the next batch begins a segment
	alien    []alien     // was in a segment's place and has no record yet
	stuck    string      // what is in a segment's place and cannot be moved
	segments int
	bytes    int64 // of finished segments

	written  uint64 // last record in a segment and synced
	hashed   tree   // the tree of all written records
	pending  []byte // stored hashes not yet in the hash file
	hashes   *appendFile
	hashless bool // the hash file was cut by others: the next Open builds it again

	sealed    uint64
	check     *appendFile
	history   *appendFile
	chain     *appendFile
	last      Checkpoint
	historyAt time.Time // of the last entry
	recovered uint64    // goes into the next checkpoint

	reserve reserve
}

// commit makes b durable and signs it. It may be called again with the same b.
func (w *writer) commit(b *batch) error {
	if n := uint64(len(b.ends)); n > 0 && w.written < b.first+n-1 {
		if err := w.write(b); err != nil {
			return err
		}
		w.written = b.first + n - 1
		w.hash(b)
	}
	if err := w.writeHashes(); err != nil {
		return err
	}
	if x := w.expiring; x != nil && w.written >= x.seq {
		w.first = max(w.first, x.to+1)
	}
	if w.sealed < w.written || w.recovered > 0 {
		if err := w.seal(false); err != nil {
			return err
		}
	}
	if err := w.expired(); err != nil { // they are in nobody's way: the next open tries again
		w.o.Logger.Error("expired segments are still there", "err", err)
	}
	if now := w.o.Now(); w.due(now) && !now.Before(w.keyRetry) {
		if err := w.rotate(); err != nil { // nothing waits for it: the records are durable
			w.keyRetry = now.Add(keyRetryEvery)
			w.o.Logger.Error("the signing key was not changed", "err", err)
		}
	}
	return nil
}

// write appends the frames to the segment in use, or to a new one.
func (w *writer) write(b *batch) error {
	if w.seg != nil && !w.seg.ours() {
		// Somebody wrote to it, cut it or unlinked it. It stays as it is, for verify to name.
		w.o.Logger.Error("segment was changed by another process", "path", w.seg.f.Name())
		w.bytes += w.seg.size
		if err := w.seg.f.Close(); err != nil {
			return err
		}
		w.seg = nil
	}
	if w.seg != nil && w.seg.size >= w.o.SegmentBytes && w.vacant(b.first) == nil {
		if err := w.finish(b.first - 1); err != nil {
			return err
		}
	}
	if w.seg == nil {
		if err := w.vacant(b.first); err != nil {
			return fmt.Errorf("begin segment: %w", err)
		}
		if err := w.begin(b.first); err != nil {
			return err
		}
	}
	return w.seg.add(b.buf.Bytes(), true)
}

// finish ends the segment in use.
func (w *writer) finish(last uint64) error {
	if err := w.seg.add(endFrame(last), true); err != nil {
		return err
	}
	w.bytes += w.seg.size
	f := w.seg.f
	w.seg = nil
	// The tree's file is only synced here: behind a finished segment nothing has to be computed again.
	return errors.Join(f.Close(), fdatasync(w.hashes.f))
}

// begin makes the segment whose first record is first.
func (w *writer) begin(first uint64) error {
	m := modes()
	if m.err != nil {
		return m.err
	}
	head, err := m.enc.Marshal(segmentHead{Version: 1, HostID: w.o.HostID, First: first})
	if err != nil {
		return fmt.Errorf("encode segment header: %w", err)
	}
	name := filepath.Join(w.dir, segmentName(first))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("begin segment: %w", err)
	}
	s := &appendFile{f: f, fault: w.o.fault}
	err = s.add(appendFrame(nil, frameHeader, head), true)
	if err == nil {
		err = syncDir(w.dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("begin segment: %w", err), f.Close(), os.Remove(name))
	}
	w.seg = s
	w.segments++
	return nil
}

// hash adds the batch's records to the tree.
func (w *writer) hash(b *batch) {
	all, from := b.buf.Bytes(), 0
	for _, to := range b.ends {
		w.pending = w.hashed.add(tlog.RecordHash(all[from+frameHead:to]), w.pending)
		from = to
	}
}

func (w *writer) writeHashes() error {
	if len(w.pending) == 0 {
		return nil
	}
	if !w.hashless && !w.hashes.ours() {
		w.o.Logger.Error("hash file was changed by another process", "path", w.hashes.f.Name())
		w.hashless = true
	}
	if !w.hashless {
		if err := w.hashes.add(w.pending, false); err != nil {
			return err
		}
	}
	w.pending = w.pending[:0]
	return nil
}

// seal signs the tree as it is. A checkpoint file that others damaged is written anew.
func (w *writer) seal(history bool) error {
	now := w.o.Now()
	c := Checkpoint{Origin: origin(w.o.HostID), Size: uint64(w.hashed.size), Root: w.hashed.root(), Time: event.TimeOf(now), Recovered: w.recovered, First: w.first}
	n, err := c.sign(w.signer)
	if err != nil {
		return err
	}
	n = append(n, '\n')
	if w.check.size > compactAbove || !w.check.ours() {
		err = w.compact(n)
	} else {
		err = w.check.add(n, true)
	}
	if err != nil {
		return err
	}
	history = history || w.last.First != w.first
	w.sealed, w.last = c.Size, c
	w.floor.Store(w.first)
	if history || w.recovered > 0 || now.Sub(w.historyAt) >= w.o.HistoryEvery || now.Before(w.historyAt) {
		if err := w.history.add(n, true); err != nil {
			return err
		}
		w.historyAt = now
	}
	w.recovered = 0
	return nil
}

// compact replaces the checkpoint file by one that holds only n.
func (w *writer) compact(n []byte) error {
	if err := writeFile(w.dir, checkpointName, n, 0o600); err != nil {
		return err
	}
	a, err := w.openAppend(checkpointName)
	if err != nil {
		return err
	}
	err = w.check.f.Close()
	w.check = a
	return err
}

func (w *writer) close() error {
	var err error
	if w.sealed == uint64(w.hashed.size) && w.sealed > 0 {
		err = w.seal(true) // the history ends with the last word
	}
	if w.seg != nil {
		err = errors.Join(err, w.seg.f.Close())
	}
	for _, a := range []*appendFile{w.hashes, w.check, w.history, w.chain} {
		err = errors.Join(err, fdatasync(a.f), a.f.Close())
	}
	return errors.Join(err, w.reserve.close())
}

// run is the commit goroutine: it takes what is queued when it is due and
// repeats what fails until it succeeds or the journal closes.
func (j *Journal) run(w *writer) {
	defer close(j.done)
	cur := new(batch)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	failing, retry := false, time.Time{}
	for {
		j.mu.Lock()
		closing, now := j.closing, j.queue.now
		wait := time.Hour
		if len(j.queue.ends) > 0 {
			wait = j.o.FlushEvery - time.Since(j.queue.since)
		}
		if len(j.queue.ends) == 0 && w.reserve.lacking() {
			wait = time.Second
		}
		if failing {
			wait, now = time.Until(retry), j.queue.must && w.reserve.held > 0
		} else if w.reserve.spent && !j.queue.must {
			wait, now = retryEvery, false // what is left of the reserve is for critical records
		}
		if closing || now || wait <= 0 {
			if len(cur.ends) == 0 {
				cur, j.queue = j.queue, cur
			}
			cur.must = cur.must || closing || j.queue.must
			j.mu.Unlock()
		} else {
			j.mu.Unlock()
			timer.Reset(wait)
			select {
			case <-j.kick:
			case <-timer.C:
				j.refill(w)
				if !failing {
					j.expire(w)
				}
			}
			continue
		}
		err := w.commit(cur)
		if errors.Is(err, unix.ENOSPC) && cur.must && w.reserve.release() {
			err = w.commit(cur)
		}
		if err == nil {
			cur.reset()
			w.reserve.refill()
			if !closing {
				j.tell(w)
				j.expire(w)
			}
		}
		failing, retry = err != nil, time.Now().Add(retryEvery)
		j.publish(w, err)
		if closing && (err != nil || j.drained()) {
			j.end(w, cur, err)
			return
		}
	}
}

// refill takes the reserve again on an idle journal.
func (j *Journal) refill(w *writer) {
	if !w.reserve.lacking() {
		return
	}
	spent := w.reserve.spent
	w.reserve.refill()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stats.Reserve = w.reserve.held
	if spent && !w.reserve.spent {
		j.stats.Failing = false // if commits still fail, the next one says so
		j.queue.now = len(j.queue.ends) > 0
	}
}

func (j *Journal) drained() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue.ends) == 0
}

// publish tells the callers how the commit went.
func (j *Journal) publish(w *writer, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := &j.stats
	if err != nil {
		s.Errors++
		s.LastError = err.Error()
		if !s.Failing {
			j.o.Logger.Error("commit fails and is repeated", "err", err)
		}
	} else {
		if s.Failing {
			j.o.Logger.Info("commit works again")
		}
		s.Commits++
	}
	s.Failing = err != nil || w.reserve.spent
	if s.Failing && s.LastError == "" {
		s.LastError = unix.ENOSPC.Error() // what the reserve was spent for
	}
	w.fill(s)
	close(j.changed)
	j.changed = make(chan struct{})
}

func (w *writer) fill(s *Stats) {
	s.Durable, s.CheckpointSize, s.CheckpointTime = w.sealed, w.last.Size, w.last.Time
	s.Keys, s.KeyTime = w.keys, w.keyed.Time
	s.First, s.Expired = w.first, w.expiredBytes
	s.Segments, s.Bytes, s.Reserve = w.segments, w.bytes, w.reserve.held
	if w.seg != nil {
		s.Bytes += w.seg.size
	}
}

// end closes the files and says what is left unwritten.
func (j *Journal) end(w *writer, cur *batch, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if left := len(cur.ends) + len(j.queue.ends); left > 0 {
		err = fmt.Errorf("close journal: %d records not written: %w", left, err)
	}
	err = errors.Join(err, w.close(), j.lock.Close())
	j.broken = ErrClosed
	if err != nil {
		j.broken = err
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d.seg", first) }

// parseSegmentName returns the first record of the segment called name.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".seg")
	if !ok || len(digits) != 20 {
		return 0, false
	}
	var n uint64
	for _, c := range digits {
		if c < '0' || c > '9' || n > (1<<62)/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, n > 0
}
