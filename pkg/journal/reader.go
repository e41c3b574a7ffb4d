package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/mod/sumdb/tlog"
)

// Entry is one record as it is on disk. Bytes belong to the caller.
type Entry struct {
	Seq     uint64
	Bytes   []byte
	Leaf    tlog.Hash
	Segment uint64 // first record of the segment that holds it
	Offset  int64  // of its frame in the segment: what At takes
}

// ErrCorrupt is what a CorruptError is.
var ErrCorrupt = errors.New("journal is damaged")

// CorruptError names records that are signed for but cannot be read. Reading
// goes on behind them with the next call.
type CorruptError struct {
	From, To uint64
	Segment  string
	Cause    string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("records %d to %d near %s: %s: %s", e.From, e.To, e.Segment, ErrCorrupt, e.Cause)
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Reader reads a journal forward, beside the writer or without one. It gives
// only records below the newest checkpoint. If that is not signed by a key of the chain, it gives what is in the segments without a hole
// at the end; all else is Verify's task. Use by one goroutine.
type Reader struct {
	// Follow makes Next wait for new records at the end instead of returning io.EOF.
	Follow bool
	// Bounds, if set, is Journal.Bounds of the writer in the same process: no file moves the reader out of them.
	Bounds func() (first, last uint64)

	dir    string
	want   uint64 // next record to give
	sealed uint64 // last record that may be given
	floor  uint64 // first that has not expired
	seg    *os.File
	first  uint64 // of seg
	sc     *scanner
	held   Entry // a record behind a hole that was just reported
	cause  string
	watch  *watch

	at      *os.File // segment of the last At
	atFirst uint64
}

// OpenReader opens the journal in dir for reading from record 1.
func OpenReader(dir string) (*Reader, error) {
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("open journal reader: %w", err)
	}
	return &Reader{dir: dir, want: 1}, nil
}

// Seek makes seq the next record that Next gives. Numbers below 1 mean 1.
func (r *Reader) Seek(seq uint64) error {
	r.want, r.held, r.cause = max(seq, 1), Entry{}, ""
	return r.leave()
}

// End returns the number of the newest record that can be read now, 0 if there is none.
func (r *Reader) End() (uint64, error) {
	first, n, err := sealed(r.dir)
	if err != nil {
		return 0, fmt.Errorf("read journal %s: %w", r.dir, err)
	}
	if r.Bounds != nil {
		var most uint64
		first, most = r.Bounds()
		n = min(n, most)
	}
	r.sealed, r.floor = max(r.sealed, n), max(r.floor, first)
	return r.sealed, nil
}

// Next returns the next record, io.EOF at the durable end (unless Follow), a
// *CorruptError for records that are missing or cannot be read, or ctx's error. Records that have
// expired are passed over.
func (r *Reader) Next(ctx context.Context) (Entry, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Entry{}, err
		}
		if r.want > r.sealed {
			n, err := r.End()
			if err != nil {
				return Entry{}, err
			}
			r.want = max(r.want, r.floor)
			if r.sc != nil {
				r.sc.fresh() // what was read ahead may have been half written
			}
			if r.want > n {
				if !r.Follow {
					return Entry{}, io.EOF
				}
				if err := r.await(ctx); err != nil {
					return Entry{}, err
				}
				continue
			}
		}
		e, err := r.step()
		if err != nil {
			return Entry{}, err
		}
		if e.Seq != 0 {
			r.want = e.Seq + 1
			return e, nil
		}
	}
}

