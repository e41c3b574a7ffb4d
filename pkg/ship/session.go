package ship

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Conditions that no retry mends; they are tried again all the same, because a
// person may mend them at the other end.
var (
	// ErrOtherLog says that the sink has records under our host id that are not ours.
	ErrOtherLog = errors.New("the server holds records of another log under this host id: a state directory was deleted or copied, or two hosts share a machine id; give this host an id of its own, or move the old rows away")
	// ErrAhead says that the sink has later records than our journal.
	ErrAhead = errors.New("the server holds later records of this host than the journal: the state directory is an old copy; do not go on with it, its next records would be taken for those")
)

// probe is how many of the sink's newest records are held against the journal.
const probe = 64

// session ships from wherever the sink is until an error.
func (s *Shipper) session(ctx context.Context, f *positionFile) error {
	if err := s.ask(ctx, s.dst.Ready); err != nil {
		return err
	}
	s.judged = false
	unbroken, newest, err := s.resume(ctx)
	if err != nil {
		return err
	}
	if s.pos.first <= unbroken+1 && unbroken < s.pos.last {
		if newest, err = s.again(ctx); err != nil {
			return err
		}
	}
	end, err := s.src.Newest()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	held := min(newest, end)
	compared := held > s.pos.confirmed
	if compared {
		if err := s.repair(ctx, s.pos.confirmed+1, held); err != nil {
			return err
		}
		s.pos.confirmed = held
	}
	if err := f.save(s.pos, true); err != nil {
		return err
	}
	s.update(func(st *Stats) {
		st.Connected, st.LastError = true, ""
		st.Shipped, st.Confirmed = s.pos.confirmed, s.pos.confirmed
	})
	s.o.Logger.Info("shipping", "stage", "ship", "after", s.pos.confirmed)
	if compared { // what was repaired may be all there is
		if err := s.checkpoint(ctx); err != nil {
			return err
		}
	}
	return s.follow(ctx, f)
}

// ask bounds one exchange with the sink.
func (s *Shipper) ask(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	return f(ctx)
}

func (s *Shipper) reach(ctx context.Context, after uint64) (unbroken, newest uint64, err error) {
	err = s.ask(ctx, func(ctx context.Context) error {
		unbroken, newest, err = s.dst.Reach(ctx, s.o.HostID, after)
		return err
	})
	return unbroken, newest, err
}

func (s *Shipper) holds(ctx context.Context, first, last uint64) (held map[uint64][][32]byte, err error) {
	err = s.ask(ctx, func(ctx context.Context) error {
		held, err = s.dst.Holds(ctx, s.o.HostID, first, last)
		return err
	})
	return held, err
}

// resume sets the confirmed position to where rows must be compared, and returns the end of
// the run of rows behind it and the newest that the sink holds, whosever they are. The hint saves comparing
// everything; it is believed if the sink still holds the record that it names.
func (s *Shipper) resume(ctx context.Context) (unbroken, newest uint64, err error) {
	base := s.pos.confirmed
	if base > 0 {
		held, err := s.holds(ctx, base, base)
		if err != nil {
			return 0, 0, err
		}
		if _, ok := held[base]; !ok {
			base = 0
		}
	}
	oldest, err := s.oldest(ctx, base+1)
	if err != nil {
		return 0, 0, err
	}
	if oldest > base+1 { // the journal no longer has what is before
		base = oldest - 1
	}
	unbroken, newest, err = s.reach(ctx, base)
	if err != nil {
		return 0, 0, err
	}
	if from := max(s.pos.confirmed, newest); oldest > from+1 {
		s.update(func(st *Stats) { st.Skipped += oldest - 1 - from })
		s.o.Logger.Error("the journal no longer has records that were not shipped", "stage", "ship", "first", from+1, "last", oldest-1)
	}
	if err := s.recognize(ctx, newest); err != nil {
		return 0, 0, err
	}
	s.pos.confirmed = base
	return unbroken, newest, nil
}

// oldest returns the number of the first record at or behind seq, 0 if none is there.
func (s *Shipper) oldest(ctx context.Context, seq uint64) (uint64, error) {
	end, err := s.src.Newest()
	if err == nil && seq > end {
		return 0, nil
	}
	if err == nil {
		err = s.seek(seq)
	}
	if err != nil {
		return 0, fmt.Errorf("read journal: %w", err)
	}
	e, err := s.src.Next(ctx)
	if err != nil {
		return 0, fmt.Errorf("read journal: %w", err)
	}
	return e.Seq, nil
}

func (s *Shipper) seek(seq uint64) error {
	s.held = nil
	if err := s.src.Seek(seq); err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	return nil
}

