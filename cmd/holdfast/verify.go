package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/index"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/ship"
)

func (a *app) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "prove the log: every record, link and checkpoint; exit 6 on any difference",
		Flags: append(fleetFlags(),
			&cli.StringFlag{Name: "against", Usage: "compare the rows of `STORE` too: clickhouse or index"},
			&cli.StringFlag{Name: "key", Usage: "check signatures with the verifier key in `FILE`, kept elsewhere than the log"},
			&cli.StringSliceFlag{Name: "checkpoint", Aliases: []string{"checkpoints"}, Usage: "the log must contain the signed checkpoints in `FILE`, as they are or as a syslog kept them; may be repeated"},
			&cli.StringFlag{Name: "proof", Usage: "check the document in `FILE` that show --prove made, with --key, and that it is of the log of a --checkpoint, if given; - reads it from standard input"},
			jsonFlag(),
		),
		Action: a.verify,
	}
}

// proof is the last line of verify --json.
type proof struct {
	OK         bool                   `json:"ok"`
	Journal    journal.Summary        `json:"journal"`
	ClickHouse *clickhouse.Comparison `json:"clickhouse,omitempty"`
	Shipped    uint64                 `json:"shipped,omitempty"` // the last record that was compared
	Index      *index.Comparison      `json:"index,omitempty"`
}

func (a *app) verify(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	if c.IsSet("proof") {
		return a.checkProof(c)
	}
	if c.Bool("fleet") {
		return a.verifyFleet(c)
	}
	for _, f := range []string{"host", "witness", "whole"} {
		if c.IsSet(f) {
			return hint(usagef("--%s is for a whole fleet", f), "use --against clickhouse --fleet")
		}
	}
	against := c.String("against")
	if !slices.Contains([]string{"", "clickhouse", "index"}, against) {
		return hint(usagef("--against: unknown store %q", against), "use --against clickhouse or --against index")
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	key, known, err := evidence(c.String("key"), c.StringSlice("checkpoint"))
	if err != nil {
		return err
	}
	if _, err := os.ReadDir(cfg.JournalDir()); err != nil {
		return stateError(cfg, fmt.Errorf("verify: %w", err))
	}
	var p proof
	var db *clickhouse.DB
	if against == "clickhouse" {
		if db, err = a.openClickHouse(c.Context, cfg); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		kept, err := checkpointsOf(c.Context, db, cfg)
		if err != nil {
			return err
		}
		known = append(known, kept...)
	}
	p.Journal, err = journal.Verify(c.Context, cfg.JournalDir(), key, func(prob journal.Problem) {
		if c.Bool("json") {
			err = errors.Join(err, a.json(prob))
			return
		}
		a.linef("%s: %s", a.color(red, strings.ReplaceAll(prob.Kind, "_", " ")), printableText(prob.Text))
	}, known...)
	if err != nil {
		return stateError(cfg, err)
	}
	p.OK = p.Journal.OK()
	switch against {
	case "clickhouse":
		err = a.verifyRows(c, cfg, db, &p)
	case "index":
		err = a.verifyIndex(c, cfg, &p)
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if err := a.json(p); err != nil {
			return err
		}
	} else {
		a.printProof(&p, key == "")
	}
	if !p.OK {
		return silent{errUnproven}
	}
	return nil
}

// evidence reads what was kept elsewhere than the log.
func evidence(keyFile string, checkpoints []string) (key string, known [][]byte, err error) {
	if f := keyFile; f != "" {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", nil, usageError{fmt.Errorf("--key: %w", err)}
		}
		if key = strings.TrimSpace(string(b)); key == "" {
			return "", nil, hint(usagef("--key %s: the file is empty", shellQuote(f)), "it holds the one line of keys/journal.pub")
		}
	}
	for _, f := range checkpoints {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", nil, usageError{fmt.Errorf("--checkpoint: %w", err)}
		}
		known = append(known, journal.Notes(b)...)
	}
	return key, known, nil
}

