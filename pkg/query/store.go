package query

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// ErrNotFound: no record is what was asked for.
var ErrNotFound = errors.New("not found")

// Store answers questions about records.
type Store interface {
	// Records calls fn with each record that f selects, by ascending sequence; if the
	// store has several hosts and f names none, by time, host id and sequence. With a Limit these
	// are the last ones of that order. An error of fn ends the walk and is returned.
	// The record belongs to fn, which may ask the store again.
	Records(ctx context.Context, f Filter, fn func(*event.Record) error) error
	// Lag tells how far behind the journal the answers are.
	Lag(ctx context.Context) (Lag, error)
	Close() error
}

// Follower is a Store that can be followed over several hosts, whose sequences say nothing of each other.
type Follower interface {
	// Follow calls fn with what Records gives and then with what comes, until ctx ends
	// or fn returns an error, which it returns. It calls idle whenever there is nothing
	// to give for now, with the trouble, if any, because of which it will ask again.
	Follow(ctx context.Context, f Filter, fn func(*event.Record) error, idle func(trouble error) error) error
}

// ErrReadOnly: SQL would have changed something.
var ErrReadOnly = errors.New("only questions are answered")

// ErrNoIndex: the journal alone answers no SQL.
var ErrNoIndex = errors.New("SQL is asked of the index, and there is none that can be used")

// SQL is a Store that can be asked in the words of its engine.
type SQL interface {
	// SQL runs one statement that changes nothing; whatever would is refused by the
	// engine. It calls begin with the names of the columns and then row with the values
	// of each row, which it uses again for the next.
	SQL(ctx context.Context, text string, begin func(columns []string) error, row func(values []any) error) error
}

// Lag is how far a store is behind.
type Lag struct {
	Newest uint64     `json:"newest"`         // newest record that answers contain
	Behind uint64     `json:"behind"`         // signed records that they do not contain yet, where that is known
	Time   event.Time `json:"time,omitzero"`  // of the newest record
	Note   string     `json:"note,omitempty"` // what a reader should know, such as that the index is missing
}

// errStop ends a walk that has found what it looked for.
var errStop = errors.New("stop")

// Who returns the newest change of path, as its path or as the other name of a
// rename or link; if it never changed, the newest refused attempt to. host, a name or an id, may be "".
func Who(ctx context.Context, s Store, path, host string) (*event.Record, error) {
	for _, kind := range []string{event.RecChange, event.RecAttempt} {
		var found *event.Record
		err := s.Records(ctx, Filter{Path: Quote(path), Host: host, Kind: kind, Limit: 1}, func(r *event.Record) error {
			if found == nil || r.Time >= found.Time { // of several hosts the latest
				found = r
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if found != nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("who changed %s: %w", path, ErrNotFound)
}

// Get returns the record with that id (host_id/boot/seq).
func Get(ctx context.Context, s Store, id string) (*event.Record, error) {
	hostID, seq, err := SplitID(id)
	if err != nil {
		return nil, err
	}
	var found *event.Record
	err = s.Records(ctx, Filter{Host: hostID, AfterSeq: seq - 1}, func(r *event.Record) error {
		if r.ID == id {
			found = r
			return errStop
		}
		if r.Seq > seq && r.HostID == hostID {
			return errStop
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("record %s: %w", id, ErrNotFound)
	}
	return found, nil
}

// SplitID reads the host id and the sequence of a record's id.
func SplitID(id string) (hostID string, seq uint64, err error) {
	p := strings.Split(id, "/")
	if len(p) == 3 && p[0] != "" {
		if _, err := fmt.Sscanf(p[2], "%d", &seq); err == nil && seq > 0 && fmt.Sprint(seq) == p[2] {
			return p[0], seq, nil
		}
	}
	return "", 0, fmt.Errorf("record id %q: want host_id/boot/sequence", id)
}

// Follow calls fn with each record that next gives and f selects, until next or fn
// returns an error, which Follow returns. next is a reader of the journal that waits at the end, decoded:
// it gives the records in order. Limit is left aside.
func Follow(ctx context.Context, next func(context.Context) (*event.Record, error), f Filter, fn func(*event.Record) error) error {
	for {
		r, err := next(ctx)
		if err != nil {
			return err
		}
		if !f.Match(r) {
			continue
		}
		if err := fn(r); err != nil {
			return err
		}
	}
}
