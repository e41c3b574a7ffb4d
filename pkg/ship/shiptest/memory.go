package shiptest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/holdfast/holdfast/pkg/ship"
)

// Row is a record in a Sink.
type Row struct {
	Seq   uint64
	Bytes []byte
}

// Sink is a ship.Sink in memory. Number tells a record's number from its bytes.
// It keeps the rows of one host.
type Sink struct {
	Number func(record []byte) (hostID string, seq uint64)
	// Fail, if set, is asked before and after each call ("send", "sent", "reach", ...):
	// an error before keeps it from happening, one after hides that it did.
	Fail func(point string) error

	mu     sync.Mutex
	tokens map[string]bool
	rows   map[string][]Row // by host
	notes  map[uint64][]byte
	handed map[string]map[[32]byte]bool

	all       [][]byte // notes that ever came
	displaced []Row
}

var _ ship.Sink = (*Sink)(nil)

func (s *Sink) at(point string) error {
	if s.Fail == nil {
		return nil
	}
	return s.Fail(point)
}

// Ready implements ship.Sink.
func (s *Sink) Ready(context.Context) error { return s.at("ready") }

// Reach implements ship.Sink.
func (s *Sink) Reach(_ context.Context, hostID string, after uint64) (unbroken, newest uint64, err error) {
	if err := s.at("reach"); err != nil {
		return 0, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have := map[uint64]bool{}
	for _, r := range s.rows[hostID] {
		have[r.Seq] = true
		newest = max(newest, r.Seq)
	}
	for have[after+1] {
		after++
	}
	return after, newest, nil
}

// Holds implements ship.Sink.
func (s *Sink) Holds(_ context.Context, hostID string, first, last uint64) (map[uint64][][32]byte, error) {
	if err := s.at("holds"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[uint64][][32]byte{}
	for _, r := range s.rows[hostID] {
		if leaf := leafOf(r.Bytes); r.Seq >= first && r.Seq <= last && !slices.Contains(out[r.Seq], leaf) {
			out[r.Seq] = append(out[r.Seq], leaf)
		}
	}
	return out, nil
}

func leafOf(b []byte) [32]byte { return sha256.Sum256(append([]byte{0}, b...)) }

// Displace implements ship.Sink.
func (s *Sink) Displace(_ context.Context, hostID string, first, last uint64, leaves [][32]byte) error {
	if err := s.at("displace"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rows[hostID] {
		if r.Seq >= first && r.Seq <= last && slices.Contains(leaves, leafOf(r.Bytes)) {
			s.displaced = append(s.displaced, r)
		}
	}
	return nil
}

// Displaced returns copies of rows that were displaced.
func (s *Sink) Displaced() []Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.displaced)
}

// Changes implements ship.Sink.
func (s *Sink) Changes(context.Context, string) ([][]byte, error) {
	return s.some(true), s.at("changes")
}

// Notes implements ship.Sink.
func (s *Sink) Notes(_ context.Context, _ string, _ uint64, fn func([]byte)) error {
	for _, n := range s.some(false) {
		fn(n)
	}
	return s.at("notes")
}

func (s *Sink) some(changes bool) (out [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.all {
		if bytes.Contains(n, []byte("\nnext ")) == changes {
			out = append(out, n)
		}
	}
	return out
}

// Send implements ship.Sink.
func (s *Sink) Send(_ context.Context, token string, records [][]byte) error {
	if err := s.at("send"); err != nil {
		return err
	}
	s.mu.Lock()
	if s.tokens == nil {
		s.tokens, s.rows = map[string]bool{}, map[string][]Row{}
	}
	if !s.tokens[token] {
		s.tokens[token] = true
		for _, b := range records {
			host, seq := s.Number(b)
			s.rows[host] = append(s.rows[host], Row{seq, b})
		}
	}
	s.mu.Unlock()
	return s.at("sent")
}

// SendCheckpoint implements ship.Sink.
func (s *Sink) SendCheckpoint(_ context.Context, hostID string, size uint64, note []byte) error {
	if err := s.at("checkpoint"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.notes == nil {
		s.notes = map[uint64][]byte{}
	}
	s.notes[size] = note
	s.all = append(s.all, note)
	if bytes.Contains(note, []byte("\nnext ")) {
		if s.handed == nil {
			s.handed = map[string]map[[32]byte]bool{}
		}
		if s.handed[hostID] == nil {
			s.handed[hostID] = map[[32]byte]bool{}
		}
		s.handed[hostID][sha256.Sum256(append([]byte{0}, note...))] = true
	}
	return nil
}

// Handed implements ship.Sink.
func (s *Sink) Handed(_ context.Context, hostID string, notes [][]byte) (map[[32]byte]bool, error) {
	if err := s.at("handed"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[[32]byte]bool{}
	for _, n := range notes {
		if leaf := sha256.Sum256(append([]byte{0}, n...)); s.handed[hostID][leaf] {
			out[leaf] = true
		}
	}
	return out, nil
}

// Rows returns the rows of a host in order of number.
func (s *Sink) Rows(hostID string) []Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := slices.Clone(s.rows[hostID])
	slices.SortStableFunc(rows, func(a, b Row) int { return int(a.Seq) - int(b.Seq) })
	return rows
}

// Lose drops rows and keeps their tokens, as a server does whose disk lost a part.
func (s *Sink) Lose(hostID string, lost func(seq uint64) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[hostID] = slices.DeleteFunc(s.rows[hostID], func(r Row) bool { return lost(r.Seq) })
}

// Checkpoints returns the sizes of the checkpoints stored, in order.
func (s *Sink) Checkpoints() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.notes))
}

// Journal is a ship.Source in memory.
type Journal struct {
	mu      sync.Mutex
	records [][]byte // record n is at n-1
	oldest  uint64   // records before it were dropped
	at      uint64
	lost    map[uint64]bool
}

var _ ship.Source = (*Journal)(nil)

// Append adds records.
func (j *Journal) Append(records ...[]byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, records...)
}

// Drop forgets the records before oldest.
func (j *Journal) Drop(oldest uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.oldest = oldest
}

// Lose makes records unreadable.
func (j *Journal) Lose(seqs ...uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lost = map[uint64]bool{}
	for _, s := range seqs {
		j.lost[s] = true
	}
}

// Seek implements ship.Source.
func (j *Journal) Seek(seq uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if seq == 0 {
		return fmt.Errorf("seek record 0: numbers begin at 1")
	}
	j.at = max(seq, j.oldest)
	return nil
}

// Next implements ship.Source.
func (j *Journal) Next(context.Context) (ship.Entry, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.at = max(j.at, j.oldest, 1)
	for j.lost[j.at] {
		j.at++
	}
	if j.at > uint64(len(j.records)) {
		return ship.Entry{}, io.EOF
	}
	e := ship.Entry{Seq: j.at, Bytes: j.records[j.at-1]}
	j.at++
	return e, nil
}

// Newest implements ship.Source.
func (j *Journal) Newest() (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return uint64(len(j.records)), nil
}
