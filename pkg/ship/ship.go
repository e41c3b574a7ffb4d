package ship

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Entry is one record of the journal.
type Entry struct {
	Seq   uint64
	Bytes []byte // the reader of the entry owns them
}

// Source is the journal, read by the goroutine of Run.
type Source interface {
	// Seek makes Next return record seq, or the first later one that is kept.
	Seek(seq uint64) error
	// Next returns the next durable record. Where there is none yet it waits for one
	// as long as ctx allows, or returns io.EOF at once; a later call goes on from
	// there. Records that cannot be read are left out: the next number tells.
	Next(ctx context.Context) (Entry, error)
	// Newest is the number of the newest durable record, 0 if there is none. Unlike
	// the others it may be called at any time by any goroutine.
	Newest() (uint64, error)
}

// Sink is where records go. Its methods speak of the records of one host.
type Sink interface {
	// Ready reports whether records can be sent, with an error that says what to do.
	Ready(ctx context.Context) error
	// Reach returns the end of the run of records without a gap that the sink holds
	// behind after (after itself if there is none), and the newest it holds at all.
	Reach(ctx context.Context, hostID string, after uint64) (unbroken, newest uint64, err error)
	// Holds returns the leaf hashes of the records first to last that the sink has: of a number all that are different.
	Holds(ctx context.Context, hostID string, first, last uint64) (map[uint64][][32]byte, error)
	// Displace keeps a copy of those of the records first to last that have one of the leaf hashes, where nothing replaces it.
	Displace(ctx context.Context, hostID string, first, last uint64, leaves [][32]byte) error
	// Send stores the records. The same records with the same token are stored once.
	Send(ctx context.Context, token string, records [][]byte) error
	// Handed returns the leaf hashes of those of the notes that the sink has of a host's log.
	Handed(ctx context.Context, hostID string, notes [][]byte) (map[[32]byte]bool, error)
	// Changes returns the changes of key that the sink has of a host's log.
	Changes(ctx context.Context, hostID string) ([][]byte, error)
	// Notes hands over signed checkpoints that the sink has of a host's log, among them all over more than above records.
	Notes(ctx context.Context, hostID string, above uint64, fn func(signed []byte)) error
	// SendCheckpoint stores a signed checkpoint, or a change of key, over the first size records.
	SendCheckpoint(ctx context.Context, hostID string, size uint64, note []byte) error
}

