package ship

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// batch is a run of records that is sent at once.
type batch struct {
	records     [][]byte
	bytes       int
	first, last uint64
	leaf        [32]byte // of the last record
}

func (b *batch) rows() int { return len(b.records) }

func (b *batch) add(e Entry) {
	if b.rows() == 0 {
		b.first = e.Seq
	}
	b.records = append(b.records, e.Bytes)
	b.bytes += len(e.Bytes)
	b.last = e.Seq
	b.leaf = leafOf(e.Bytes)
}

// token names the batch for the sink: the same records give the same token, in
// this process and in the next.
func (b *batch) token(hostID string) string {
	return fmt.Sprintf("%s/%d-%d/%x", hostID, b.first, b.last, b.leaf[:8])
}

// collect reads a batch that begins at first: it is full, or its first record has
// waited FlushEvery. It is empty if there was nothing for as long.
func (s *Shipper) collect(ctx context.Context, first uint64) (*batch, error) {
	b := &batch{}
	until := s.o.Now().Add(s.o.FlushEvery)
	for b.rows() < s.o.BatchRows && b.bytes < s.o.BatchBytes {
		e, err := s.src.Next(ctx)
		switch {
		case err == nil:
			if want := first + uint64(b.rows()); e.Seq != want { // the next session sorts it out
				return nil, fmt.Errorf("%w from %d to %d", errGap, want, e.Seq-1)
			}
			if b.rows() == 0 {
				until = s.o.Now().Add(s.o.FlushEvery)
			}
			b.add(e)
			continue
		case !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("read journal: %w", err)
		}
		left := until.Sub(s.o.Now())
		if left <= 0 {
			break
		}
		if !sleep(ctx, min(left, s.o.Poll)) {
			return nil, ctx.Err()
		}
	}
	return b, nil
}