// checkpointsOf asks the server for the host's checkpoints: what was once signed and shipped must be in the log.
func checkpointsOf(ctx context.Context, db *clickhouse.DB, cfg config.Config) ([][]byte, error) {
	newest, err := journal.LatestCheckpoint(cfg.JournalDir())
	if err != nil || newest == nil {
		return nil, err
	}
	s, err := journal.ReadSigned(newest)
	if err != nil {
		return nil, nil // verify tells of it
	}
	return db.Checkpoints(ctx, hostOf(s.Origin))
}

// hostOf is the host id in a log's name.
func hostOf(origin string) string { return origin[strings.LastIndexByte(origin, '/')+1:] }

// shipped returns up to which record rows must be there: what a running daemon has had acknowledged, or else what the
// server confirmed last, or holds now.
func (a *app) shipped(ctx context.Context, cfg config.Config, db *clickhouse.DB, p *proof) (uint64, error) {
	st, err := control.NewClient(cfg.Socket).Status(ctx)
	switch {
	case err == nil && st.State == cfg.State && st.Ship.Enabled:
		return min(p.Journal.Size, st.Ship.Shipped), nil
	case err != nil && !errors.Is(err, control.ErrNotRunning) && !errors.Is(err, control.ErrForbidden):
		return 0, err
	}
	host := hostOf(p.Journal.Origin)
	confirmed, err := ship.Confirmed(cfg.ShippedFile(), host)
	if err != nil {
		return 0, err
	}
	_, newest, err := db.Reach(ctx, host, math.MaxInt64)
	return min(p.Journal.Size, max(confirmed, newest)), err
}

