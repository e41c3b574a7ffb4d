package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast/holdfast/pkg/clickhouse"
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
	})
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
