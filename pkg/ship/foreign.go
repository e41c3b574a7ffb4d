package ship

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// Standing is how signed notes at the sink stand to the journal; see journal.Standing. Notes that no key of the
// journal signed do not count: who may write to the sink can put any number of them there.
type Standing struct {
	Agrees  uint64 // size of the largest with the journal's own root
	Ahead   uint64 // size of the largest over records that the journal does not have
	Differs uint64 // size of one over other records
	Handed  bool   // a change of key of this journal is among them
}

// Row is a row that is not the journal's.
type Row struct {
	Seq  uint64
	Leaf [32]byte // hash of its bytes (RFC 6962)
}

// Foreign is rows at the sink under our host id that are not the journal's, in order.
type Foreign struct {
	Rows []Row
	End  uint64 // not 0: the rows are behind the journal's end, which this is, and are only the newest of those
}

// Hash is the SHA-256 of all rows, each as 8 bytes of number (big-endian) and 32 of leaf hash.
func (f *Foreign) Hash() [32]byte {
	h := sha256.New()
	for _, r := range f.Rows {
		h.Write(append(binary.BigEndian.AppendUint64(nil, r.Seq), r.Leaf[:]...))
	}
	return [32]byte(h.Sum(nil))
}

// told names rows that Foreign was told of, and as what.
type told struct {
	rows   [32]byte
	beyond bool // the journal's end
}

// add takes what the sink holds at a number, and reports whether the journal's own leaf is among it.
func (f *Foreign) add(seq uint64, own [32]byte, held [][32]byte) (ours bool) {
	for _, l := range held {
		if l == own {
			ours = true
			continue
		}
		f.Rows = append(f.Rows, Row{Seq: seq, Leaf: l})
	}
	return ours
}

// judge decides whether shipping goes on although there are rows that are not the journal's, which anybody who may write there
// can have made: it does if what was signed there fits the journal and nothing signed goes beyond it. Otherwise the
// rows may be true ones, the journal an old copy or another's: cause is returned, or what is known better.
//
// A change of key must be among what is signed: keys that came after an old copy was made are known by their
// changes alone, and senders before those were shipped sent none.
func (s *Shipper) judge(ctx context.Context, cause error) error {
	if s.judged || s.o.Stand == nil {
		if s.judged {
			return nil
		}
		return cause
	}
	end, err := s.src.Newest()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	var st Standing
	err = s.ask(ctx, func(ctx context.Context) error {
		changes, err := s.dst.Changes(ctx, s.o.HostID)
		if err != nil {
			return err
		}
		st, err = s.o.Stand(end, changes, func(fn func([]byte)) error { return s.dst.Notes(ctx, s.o.HostID, end, fn) })
		return err
	})
	switch {
	case err != nil:
		return err
	case st.Ahead > 0:
		return fmt.Errorf("%w (a checkpoint or change of key there is signed over %d records, the journal ends at %d)", ErrAhead, st.Ahead, end)
	case s.pos.confirmed > end:
		return fmt.Errorf("%w (%d records were confirmed, the journal ends at %d)", ErrAhead, s.pos.confirmed, end)
	case st.Differs > 0:
		return fmt.Errorf("%w (a checkpoint or change of key there is signed over other records than the first %d)", ErrOtherLog, st.Differs)
	case st.Agrees == 0 || !st.Handed:
		return cause
	}
	s.judged = true
	return nil
}

// beyond deals with rows that are numbered as no record of the journal is yet. They stay where they are until the
// journal comes there.
func (s *Shipper) beyond(ctx context.Context, newest, end uint64) error {
	if err := s.judge(ctx, fmt.Errorf("resume: %w (it has %d, the journal ends at %d)", ErrAhead, newest, end)); err != nil {
		return err
	}
	held, err := s.holds(ctx, newest, newest)
	if err != nil {
		return err
	}
	f := Foreign{End: end}
	f.add(newest, [32]byte{}, held[newest])
	return s.tell(ctx, f)
}

// overtaken is told the newest record that the sink holds, when it is asked in passing.
func (s *Shipper) overtaken(ctx context.Context, newest uint64) error {
	if newest <= s.ahead {
		return nil
	}
	end, err := s.src.Newest()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	if s.ahead = newest; newest <= end {
		return nil
	}
	s.judged = false // since then something may have been signed
	return s.beyond(ctx, newest, end)
}

// clear makes room for a batch.
func (s *Shipper) clear(ctx context.Context, b *batch) error {
	held, err := s.holds(ctx, b.first, b.last)
	if err != nil {
		return err
	}
	var f Foreign
	for i, leaf := range b.leaves { // a batch has no gaps
		f.add(b.first+uint64(i), leaf, held[b.first+uint64(i)])
	}
	return s.displace(ctx, f)
}

// displace has the sink keep a copy of rows in whose place ours come, and puts them on the record.
func (s *Shipper) displace(ctx context.Context, f Foreign) error {
	if len(f.Rows) == 0 {
		return nil
	}
	slices.SortFunc(f.Rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), slices.Compare(a.Leaf[:], b.Leaf[:]))
	})
	first, last := f.Rows[0].Seq, f.Rows[len(f.Rows)-1].Seq
	if err := s.judge(ctx, fmt.Errorf("%w (records %d to %d)", ErrOtherLog, first, last)); err != nil {
		return err
	}
	leaves := make([][32]byte, len(f.Rows))
	for i, r := range f.Rows {
		leaves[i] = r.Leaf
	}
	err := s.ask(ctx, func(ctx context.Context) error { return s.dst.Displace(ctx, s.o.HostID, first, last, leaves) })
	if err != nil {
		return err
	}
	return s.tell(ctx, f)
}

// tell puts rows on the record, once in the life of the process.
func (s *Shipper) tell(ctx context.Context, f Foreign) error {
	as := told{f.Hash(), f.End != 0}
	if len(f.Rows) == 0 || s.told[as] {
		return nil
	}
	if s.o.Foreign != nil {
		if err := s.o.Foreign(ctx, f); err != nil {
			return fmt.Errorf("put rows of somebody else on the record: %w", err)
		}
	}
	if s.told == nil {
		s.told = map[told]bool{}
	}
	s.told[as] = true
	if f.End == 0 {
		s.update(func(st *Stats) { st.Foreign += uint64(len(f.Rows)) })
	}
	return nil
}
