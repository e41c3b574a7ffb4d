package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// What Open and Append refuse with.
var (
	// ErrLocked: another process writes this journal.
	ErrLocked = errors.New("journal is in use by another process")
	// ErrOtherHost: the directory or the key was made on a host with another id.
	ErrOtherHost = errors.New("journal belongs to another host")
	// ErrTampered: records that a checkpoint covers are missing or differ.
	ErrTampered = errors.New("journal does not match its signed checkpoints")
	// ErrKey: the key that signed the journal is missing or another.
	ErrKey = errors.New("journal is signed by a key that is not there")
	// ErrFull: too much is waiting to be written; the record was not taken.
	ErrFull = errors.New("journal queue is full")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("journal is closed")
)

// Options of Open. HostID is required, the rest has defaults.
type Options struct {
	HostID string // machine id: part of each record's id, name of the log; see Journal.HostID
	Host   string // host name
	Boot   string // boot id

	Now          func() time.Time           // time.Now
	SegmentBytes int64                      // begin a new segment above this size; 64 MiB
	FlushEvery   time.Duration              // longest wait of a record for its commit; 100 ms
	HistoryEvery time.Duration              // shortest time between two entries of the history; 1 min
	KeyEvery     time.Duration              // for how long a key signs, while records come; 1 h, negative: for ever
	QueueBytes   int                        // waiting bytes above which Append refuses; 16 MiB
	KeepFor      time.Duration              // segments whose records are older expire; 0: never
	KeepBytes    int64                      // the oldest segments expire while all have more bytes; 0: never
	Shipped      func(hostID string) uint64 // last record of the log that was shipped: younger ones do not expire by age; nil: none are shipped
	ReserveBytes int64                      // space kept for critical records; 4 MiB, negative for none
	Continue     bool                       // go on behind tampered records, leaving them as they are
	Logger       *slog.Logger               // slog.DiscardHandler

	ageMost         int           // segments that go by age at a look, for tests
	ageIdle         time.Duration // since when Open takes nothing to have gone by age, for tests
	fault, keyFault func() error  // of a disk that tests make: asked before each write, and each change of keys
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 64 << 20
	}
	if o.FlushEvery <= 0 {
		o.FlushEvery = 100 * time.Millisecond
	}
	if o.HistoryEvery <= 0 {
		o.HistoryEvery = time.Minute
	}
	if o.KeyEvery == 0 {
		o.KeyEvery = time.Hour
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = 16 << 20
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 4 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Opened tells what Open found and did.
type Opened struct {
	Created       bool      // the log was begun
	Size          uint64    // records in the log
	Recovered     uint64    // whole records that no checkpoint covered; the one made now does
	TornBytes     int64     // bytes cut off behind the last whole record
	TornRecords   int       // records in them: at least this many are lost
	TornFile      string    // where the bytes were kept, "" if nothing was cut
	HashesRebuilt bool      // the hash file was short or damaged and gives the signed root again
	Tampered      []Problem // with Options.Continue: what does not match
}

// Stats are counters and sizes of a journal in use.
type Stats struct {
	Seq            uint64     `json:"seq"`     // last number given
	Durable        uint64     `json:"durable"` // last number under a signed checkpoint on disk
	First          uint64     `json:"first"`   // the oldest that has not expired
	Segments       int        `json:"segments"`
	Bytes          int64      `json:"bytes"`   // of all segments
	Expired        int64      `json:"expired"` // bytes of segments removed since Open
	Queued         int        `json:"queued"`
	CheckpointSize uint64     `json:"checkpoint_size"`
	CheckpointTime event.Time `json:"checkpoint_time,omitzero"`
	Keys           int        `json:"keys"`              // signing keys so far
	KeyTime        event.Time `json:"key_time,omitzero"` // since when the present one signs
	Commits        uint64     `json:"commits"`
	Full           uint64     `json:"full"`   // records refused because the queue was full
	Errors         uint64     `json:"errors"` // failed attempts to commit; nothing is lost by one
	LastError      string     `json:"last_error,omitempty"`
	Failing        bool       `json:"failing"` // the last attempt failed and is being repeated
	DiskFree       uint64     `json:"disk_free"`
	Reserve        int64      `json:"reserve"` // bytes still held back for critical records
}

// Journal is an open log, the only writer of its directory.
type Journal struct {
	dir    string
	o      Options
	prefix string // of ids
	opened Opened
	lock   *os.File
	kick   chan struct{}
	done   chan struct{}
	floor  *atomic.Uint64 // the writer's

	mu      sync.Mutex
	queue   *batch
	next    uint64
	closing bool
	broken  error         // set when the writer has ended
	changed chan struct{} // closed at each commit
	stats   Stats
}

// batch is a run of encoded frames with consecutive numbers.
type batch struct {
	buf   bytes.Buffer
	ends  []int // end of each frame in buf
	first uint64
	since time.Time // when the oldest was appended
	now   bool      // do not wait for FlushEvery
	must  bool      // holds a critical record: the reserve may be spent
}

func (b *batch) reset() {
	b.buf.Reset()
	if b.buf.Cap() > keptBytes {
		b.buf = bytes.Buffer{} // a burst is over
	}
	b.ends, b.first, b.since, b.now, b.must = b.ends[:0], 0, time.Time{}, false, false
}

const (
	commitBytes = 1 << 20 // this much waiting is committed at once
	keptBytes   = 4 << 20 // a buffer that has grown beyond this is let go
)

// Append gives r its ID, Host, HostID, Boot and Seq and queues it. It never
// blocks on the disk: the record is durable within FlushEvery and the time of a
// commit, see Stats.Durable. The order of calls is the order of numbers. ErrFull
// means that r was not taken and has no number; the caller declares the loss.
// r is encoded before Append returns and may be changed afterwards.
func (j *Journal) Append(r *event.Record) (uint64, error) { return j.append(r, false) }

// AppendDurable is Append for critical records: it returns once the record is on
// disk under a signed checkpoint. When the disk is full it spends the reserve.
// If ctx ends first the record stays queued and its number is returned with ctx's error.
func (j *Journal) AppendDurable(ctx context.Context, r *event.Record) (uint64, error) {
	seq, err := j.append(r, true)
	if err != nil {
		return 0, err
	}
	return seq, j.wait(ctx, seq)
}

// Sync returns when everything appended before is on disk under a signed checkpoint.
func (j *Journal) Sync(ctx context.Context) error {
	j.mu.Lock()
	seq := j.next - 1
	j.queue.now = true
	j.mu.Unlock()
	j.wake()
	return j.wait(ctx, seq)
}

func (j *Journal) append(r *event.Record, critical bool) (uint64, error) {
	m := modes()
	if m.err != nil {
		return 0, fmt.Errorf("append: %w", m.err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing || j.broken != nil {
		return 0, fmt.Errorf("append: %w", ErrClosed)
	}
	b := j.queue
	if b.buf.Len() >= j.limit(critical) {
		j.stats.Full++
		return 0, fmt.Errorf("append: %w", ErrFull)
	}
	seq := j.next
	r.Host, r.HostID, r.Boot, r.Seq = j.o.Host, j.o.HostID, j.o.Boot, seq
	r.ID = j.prefix + strconv.FormatUint(seq, 10)
	at := b.buf.Len()
	b.buf.Write(make([]byte, frameHead))
	err := m.enc.MarshalToBuffer(r, &b.buf)
	if n := b.buf.Len() - at - frameHead; err == nil && n > maxPayload {
		err = ErrTooLarge
	}
	if err != nil {
		b.buf.Truncate(at)
		return 0, fmt.Errorf("append: %w", err)
	}
	sealFrame(b.buf.Bytes()[at:], frameRecord)
	if len(b.ends) == 0 {
		b.first, b.since = seq, time.Now()
	}
	b.ends = append(b.ends, b.buf.Len())
	j.next++
	b.must = b.must || critical
	if now := critical || b.buf.Len() >= commitBytes; now && !b.now || len(b.ends) == 1 {
		b.now = b.now || now
		j.wake()
	}
	return seq, nil
}

// limit is how many bytes may wait. While commits fail ordinary records may fill
// a quarter of the reserve, and once it is spent a 64th of it, so that critical ones still fit on the
// disk behind them; these have a quarter of the queue more for themselves.
func (j *Journal) limit(critical bool) int {
	n := j.o.QueueBytes
	switch {
	case critical:
		n += n / 4
	case j.stats.Failing && j.o.ReserveBytes > 0 && j.stats.Reserve == 0:
		n = min(n, int(j.o.ReserveBytes/64))
	case j.stats.Failing && j.o.ReserveBytes > 0:
		n = min(n, int(j.o.ReserveBytes/4))
	}
	return n
}

func (j *Journal) wake() {
	select {
	case j.kick <- struct{}{}:
	default: // it is awake already
	}
}

// wait returns when seq is durable.
func (j *Journal) wait(ctx context.Context, seq uint64) error {
	for {
		j.mu.Lock()
		durable, broken, changed := j.stats.Durable, j.broken, j.changed
		j.mu.Unlock()
		if durable >= seq {
			return nil
		}
		if broken != nil {
			return fmt.Errorf("journal record %d: %w", seq, broken)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("journal record %d is not on disk yet: %w", seq, ctx.Err())
		}
	}
}

// Opened tells what Open found.
func (j *Journal) Opened() Opened { return j.opened }

// HostID is the host id in the records and the log's name: that of Options, with ~ and a number behind it in a log
// that was begun again where another one was wiped.
func (j *Journal) HostID() string { return j.o.HostID }

// Failing reports whether records cannot be written, or only critical ones.
func (j *Journal) Failing() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stats.Failing
}

// Bounds returns the first record that has not expired and the last that was appended, 0 if there is none: what any good checkpoint
// on disk is within.
func (j *Journal) Bounds() (first, last uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return max(j.floor.Load(), 1), j.next - 1
}

// Stats returns the counters of now.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	s := j.stats
	s.Seq, s.Queued = j.next-1, len(j.queue.ends)
	j.mu.Unlock()
	var fs unix.Statfs_t
	if unix.Statfs(j.dir, &fs) == nil {
		s.DiskFree = fs.Bavail * uint64(fs.Bsize)
	}
	return s
}

// Close commits what is queued, signs it and gives the directory free. Its error says what
// could not be written.
func (j *Journal) Close() error {
	j.mu.Lock()
	j.closing = true
	j.mu.Unlock()
	j.wake()
	<-j.done
	j.mu.Lock()
	defer j.mu.Unlock()
	if errors.Is(j.broken, ErrClosed) {
		return nil
	}
	return j.broken
}
