package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/ship"
)

// buildShipper makes the shipper if a server is configured. It does not touch
// the network: a server that is away is no reason not to start.
func (d *Daemon) buildShipper() error {
	ch := d.cfg.ClickHouse
	if !ch.Enabled() {
		return nil
	}
	url, err := ch.Secret()
	if err != nil {
		return err
	}
	db, err := clickhouse.New(clickhouse.Config{
		URL: url, Cluster: ch.Cluster, KeepDays: ch.KeepDays, CAFile: ch.CAFile, CertFile: ch.CertFile, KeyFile: ch.KeyFile,
	})
	if err != nil {
		return err
	}
	r, err := journal.OpenReader(d.cfg.JournalDir())
	if err != nil {
		return errors.Join(err, db.Close())
	}
	r.Bounds = d.journal.Bounds
	d.shipDown = func() error { return errors.Join(r.Close(), db.Close()) }
	d.shipper, err = ship.New(source{Reader: r, dir: d.cfg.JournalDir()}, db, ship.Options{
		HostID: d.hostID, PositionFile: d.cfg.ShippedFile(), Logger: d.log,
		Checkpoint: func() ([]byte, error) { return journal.LatestCheckpoint(d.cfg.JournalDir()) },
		Changes:    journal.NewHandovers(d.cfg.JournalDir()),
		Stand: func(end uint64, changes [][]byte, each func(func([]byte)) error) (ship.Standing, error) {
			st, err := journal.Stand(d.cfg.JournalDir(), end, changes, each)
			return ship.Standing(st), err
		},
		Foreign: d.noteForeign,
	})
	return err
}

// foreignShown bounds the rows that a record names one by one; the hash is of all of them.
const foreignShown = 16

// noteForeign puts rows on the record that somebody else wrote to ClickHouse under this host's id.
func (d *Daemon) noteForeign(ctx context.Context, f ship.Foreign) error {
	first, last, sum := f.Rows[0].Seq, f.Rows[len(f.Rows)-1].Seq, f.Hash()
	detail := map[string]string{"first": count(first), "last": count(last)}
	reason := fmt.Sprintf("ClickHouse holds rows of this host up to number %d that its journal, which ends at %d, does not have: somebody else wrote them", last, f.End)
	if f.End == 0 {
		reason = fmt.Sprintf("ClickHouse held %d rows between number %d and %d of this host that are not its journal's: somebody else wrote them; they are kept in the table displaced, and the journal's own were sent", len(f.Rows), first, last)
		detail["rows"], detail["sha256"] = strconv.Itoa(len(f.Rows)), fmt.Sprintf("%x", sum)
	}
	for _, r := range f.Rows[:min(len(f.Rows), foreignShown)] {
		detail[fmt.Sprintf("leaf_%d_%x", r.Seq, r.Leaf[:2])] = fmt.Sprintf("%x", r.Leaf)
	}
	d.degrade("foreign rows", reason)
	_, err := d.journal.AppendDurable(ctx, &event.Record{Time: now(), Kind: event.RecAgent, Reason: reason, Detail: detail})
	return err
}

// source is the journal as the shipper reads it.
type source struct {
	*journal.Reader
	dir string
}

var _ ship.Source = source{}

func (s source) Next(ctx context.Context) (ship.Entry, error) {
	for {
		e, err := s.Reader.Next(ctx)
		switch {
		case errors.Is(err, journal.ErrCorrupt): // left out: the next number tells
		case errors.Is(err, io.EOF):
			return ship.Entry{}, io.EOF
		case err != nil:
			return ship.Entry{}, fmt.Errorf("read journal: %w", err)
		default:
			return ship.Entry{Seq: e.Seq, Bytes: e.Bytes}, nil
		}
	}
}

// Newest implements ship.Source.
func (s source) Newest() (uint64, error) {
	n, err := journal.Newest(s.dir)
	_, most := s.Reader.Bounds()
	return min(n, most), err
}
