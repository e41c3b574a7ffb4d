package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync/atomic"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
)

// store answers from the index and, for what that does not have, from the journal.
type store struct {
	path, dir string
	file      os.FileInfo // of path when it was tried last, nil if there was none
	db        *sql.DB     // nil: there is no usable index
	note      string
	why       error // there is no db
	unread    atomic.Uint64
}

var _ query.Store = (*store)(nil)

// Close implements query.Store.
func (s *store) Close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

// Lag implements query.Store. Answers are never behind; the note says what they cost.
func (s *store) Lag(ctx context.Context) (query.Lag, error) {
	s.renew()
	newest, err := journal.Newest(s.dir)
	if err != nil {
		return query.Lag{}, err
	}
	l := query.Lag{Newest: newest, Note: s.note}
	if s.db != nil {
		st, err := readState(ctx, s.db)
		if err != nil {
			l.Note = fmt.Sprintf("the index cannot be read, the journal is read instead: %v", err)
		} else if st.seq < newest {
			l.Note = fmt.Sprintf("the newest %d records are not indexed yet and are read from the journal", newest-st.seq)
		}
	}
	if n := s.unread.Load(); n > 0 {
		l.Note = fmt.Sprintf("%d records cannot be read and are left out: verify names them", n)
	}
	err = s.Records(ctx, query.Filter{Limit: 1}, func(r *event.Record) error {
		l.Time = r.Time
		return nil
	})
	return l, err
}

// Records implements query.Store.
func (s *store) Records(ctx context.Context, f query.Filter, fn func(*event.Record) error) error {
	indexed, err := s.indexed(ctx)
	if err != nil {
		return err
	}
	first, err := journal.Oldest(s.dir)
	if err != nil {
		return err
	}
	f.AfterSeq = max(f.AfterSeq, first-1) // what has expired may be in the index still
	if f.AfterSeq == math.MaxUint64 {
		return ctx.Err() // no record is above it
	}
	if f.Limit > 0 {
		return s.newest(ctx, f, indexed, fn)
	}
	next, err := s.pages(ctx, f, indexed, fn)
	if err != nil {
		return err
	}
	return s.scan(ctx, max(next, f.AfterSeq+1), &f, fn)
}

// indexed returns how far the index reaches, 0 without one.
func (s *store) indexed(ctx context.Context) (uint64, error) {
	s.renew()
	if s.db == nil {
		return 0, ctx.Err()
	}
	st, err := readState(ctx, s.db)
	if err != nil {
		return 0, ctx.Err() // an index that cannot be read is not needed
	}
	return st.seq, nil
}

// newest answers with the newest f.Limit records: of the journal's tail first, the
// rest of the index.
func (s *store) newest(ctx context.Context, f query.Filter, indexed uint64, fn func(*event.Record) error) error {
	tail, err := s.last(ctx, max(indexed, f.AfterSeq)+1, &f)
	if err != nil {
		return err
	}
	var older []*event.Record // newest first
	if indexed > 0 && len(tail) < f.Limit {
		older, err = s.indexedNewest(ctx, &f, indexed, f.Limit-len(tail))
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if tail, err = s.last(ctx, f.AfterSeq+1, &f); err != nil {
				return err
			}
			older = nil
		}
	}
	slices.Reverse(older)
	tail = append(older, tail...)
	for _, r := range tail {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// indexedNewest returns the newest n records that match of those in the index, newest
// first. A filter may mean less than its columns select: then it goes on further back.
func (s *store) indexedNewest(ctx context.Context, f *query.Filter, indexed uint64, n int) (out []*event.Record, err error) {
	for hi, size := indexed, n; len(out) < n; size = min(size*4, 10_000) {
		var places []place
		err := s.ask(ctx, f, indexed, func(p *plan, tx *sql.Tx) (err error) {
			places, err = p.page(ctx, tx, 0, hi, size, true)
			return err
		})
		if err == nil {
			err = s.give(ctx, places, f, func(r *event.Record) error {
				if len(out) < n {
					out = append(out, r)
				}
				return nil
			})
		}
		if err != nil {
			return nil, err
		}
		if len(places) < size || places[len(places)-1].seq <= 1 {
			break
		}
		hi = places[len(places)-1].seq - 1
	}
	return out, nil
}

// last returns the newest f.Limit records that match, of those from number from on in the journal.
func (s *store) last(ctx context.Context, from uint64, f *query.Filter) ([]*event.Record, error) {
	var ring []*event.Record
	n := 0
	err := s.scan(ctx, from, f, func(r *event.Record) error {
		if len(ring) < f.Limit {
			ring = append(ring, r)
		} else {
			ring[n%f.Limit] = r
		}
		n++
		return nil
	})
	if n > len(ring) {
		cut := n % f.Limit
		ring = append(slices.Clone(ring[cut:]), ring[:cut]...)
	}
	return ring, err
}

// ask calls fn in one read transaction with the plan of f.
func (s *store) ask(ctx context.Context, f *query.Filter, indexed uint64, fn func(*plan, *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	p, err := makePlan(ctx, tx, f, indexed)
	if err == nil {
		err = fn(p, tx)
	}
	return errors.Join(err, tx.Rollback())
}

// pages gives what the index has, in pages, so that a slow reader holds no
// transaction. It returns the number from which the journal must be read: if the index fails
// on the way, that of the page that failed.
func (s *store) pages(ctx context.Context, f query.Filter, indexed uint64, fn func(*event.Record) error) (uint64, error) {
	const least, most = 1000, 100_000
	next := f.AfterSeq + 1
	for n := least; next <= indexed; n = min(n*4, most) {
		var places []place
		err := s.ask(ctx, &f, indexed, func(p *plan, tx *sql.Tx) (err error) {
			places, err = p.page(ctx, tx, next, indexed, n, false)
			return err
		})
		if err != nil {
			return next, ctx.Err()
		}
		if err := s.give(ctx, places, &f, fn); err != nil {
			return 0, err
		}
		if len(places) < n {
			break
		}
		next = places[len(places)-1].seq + 1
	}
	return indexed + 1, nil
}

// give reads the records from the journal and hands them on.
func (s *store) give(ctx context.Context, places []place, f *query.Filter, fn func(*event.Record) error) (err error) {
	if len(places) == 0 {
		return ctx.Err()
	}
	r, err := journal.OpenReader(s.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for _, p := range places {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := r.At(p.seg, p.off)
		var rec *event.Record
		if err == nil && e.Seq == p.seq {
			rec, err = journal.Decode(e.Bytes)
		}
		if err != nil || rec == nil {
			s.unread.Add(1)
			continue
		}
		if !f.Match(rec) {
			continue
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
	return nil
}

// scan reads the journal from a number on and hands on what matches.
func (s *store) scan(ctx context.Context, from uint64, f *query.Filter, fn func(*event.Record) error) (err error) {
	r, err := journal.OpenReader(s.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Seek(from); err != nil {
		return err
	}
	for {
		e, err := r.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, journal.ErrCorrupt):
			s.unread.Add(1)
			continue
		case err != nil:
			return err
		}
		rec, err := journal.Decode(e.Bytes)
		if err != nil {
			s.unread.Add(1)
			continue
		}
		if !f.Match(rec) {
			continue
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
}