// recognize holds the sink's newest records against the journal. One that differs
// among ones that do not was altered, which is for verify to report; if none
// agrees, or there are later ones, what is signed must show that it is this log.
func (s *Shipper) recognize(ctx context.Context, newest uint64) error {
	s.ahead = newest
	if newest == 0 {
		return nil
	}
	end, err := s.src.Newest()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	if end < newest {
		return s.beyond(ctx, newest, end)
	}
	first := uint64(1)
	if newest > probe {
		first = newest - probe + 1
	}
	held, err := s.holds(ctx, first, newest)
	if err != nil {
		return err
	}
	compared, agree := 0, 0
	err = s.read(ctx, first, newest, func(e Entry) error {
		if leaves := held[e.Seq]; len(leaves) > 0 {
			compared++
			if slices.Contains(leaves, leafOf(e.Bytes)) {
				agree++
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case compared > 0 && agree == 0:
		return s.judge(ctx, fmt.Errorf("resume: %w (records %d to %d)", ErrOtherLog, first, newest))
	}
	return nil
}

// read hands the records first to last to f; the journal has last.
func (s *Shipper) read(ctx context.Context, first, last uint64, f func(Entry) error) error {
	if err := s.seek(first); err != nil {
		return err
	}
	for {
		e, err := s.src.Next(ctx)
		if err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
		if e.Seq <= last {
			if err := f(e); err != nil {
				return err
			}
		}
		if e.Seq >= last {
			return nil
		}
	}
}

// again sends the batch that was under way when the last session ended, with the
// same bounds and so the same token, and asks anew.
func (s *Shipper) again(ctx context.Context) (newest uint64, err error) {
	end, err := s.src.Newest()
	if err != nil {
		return 0, fmt.Errorf("read journal: %w", err)
	}
	var b batch
	if s.pos.last <= end { // else the hint is not of this journal
		err = s.read(ctx, s.pos.first, s.pos.last, func(e Entry) error { b.add(e); return nil })
		if err != nil {
			return 0, err
		}
	}
	// With other bounds there is no such batch to repeat.
	if b.rows() > 0 && b.first == s.pos.first && b.last == s.pos.last {
		if err := s.clear(ctx, &b); err != nil {
			return 0, err
		}
		if err := s.send(ctx, b.token(s.o.HostID), &b); err != nil {
			return 0, err
		}
	}
	_, newest, err = s.reach(ctx, s.pos.confirmed)
	return newest, err
}

// repair sends those of the records first to last that the sink does not hold,
// with tokens of their own: the sink may remember the token of a batch whose rows
// are gone. Rows at their numbers that are others are displaced.
func (s *Shipper) repair(ctx context.Context, first, last uint64) error {
	for from := first; from <= last; {
		to := min(last, from+uint64(s.o.BatchRows)-1)
		held, err := s.holds(ctx, from, to)
		if err != nil {
			return err
		}
		var b batch
		var strange Foreign
		flush := func() error {
			if err := s.displace(ctx, strange); err != nil {
				return err
			}
			strange = Foreign{}
			if b.rows() == 0 {
				return nil
			}
			token := fmt.Sprintf("%s/repair/%d", b.token(s.o.HostID), s.o.Now().UnixNano())
			if err := s.send(ctx, token, &b); err != nil {
				return err
			}
			s.update(func(st *Stats) { st.Repaired += uint64(b.rows()) })
			b = batch{}
			return nil
		}
		err = s.read(ctx, from, to, func(e Entry) error {
			if strange.add(e.Seq, leafOf(e.Bytes), held[e.Seq]) {
				return nil
			}
			if b.add(e); b.bytes >= s.o.BatchBytes {
				return flush()
			}
			return nil
		})
		if err == nil {
			err = flush()
		}
		if err != nil {
			return fmt.Errorf("repair records %d to %d: %w", from, to, err)
		}
		from = to + 1
	}
	return nil
}

// follow ships new records for ever.
func (s *Shipper) follow(ctx context.Context, f *positionFile) error {
	shipped := s.pos.confirmed
	if err := s.seek(shipped + 1); err != nil {
		return err
	}
	asked := s.o.Now()
	for {
		wait := s.o.CheckEvery
		if shipped > s.pos.confirmed {
			wait = s.o.FlushEvery
		}
		b, err := s.collect(ctx, shipped+1, wait)
		if err != nil {
			return err
		}
		if b.rows() > 0 && b.first > shipped+1 {
			if err := s.skip(ctx, f, shipped, b); err != nil {
				return err
			}
			asked = s.o.Now()
		}
		idle, since := b.rows() == 0, s.o.Now().Sub(asked)
		if !idle {
			s.pos.first, s.pos.last = b.first, b.last
			if err := f.save(s.pos, false); err != nil {
				return err
			}
			if b.first <= s.ahead {
				if err := s.clear(ctx, b); err != nil {
					return err
				}
			}
			if err := s.send(ctx, b.token(s.o.HostID), b); err != nil {
				return err
			}
			shipped = b.last
		}
		switch {
		case shipped > s.pos.confirmed && (idle || since >= s.o.ConfirmEvery):
			err = s.confirm(ctx, f, shipped)
		case idle && since >= s.o.CheckEvery:
			err = s.ask(ctx, s.dst.Ready)
		default:
			continue
		}
		if err == nil {
			err = s.checkpoint(ctx)
		}
		if err != nil {
			return err
		}
		asked = s.o.Now()
	}
}

// skip goes on behind records that the journal cannot give: what was shipped
// before them is confirmed, and the run of confirmed ones begins anew at b.
func (s *Shipper) skip(ctx context.Context, f *positionFile, shipped uint64, b *batch) error {
	if shipped > s.pos.confirmed {
		if err := s.confirm(ctx, f, shipped); err != nil {
			return err
		}
		if err := s.seek(b.last + 1); err != nil { // confirm may have read elsewhere
			return err
		}
	}
	s.o.Logger.Error("the journal cannot give records, shipping goes on behind them", "stage", "ship", "first", shipped+1, "last", b.first-1)
	s.update(func(st *Stats) { st.Skipped += b.first - 1 - shipped })
	s.pos.confirmed = b.first - 1
	return nil
}

// send stores one batch.
func (s *Shipper) send(ctx context.Context, token string, b *batch) error {
	err := s.ask(ctx, func(ctx context.Context) error { return s.dst.Send(ctx, token, b.records) })
	if err != nil {
		return err
	}
	s.attempts = 0
	s.update(func(st *Stats) {
		st.Batches++
		st.Shipped = max(st.Shipped, b.last)
	})
	return nil
}

// confirm asks whether all up to shipped is there. A replica may be a moment
// behind; what stays missing is sent again.
func (s *Shipper) confirm(ctx context.Context, f *positionFile, shipped uint64) error {
	for try := 0; ; try++ {
		unbroken, newest, err := s.reach(ctx, s.pos.confirmed)
		if err == nil {
			err = s.overtaken(ctx, newest)
		}
		if err != nil {
			return err
		}
		if unbroken >= shipped {
			break
		}
		if try < 3 {
			if !sleep(ctx, time.Duration(try+1)*s.o.Poll) {
				return ctx.Err()
			}
			continue
		}
		s.o.Logger.Warn("the server does not hold what it acknowledged, sending it again", "stage", "ship", "first", unbroken+1, "last", shipped)
		if err := s.repair(ctx, unbroken+1, shipped); err != nil {
			return err
		}
		if err := s.seek(shipped + 1); err != nil {
			return err
		}
		break
	}
	s.pos.confirmed = shipped
	s.update(func(st *Stats) { st.Confirmed = shipped })
	return f.save(s.pos, true)
}

// checkpoint sends the newest checkpoint once the records under it are confirmed.
func (s *Shipper) checkpoint(ctx context.Context) error {
	if s.o.Checkpoint == nil {
		return nil
	}
	if s.note == nil {
		note, err := s.o.Checkpoint()
		if err != nil {
			return fmt.Errorf("read checkpoint: %w", err)
		}
		if note == nil {
			return nil
		}
		size, err := checkpointSize(note)
		if err != nil {
			return fmt.Errorf("read checkpoint: %w", err)
		}
		if size <= s.sealed {
			return nil
		}
		s.pending, s.note = size, note
	}
	if s.pending > s.pos.confirmed {
		return nil
	}
	if err := s.changed(ctx); err != nil {
		return err
	}
	if err := s.sendNote(ctx, s.pending, s.note); err != nil {
		return err
	}
	s.sealed, s.note = s.pending, nil
	s.update(func(st *Stats) { st.Checkpoint = s.sealed })
	return nil
}

// changed sends the changes of key up to the checkpoint that is to be sent: the key of that follows from them.
func (s *Shipper) changed(ctx context.Context) error {
	if s.o.Changes == nil {
		return nil
	}
	more, err := s.o.Changes()
	if err != nil {
		return fmt.Errorf("read changes of key: %w", err)
	}
	if s.changes = append(s.changes, more...); len(s.changes) > 0 && s.handed == nil {
		err := s.ask(ctx, func(ctx context.Context) (err error) {
			s.handed, err = s.dst.Handed(ctx, s.o.HostID, s.changes)
			return err
		})
		if err != nil {
			return err
		}
	}
	for ; len(s.changes) > 0; s.changes = s.changes[1:] {
		note := s.changes[0]
		size, err := checkpointSize(note)
		if err != nil {
			return fmt.Errorf("read changes of key: %w", err)
		}
		if size > s.pending {
			return nil
		}
		if leaf := leafOf(note); !s.handed[leaf] {
			if err := s.sendNote(ctx, size, note); err != nil {
				return err
			}
			s.handed[leaf] = true
		}
	}
	return nil
}

func (s *Shipper) sendNote(ctx context.Context, size uint64, note []byte) error {
	return s.ask(ctx, func(ctx context.Context) error { return s.dst.SendCheckpoint(ctx, s.o.HostID, size, note) })
}

// checkpointSize reads the second line of a checkpoint.
func checkpointSize(note []byte) (uint64, error) {
	lines := bytes.SplitN(note, []byte("\n"), 3)
	if len(lines) < 3 {
		return 0, errors.New("no checkpoint: it has no second line")
	}
	n, err := strconv.ParseUint(string(lines[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("no checkpoint: size %q", lines[1])
	}
	return n, nil
}

// leafOf is the hash of a record in its host's Merkle log (RFC 6962: 0x00 and the
// record, by SHA-256).
func leafOf(b []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(b)
	return [32]byte(h.Sum(nil))
}
