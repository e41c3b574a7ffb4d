// Command fleet writes the history of a fleet that never was, for dashboards and
// benchmarks: to ClickHouse as shipping does, or as lines of JSON to standard output.
//
//	fleet [-seed N] [-hosts N] [-days N] [-busy N] [-until TIME] [-url URL]
//
// With -url the schema is applied first, and every record is encoded as the journal
// does and sent in batches with the token that shipping would give them, so that a
// second run adds nothing for as long as the server remembers tokens. -busy sets the
// size: 100 million records are -hosts 100 -days 100 -busy 9900. -until says when the
// last day ends (now by default with -url, so that dashboards show something).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query/fleettest"
)

func main() {
	var o fleettest.Options
	flag.Uint64Var(&o.Seed, "seed", 1, "the same seed gives the same history")
	flag.IntVar(&o.Hosts, "hosts", 8, "hosts")
	flag.IntVar(&o.Days, "days", 14, "days of history")
	flag.IntVar(&o.Busy, "busy", 100, "ordinary writes per host and day, -1 for none")
	until := flag.String("until", "", "end of the last day (RFC 3339)")
	url := flag.String("url", "", "ClickHouse to fill; without it JSON goes to standard output")
	batch := flag.Int("batch", 10_000, "records of one insert")
	flag.Parse()
	if err := run(context.Background(), o, *until, *url, *batch); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o fleettest.Options, until, url string, batch int) (err error) {
	switch {
	case until != "":
		if o.Until, err = time.Parse(time.RFC3339, until); err != nil {
			return err
		}
	case url != "":
		o.Until = time.Now().UTC().Truncate(time.Hour)
	}
	if url == "" {
		return lines(o)
	}
	db, err := clickhouse.Open(ctx, clickhouse.Config{URL: url})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.Apply(ctx); err != nil {
		return err
	}
	began, n := time.Now(), 0
	for i, id := range o.HostIDs() {
		sent, err := ship(ctx, db, o, i, id, batch)
		if err != nil {
			return err
		}
		n += sent
	}
	took := time.Since(began).Seconds()
	fmt.Printf("%d records of %d hosts in %.1f s, %.0f records/s\n", n, o.Hosts, took, float64(n)/took)
	return nil
}

// ship sends the records of one host.
func ship(ctx context.Context, db *clickhouse.DB, o fleettest.Options, i int, id string, batch int) (n int, err error) {
	var rows []clickhouse.Row
	flush := func() error {
		if len(rows) == 0 {
			return nil
		}
		first, last := rows[0].Record.Seq, rows[len(rows)-1]
		token := fmt.Sprintf("%s/%d-%d/%x", id, first, last.Record.Seq, clickhouse.Leaf(last.Bytes))
		n += len(rows)
		err := db.Insert(ctx, token, rows)
		rows = rows[:0]
		return err
	}
	err = o.Records(i, func(r *event.Record) error {
		b, err := journal.Encode(r)
		if err != nil {
			return err
		}
		if rows = append(rows, clickhouse.Row{Record: r, Bytes: b}); len(rows) == batch {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	return n, err
}

func lines(o fleettest.Options) error {
	w := bufio.NewWriter(os.Stdout)
	e := json.NewEncoder(w)
	for i := range o.Hosts {
		if err := o.Records(i, func(r *event.Record) error { return e.Encode(r) }); err != nil {
			return err
		}
	}
	return w.Flush()
}
