package publish

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Note is a signed checkpoint.
type Note struct {
	Signed []byte
	Line   string // the same as one line of text
	Size   uint64
	Time   time.Time
}

// Log gives what is to be sent. Its methods are called by the goroutine of Run.
type Log interface {
	// Latest returns the newest checkpoint, false if there is none.
	Latest() (Note, bool, error)
	// Handovers returns the notes by which keys named their successors, in order.
	Handovers() ([]Note, error)
}

// Place keeps notes.
type Place interface {
	Name() string
	// Send keeps all notes or returns an error; then they are sent again.
	Send(ctx context.Context, notes []Note) error
}

// Options of New.
type Options struct {
	Every  time.Duration // shortest time between two checkpoints; 1 min
	Now    func() time.Time
	Logger *slog.Logger
}

// Stats tell how far one place is.
type Stats struct {
	Name      string
	Sent      uint64    // checkpoints
	Size      uint64    // of the newest that was sent
	Time      time.Time // of the same
	Errors    uint64
	LastError string // "" after a success
}

// Publisher sends one log's checkpoints to all places.
type Publisher struct {
	log    Log
	o      Options
	places []*placed

	mu sync.Mutex // guards the stats
}

type placed struct {
	Place
	begun bool
	keys  int // handovers that were sent or are older than a day: they come in order, whatever the clock does
	stats Stats
}

// New makes a Publisher. Nothing happens before Run.
func New(log Log, places []Place, o Options) *Publisher {
	if o.Every <= 0 {
		o.Every = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Publisher{log: log, o: o}
	for _, to := range places {
		p.places = append(p.places, &placed{Place: to, stats: Stats{Name: to.Name()}})
	}
	return p
}

// sendWithin bounds one attempt on one place.
const sendWithin = 10 * time.Second

// Run sends until ctx ends, and then once more what is new.
func (p *Publisher) Run(ctx context.Context) error {
	t := time.NewTicker(p.o.Every)
	defer t.Stop()
	for {
		p.pass(context.WithoutCancel(ctx))
		select {
		case <-ctx.Done():
			p.pass(context.WithoutCancel(ctx))
			return nil
		case <-t.C:
		}
	}
}

// pass offers each place what it does not have. Places do not wait for each other.
func (p *Publisher) pass(ctx context.Context) {
	latest, ok, err := p.log.Latest()
	if err != nil {
		p.o.Logger.Error("checkpoint cannot be read", "err", err)
		return
	}
	if !ok {
		return
	}
	handed, err := p.log.Handovers()
	if err != nil {
		p.o.Logger.Error("chain of keys cannot be read", "err", err)
		return
	}
	var wait sync.WaitGroup
	for _, to := range p.places {
		wait.Go(func() { p.send(ctx, to, latest, handed) })
	}
	wait.Wait()
}

func (p *Publisher) send(ctx context.Context, to *placed, latest Note, handed []Note) {
	var notes []Note
	from := to.keys
	if len(handed) < from { // another log
		from = 0
	}
	for i, n := range handed[from:] {
		if to.begun || n.Time.After(p.o.Now().Add(-24*time.Hour)) || from+i == len(handed)-1 {
			notes = append(notes, n)
		}
	}
	if to.begun && len(notes) == 0 && latest.Size == to.stats.Size {
		return
	}
	notes = append(notes, latest)
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	err := to.Send(ctx, notes)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if to.stats.LastError == "" {
			p.o.Logger.Warn("checkpoint was not sent", "path", to.stats.Name, "err", err)
		}
		to.stats.Errors++
		to.stats.LastError = err.Error()
		return
	}
	to.begun = true
	to.keys = len(handed)
	to.stats.Sent++
	to.stats.Size, to.stats.Time, to.stats.LastError = latest.Size, latest.Time, ""
}

// Stats may be called at any time.
func (p *Publisher) Stats() []Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Stats, len(p.places))
	for i, to := range p.places {
		out[i] = to.stats
	}
	return out
}