// verifyRows compares the rows of ClickHouse with the records. What was not
// shipped yet is left out.
func (a *app) verifyRows(c *cli.Context, cfg config.Config, db *clickhouse.DB, p *proof) (err error) {
	if p.Shipped, err = a.shipped(c.Context, cfg, db, p); err != nil {
		return err
	}
	r, err := journal.OpenReader(cfg.JournalDir())
	if err != nil {
		return stateError(cfg, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var printErr error
	report := func(d clickhouse.Difference) {
		if c.Bool("json") {
			printErr = errors.Join(printErr, a.json(d))
			return
		}
		a.linef("%s: %s", a.color(red, "clickhouse "+d.What), printableText(d.String()))
	}
	host := hostOf(p.Journal.Origin)
	comp := clickhouse.Comparison{}
	if p.Shipped >= p.Journal.First {
		comp, err = db.Compare(c.Context, host, p.Journal.First, p.Shipped, records(r), report)
	}
	if err == nil {
		err = beyond(c.Context, cfg, db, host, &comp, report)
	}
	p.ClickHouse = &comp
	p.OK = p.OK && comp.Clean()
	return errors.Join(err, printErr)
}

// beyond looks for rows behind the end of the log. The rows are asked for first: what is shipped meanwhile was in the log before.
func beyond(ctx context.Context, cfg config.Config, db *clickhouse.DB, host string, comp *clickhouse.Comparison, report func(clickhouse.Difference)) error {
	_, newest, err := db.Reach(ctx, host, math.MaxUint64)
	if err != nil {
		return err
	}
	end, err := journal.Newest(cfg.JournalDir())
	if err != nil || newest <= end {
		return err
	}
	comp.Extra++
	report(clickhouse.Difference{What: clickhouse.Extra, HostID: host, Seq: newest, Detail: fmt.Sprintf("the newest row; the log ends at record %d", end)})
	return nil
}

// verifyIndex compares the index with the records.
func (a *app) verifyIndex(c *cli.Context, cfg config.Config, p *proof) error {
	var printErr error
	comp, err := index.Compare(c.Context, cfg.IndexFile(), cfg.JournalDir(), func(d index.Difference) {
		if c.Bool("json") {
			printErr = errors.Join(printErr, a.json(d))
			return
		}
		text := d.Detail
		if d.Seq != 0 {
			text = strings.TrimSuffix(fmt.Sprintf("record %d: %s", d.Seq, d.Detail), ": ")
		}
		a.linef("%s: %s", a.color(red, "index "+d.What), printableText(text))
	})
	if errors.Is(err, fs.ErrNotExist) || err != nil && !exists(cfg.IndexFile()) {
		return hint(fmt.Errorf("there is no index in %s: %w", shellQuote(cfg.IndexFile()), errNotFound), "the daemon builds one; holdfast index rebuild does it without")
	}
	p.Index = &comp
	p.OK = p.OK && comp.Clean()
	return errors.Join(err, printErr)
}

// records hands out the journal's records; those that cannot be read were
// reported by journal.Verify and are passed over.
func records(r *journal.Reader) clickhouse.NextRecord {
	return func(ctx context.Context) (uint64, []byte, error) {
		for {
			e, err := r.Next(ctx)
			if errors.Is(err, journal.ErrCorrupt) {
				continue
			}
			if err != nil {
				return 0, nil, err
			}
			return e.Seq, e.Bytes, nil
		}
	}
}

func (a *app) printProof(p *proof, ownKey bool) {
	s := &p.Journal
	a.linef("log         %s", printableText(s.Origin))
	a.linef("checkpoint  %s, root %s, signed %s", plural(s.Size, "record"), s.Root, when(s.Time))
	if s.First > 1 {
		a.linef("expired     records 1 to %d; their hashes are kept", s.First-1)
	}
	a.linef("records     %d read, %d as signed, %d missing, %d altered, %d moved, %d extra, %d duplicated", s.Records, s.Matched, s.Missing, s.Altered, s.Moved, s.Extra, s.Duplicated)
	a.linef("checkpoints %d with good signatures, key %d of the chain from %s, %s", s.Checkpoints, s.Keys, printableText(s.Key), plural(uint64(s.Segments), "segment"))
	if s.Unsealed > 0 || s.UnsealedTorn > 0 {
		text := plural(s.Unsealed, "record") + " not signed yet"
		if s.UnsealedAge != "" {
			text += ", the oldest for " + s.UnsealedAge
		}
		a.linef("unsealed    %s", text)
	}
	if s.Recovered > 0 {
		a.linef("recovered   %s found unsigned after a crash, signed then", plural(s.Recovered, "record"))
	}
	a.linef("losses      %s declared", plural(s.LossDeclared, "event"))
	if ch := p.ClickHouse; ch != nil {
		a.linef("clickhouse  up to record %d: %d records, %d rows, %d matched, %d missing, %d altered, %d extra, %d duplicated",
			p.Shipped, ch.Records, ch.Rows, ch.Matched, ch.Missing, ch.Altered, ch.Extra, ch.Duplicated)
		if n := s.Size - min(s.Size, p.Shipped); n > 0 {
			a.linef("            %s not shipped yet", plural(n, "record"))
		}
	}
	if x := p.Index; x != nil {
		a.linef("index       %d records, %d rows, %d matched, %d missing, %d altered, %d extra, %d not indexed yet", x.Records, x.Rows, x.Matched, x.Missing, x.Altered, x.Extra, x.Behind)
		if x.Expired > 0 {
			a.linef("            %s of expired records cannot be checked: nothing is left to hold them against; questions do not see them, sql does", plural(x.Expired, "row"))
		}
	}
	if p.OK {
		a.linef("%s", a.color(green, "verified"))
	} else {
		a.linef("%s", a.color(red, fmt.Sprintf("not verified: %s", plural(uint64(s.Problems)+rowProblems(p), "problem"))))
	}
	if ownKey {
		a.line("note: the key was taken from beside the log; keep copies of keys/journal.pub and journal/checkpoint elsewhere and use --key and --checkpoint")
	}
}

func rowProblems(p *proof) (n uint64) {
	if c := p.ClickHouse; c != nil {
		n += c.Missing + c.Extra + c.Altered + c.Duplicated
	}
	if x := p.Index; x != nil {
		n += x.Missing + x.Extra + x.Altered
	}
	return n
}