// step returns the wanted record, an error, or neither when it only came nearer.
func (r *Reader) step() (Entry, error) {
	if r.held.Seq != 0 {
		e := r.held
		r.held = Entry{}
		return e, nil
	}
	if r.sc == nil {
		return Entry{}, r.enter()
	}
	fr, err := r.sc.next()
	var bad *badFrame
	switch {
	case errors.Is(err, io.EOF):
		return Entry{}, r.forward()
	case errors.As(err, &bad):
		r.cause = bad.Error()
		return Entry{}, nil
	case err != nil:
		return Entry{}, fmt.Errorf("read %s: %w", segmentName(r.first), err)
	case fr.Kind != frameRecord:
		return Entry{}, nil
	}
	seq, _, err := peek(fr.Payload)
	switch {
	case err != nil:
		r.cause = err.Error()
		return Entry{}, nil
	case seq < r.want:
		return Entry{}, nil
	case seq > r.sealed:
		// A whole record that nobody signed: what is wanted before it is not in this segment.
		return Entry{}, r.forward()
	}
	e := Entry{Seq: seq, Bytes: append([]byte(nil), fr.Payload...), Leaf: tlog.RecordHash(fr.Payload), Segment: r.first, Offset: fr.Off}
	if seq > r.want {
		r.held = e
		return Entry{}, r.hole(seq - 1)
	}
	r.cause = ""
	return e, nil
}

// hole reports the records from the wanted one to last as lost, once; those that have expired
// meanwhile are passed over.
func (r *Reader) hole(last uint64) error {
	if _, err := r.End(); err != nil {
		return err
	}
	if r.want = max(r.want, r.floor); r.want > last {
		return nil
	}
	e := &CorruptError{From: r.want, To: last, Segment: segmentName(r.first), Cause: r.cause}
	if e.Cause == "" {
		e.Cause = "not there"
	}
	r.want, r.cause = last+1, ""
	return e
}

// enter opens the segment that holds the wanted record.
func (r *Reader) enter() error {
	segs, err := listSegments(r.dir)
	if err != nil {
		return fmt.Errorf("read journal %s: %w", r.dir, err)
	}
	var first uint64
	for _, f := range segs {
		if f <= r.want || first == 0 {
			first = f
		}
	}
	if first == 0 || first > r.sealed {
		return r.lost()
	}
	return r.open(first)
}

// lost reports all from the wanted record to the signed end, and has the next
// record looked for anew.
func (r *Reader) lost() error {
	if err := r.leave(); err != nil {
		return fmt.Errorf("read journal %s: %w", r.dir, err)
	}
	return r.hole(r.sealed)
}

// forward is called at the end of a segment that does not hold the wanted record.
func (r *Reader) forward() error {
	segs, err := listSegments(r.dir)
	if err != nil {
		return fmt.Errorf("read journal %s: %w", r.dir, err)
	}
	for _, f := range segs {
		if f > r.first && f <= r.sealed {
			return r.open(f)
		}
	}
	return r.lost()
}

func (r *Reader) open(first uint64) error {
	if err := r.leave(); err != nil {
		return err
	}
	f, err := openRegular(r.dir, segmentName(first))
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	r.seg, r.first, r.sc = f, first, &scanner{f: f}
	return nil
}

func (r *Reader) leave() error {
	if r.seg == nil {
		return nil
	}
	err := r.seg.Close()
	r.seg, r.sc = nil, nil
	return err
}

// At reads the record whose frame is at that place, as an Entry named it.
func (r *Reader) At(segment uint64, offset int64) (Entry, error) {
	if r.at == nil || r.atFirst != segment {
		f, err := openRegular(r.dir, segmentName(segment))
		if err != nil {
			return Entry{}, fmt.Errorf("read record: %w", err)
		}
		if r.at != nil {
			if err := r.at.Close(); err != nil {
				return Entry{}, errors.Join(err, f.Close())
			}
		}
		r.at, r.atFirst = f, segment
	}
	// Most records fit into the first read.
	sc := &scanner{f: r.at, buf: make([]byte, 0, 2048), small: true}
	fr, err := sc.at(offset)
	if err == nil && fr.Kind != frameRecord {
		err = ErrCorrupt
	}
	var seq uint64
	if err == nil {
		seq, _, err = peek(fr.Payload)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("read %s at byte %d: %w", segmentName(segment), offset, err)
	}
	return Entry{Seq: seq, Bytes: fr.Payload, Leaf: tlog.RecordHash(fr.Payload), Segment: segment, Offset: offset}, nil
}

// Close gives the files free.
func (r *Reader) Close() error {
	err := r.leave()
	if r.at != nil {
		err = errors.Join(err, r.at.Close())
		r.at = nil
	}
	if r.watch != nil {
		err = errors.Join(err, r.watch.close())
		r.watch = nil
	}
	return err
}
