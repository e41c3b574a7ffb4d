package ship

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// batch is a run of records that is sent at once.
type batch struct {
	records     [][]byte
	bytes       int
	first, last uint64
	leaves      [][32]byte
}

func (b *batch) rows() int { return len(b.records) }

func (b *batch) add(e Entry) {
	if b.rows() == 0 {
		b.first = e.Seq
	}
	b.records = append(b.records, e.Bytes)
	b.bytes += len(e.Bytes)
	b.last = e.Seq
	b.leaves = append(b.leaves, leafOf(e.Bytes))
}

// token names the batch for the sink: the same records give the same token, in
// this process and in the next.
func (b *batch) token(hostID string) string {
	return fmt.Sprintf("%s/%d-%d/%x", hostID, b.first, b.last, b.leaves[len(b.leaves)-1][:8])
}

// collect reads a batch, from first on: it is full, or its first record has waited
// FlushEvery, or the next record is not the next number. It is empty if nothing
// came for idle.
func (s *Shipper) collect(ctx context.Context, first uint64, idle time.Duration) (*batch, error) {
	b := &batch{}
	until := s.o.Now().Add(idle)
	for b.rows() < s.o.BatchRows && b.bytes < s.o.BatchBytes {
		e, err := s.next(ctx, until)
		if errors.Is(err, errNoNews) {
			break
		}
		if err != nil {
			return nil, err
		}
		want := first + uint64(b.rows())
		switch {
		case e.Seq < want:
			return nil, fmt.Errorf("read journal: record %d where %d or a later one was to come", e.Seq, want)
		case b.rows() == 0:
			first = e.Seq
			until = s.o.Now().Add(s.o.FlushEvery)
		case e.Seq > want:
			s.held = &e
			return b, nil
		}
		b.add(e)
	}
	return b, nil
}

var errNoNews = errors.New("nothing new in the journal")

// next returns the next record, or errNoNews when the time has come.
func (s *Shipper) next(ctx context.Context, until time.Time) (Entry, error) {
	if s.held != nil {
		e := *s.held
		s.held = nil
		return e, nil
	}
	for {
		left := until.Sub(s.o.Now())
		wait, cancel := context.WithTimeout(ctx, max(left, 0))
		e, err := s.src.Next(wait)
		cancel()
		switch {
		case err == nil:
			return e, nil
		case ctx.Err() != nil:
			return Entry{}, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.EOF) && left <= 0:
			return Entry{}, errNoNews
		case !errors.Is(err, io.EOF):
			return Entry{}, fmt.Errorf("read journal: %w", err)
		}
		if !sleep(ctx, min(left, s.o.Poll)) {
			return Entry{}, ctx.Err()
		}
	}
}