// Options say whose journal it is and how to ship it.
type Options struct {
	HostID       string        // required
	PositionFile string        // "" keeps no hint
	BatchRows    int           // 10,000
	BatchBytes   int           // 8 MiB; one record may be larger
	FlushEvery   time.Duration // 1 s: how long a record waits for a batch to fill
	ConfirmEvery time.Duration // 5 s between questions whether all is there
	CheckEvery   time.Duration // 30 s between looks at a sink that there is nothing for
	Poll         time.Duration // 200 ms between looks at a journal without news
	Timeout      time.Duration // 60 s for one answer of the sink
	BackoffMin   time.Duration // 500 ms
	BackoffMax   time.Duration // 1 min

	// Checkpoint returns the newest signed checkpoint (the text of a C2SP
	// tlog-checkpoint), nil if there is none. Without it none are shipped.
	Checkpoint func() ([]byte, error)

	// Changes returns the changes of key (signed notes, in their order) that it did not return before. Without it none are
	// shipped, and who has the first key alone cannot follow the later ones.
	Changes func() ([][]byte, error)

	// Stand tells how signed notes (changes of key, and what each hands over) stand to the journal, of which end records
	// are there. Without it shipping stops at the first row that is not the journal's.
	Stand func(end uint64, changes [][]byte, each func(func(signed []byte)) error) (Standing, error)

	// Foreign is told of rows that are not the journal's, before others come to their place. It puts them on the record: on an
	// error shipping does not go on. The same ones are told again after a restart.
	Foreign func(ctx context.Context, f Foreign) error

	Now    func() time.Time
	Jitter func() float64                                  // in [0,1)
	Pause  func(ctx context.Context, d time.Duration) bool // waits between two tries; false: ctx is done
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	def(&o.BatchRows, 10_000)
	def(&o.BatchBytes, 8<<20)
	def(&o.FlushEvery, time.Second)
	def(&o.ConfirmEvery, 5*time.Second)
	def(&o.CheckEvery, 30*time.Second)
	def(&o.Poll, 200*time.Millisecond)
	def(&o.Timeout, time.Minute)
	def(&o.BackoffMin, 500*time.Millisecond)
	def(&o.BackoffMax, time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Pause == nil {
		o.Pause = sleep
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Stats are what status shows.
type Stats struct {
	Connected  bool      `json:"connected"`
	Shipped    uint64    `json:"shipped"`    // last record that the sink acknowledged
	Confirmed  uint64    `json:"confirmed"`  // last record that the sink, asked, said it holds
	Newest     uint64    `json:"newest"`     // newest durable record of the journal
	Lag        uint64    `json:"lag"`        // Newest - Shipped
	Batches    uint64    `json:"batches"`    // acknowledged since the start
	Retries    uint64    `json:"retries"`    // times that shipping had to begin again
	Repaired   uint64    `json:"repaired"`   // records sent again because the sink did not hold them
	Foreign    uint64    `json:"foreign"`    // rows that are not the journal's and stood where its own belong
	Skipped    uint64    `json:"skipped"`    // records that the journal could not give
	Checkpoint uint64    `json:"checkpoint"` // size of the last checkpoint sent
	LastError  string    `json:"last_error,omitempty"`
	ErrorTime  time.Time `json:"error_time,omitzero"`
}

// Shipper copies one host's journal to one sink.
type Shipper struct {
	src Source
	dst Sink
	o   Options

	// owned by Run
	pos      position
	held     *Entry // read, and not yet in a batch
	attempts int    // failures since the last acknowledged batch
	sealed   uint64 // size of the checkpoint last sent
	pending  uint64 // a checkpoint that waits until its records are confirmed
	note     []byte
	changes  [][]byte          // of key, not sent yet
	handed   map[[32]byte]bool // leaf hashes of those that the sink had when it was asked; nil: not asked yet
	judged   bool              // in this session: what is signed at the sink is this log, and not ahead of it
	ahead    uint64            // the highest number that the sink was seen to hold
	told     map[told]bool     // of which rows Foreign was told

	mu    sync.Mutex
	stats Stats
}

// New makes a Shipper. Nothing happens before Run.
func New(src Source, dst Sink, o Options) (*Shipper, error) {
	if o.HostID == "" {
		return nil, errors.New("ship: no host id")
	}
	o.setDefaults()
	return &Shipper{src: src, dst: dst, o: o}, nil
}

// Run ships until ctx is done and then returns nil. An error that is not the
// sink's or the journal's (the position file cannot be opened) is returned; all
// others are kept in Stats and tried again after a pause.
func (s *Shipper) Run(ctx context.Context) (err error) {
	f, err := openPosition(s.o.PositionFile, s.o.HostID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	s.pos, err = f.load()
	if err != nil {
		return err
	}
	for {
		err := s.session(ctx, f)
		if ctx.Err() != nil {
			s.update(func(st *Stats) { st.Connected = false })
			return nil
		}
		s.lost(err)
		if !s.o.Pause(ctx, s.pause()) {
			return nil
		}
	}
}

// Stats may be called at any time.
func (s *Shipper) Stats() Stats {
	newest, err := s.src.Newest()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	if err == nil {
		st.Newest = newest
	}
	if st.Newest > st.Shipped {
		st.Lag = st.Newest - st.Shipped
	}
	return st
}

func (s *Shipper) update(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

// lost records why a session ended. The log tells of the first failure and of one
// with another text, not of each attempt.
func (s *Shipper) lost(err error) {
	s.attempts++
	s.mu.Lock()
	news := s.stats.LastError != err.Error() || s.stats.Connected
	s.stats.Connected = false
	s.stats.Retries++
	s.stats.LastError, s.stats.ErrorTime = err.Error(), s.o.Now()
	s.mu.Unlock()
	if news {
		s.o.Logger.Warn("shipping stopped, will try again", "stage", "ship", "error", err)
	}
}

// pause doubles with each failure up to BackoffMax; half of it is random, so that
// a fleet does not come back in one moment.
func (s *Shipper) pause() time.Duration {
	d := s.o.BackoffMin
	for i := 1; i < s.attempts && d < s.o.BackoffMax; i++ {
		d *= 2
	}
	d = min(d, s.o.BackoffMax)
	return d/2 + time.Duration(s.o.Jitter()*float64(d/2))
}

// sleep waits and reports whether ctx is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
