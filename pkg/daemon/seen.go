package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/regular"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/rehash"
)

// mark says how far everything was seen to its end: changes before Time have their
// records, up to Seq of the log, the vault knows what these tell of, and no gap or mass
// change among them is open. What is behind it is looked through at the next start.
type mark struct {
	Time event.Time
	Seq  uint64
}

// markFile holds the mark as one line of text. It is overwritten in place: one that
// a crash tore is none, and one that is older than the truth costs time alone.
func markFile(state string) string { return filepath.Join(state, "seen") }

func readMark(state string) (m mark, err error) {
	b, err := regular.ReadFile(markFile(state), 4<<10)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, regular.ErrNot) {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, fmt.Errorf("read how far was seen: %w", err)
	}
	line, whole := strings.CutSuffix(string(b), "\n")
	if n, _ := fmt.Sscanf(line, "%d %d", &m.Seq, &m.Time); n != 2 || !whole {
		return mark{}, nil
	}
	return m, nil
}

// write replaces the mark. The line has always the same length.
func (m mark) write(state string) error {
	f, _, err := regular.Make(markFile(state), os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write how far was seen: %w", err)
	}
	_, err = fmt.Fprintf(f, "%020d %020d\n", m.Seq, m.Time)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write how far was seen: %w", err)
	}
	return nil
}

// How often the mark moves: while something happens, and while nothing does.
const (
	markEvery = time.Second
	markIdle  = event.Time(time.Minute)
)

// settled is the mark that holds once everything so far is durable.
func (d *Daemon) settled() mark {
	return mark{Seq: d.journal.Stats().Seq, Time: d.clock.Wall(d.pipe.Settled())}
}

// moveMark writes the mark of the last time, now that what it stands for is
// durable; next is taken before the vault was synced.
func (d *Daemon) moveMark(next mark) error {
	at := d.marked
	if !d.pipe.Quiet() || d.pipe.Storm().On || d.journal.Stats().Durable < at.Seq {
		return nil
	}
	d.marked = next
	if at.Seq == 0 || at.Seq == d.wrote.Seq && at.Time < d.wrote.Time+markIdle {
		return nil
	}
	d.wrote = at
	return at.write(d.cfg.State)
}

// before is what an earlier run left: what the records behind the mark tell.
type before struct {
	from event.Time       // since when nothing was seen, 0 if there was no earlier run
	open []pipeline.Prior // gaps that were not closed
	told []rehash.Told    // what its last records tell

	storm bool // a mass change was under way: nothing became trusted
}

// readBefore reads the end of the log of the earlier run.
func readBefore(ctx context.Context, dir string, m mark) (before, error) {
	b := before{from: m.Time}
	r, err := journal.OpenReader(dir)
	if err != nil {
		return b, err
	}
	defer r.Close()
	if err := r.Seek(m.Seq + 1); err != nil {
		return b, err
	}
	var newest event.Time
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, journal.ErrCorrupt) {
			continue // verify tells of it
		}
		if err != nil {
			return b, fmt.Errorf("read the end of the journal: %w", err)
		}
		rec, err := journal.Decode(e.Bytes)
		if err != nil {
			continue
		}
		newest = max(newest, rec.Time, rec.TimeEnd)
		b.note(rec)
	}
	if b.from == 0 {
		b.from = newest
	}
	for i := range b.told {
		b.told[i].Expected = b.told[i].Expected && !b.storm
	}
	return b, nil
}

func (b *before) note(r *event.Record) {
	switch {
	case r.Kind == event.RecGap && r.Gap != nil:
		b.gap(r)
	case r.Kind == event.RecAgent && r.Op == "storm":
		b.storm = true
	case r.After != nil && (r.Kind == event.RecChange || r.Kind == event.RecResponse):
		b.told = append(b.told, rehash.Told{
			Path: string(event.Untext(r.Path)), To: string(event.Untext(r.PathTo)), After: *r.After, ID: r.ID,
			Moved: r.Op == event.OpRename.String(), Exchanged: slices.Contains(r.Ops, "exchange"),
			Expected: r.Kind == event.RecChange && r.Verdict == event.VerdictExpected,
		})
	}
}

func (b *before) gap(r *event.Record) {
	g := *r.Gap
	if g.Rescan == "" {
		return // no change is missing
	}
	if g.Of == "" {
		b.open = append(b.open, pipeline.Prior{ID: r.ID, Gap: g})
		return
	}
	if g.Rescan != event.RescanDone {
		return
	}
	for i, o := range b.open {
		if o.ID == g.Of {
			b.open = append(b.open[:i], b.open[i+1:]...)
			return
		}
	}
}
