package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/journal"
)

const (
	auditsAtOnce = 2    // hosts whose rows are read at the same time
	namedMost    = 1000 // differences of one host that are named; the rest is counted
)

// fleetFlags are those of verify --fleet.
func fleetFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "fleet", Usage: "with --against clickhouse: prove the rows of every host there, on a machine that needs no log of its own; --key and --checkpoint may then hold those of many hosts"},
		&cli.StringFlag{Name: "host", Usage: "with --fleet: only `HOST` (name or host id)"},
		&cli.StringFlag{Name: "witness", Usage: "with --fleet: keep in `DIR` what was proven, so that the next verify needs what is new alone, and sees what was rewritten since"},
		&cli.BoolFlag{Name: "whole", Usage: "with --fleet and --witness: prove what was proven before, too"},
	}
}

// audit is one host of verify --fleet.
type audit struct {
	clickhouse.Audited
	OK    bool   `json:"ok"`
	Trust string `json:"trust"` // where the first key is from: given, kept (by an earlier verify), server
	Error string `json:"error,omitempty"`

	lines []any // problems and differences, in the order in which they were found
	more  int   // that are not in lines
	err   error // the audit could not be done
	done  chan struct{}
}

// fleetProof is the last line of verify --fleet --json.
type fleetProof struct {
	OK       bool   `json:"ok"`
	Hosts    int    `json:"hosts"`
	Proven   int    `json:"proven"` // hosts without a problem
	Rows     uint64 `json:"rows"`
	Unsigned uint64 `json:"unsigned"`
}

func (a *app) verifyFleet(c *cli.Context) (err error) {
	if c.String("against") != "clickhouse" {
		return hint(usagef("--fleet proves the rows of ClickHouse"), "use --against clickhouse --fleet")
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	keys, err := keysOf(c.String("key"))
	if err != nil {
		return err
	}
	_, kept, err := evidence("", c.StringSlice("checkpoint"))
	if err != nil {
		return err
	}
	db, err := a.openClickHouse(c.Context, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	ids, names, err := db.Logs(c.Context, c.String("host"))
	if err != nil {
		return err
	}
	dir := c.String("witness")
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return usageError{fmt.Errorf("--witness: %w", err)}
		}
		before, err := journal.Pinned(dir)
		if err != nil {
			return fmt.Errorf("--witness: %w", err)
		}
		for _, id := range before {
			if !slices.Contains(ids, id) && (c.String("host") == "" || c.String("host") == id) {
				ids = append(ids, id)
			}
		}
	}
	for id := range keys {
		if !slices.Contains(ids, id) && (c.String("host") == "" || c.String("host") == id) {
			ids = append(ids, id)
		}
	}
	if slices.Sort(ids); len(ids) == 0 {
		return fmt.Errorf("ClickHouse has no rows of such a host: %w", errNotFound)
	}
	all := make([]*audit, len(ids))
	for i, id := range ids {
		all[i] = &audit{Audited: clickhouse.Audited{HostID: id, Host: names[id]}, done: make(chan struct{})}
	}
	ctx, cancel := context.WithCancel(c.Context)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	next := make(chan *audit)
	for range auditsAtOnce {
		wait.Go(func() {
			for h := range next {
				h.err = h.run(ctx, db, auditOf{key: keys[h.HostID], kept: kept, witness: dir, whole: c.Bool("whole")})
				close(h.done)
			}
		})
	}
	wait.Go(func() {
		defer close(next)
		for _, h := range all {
			select {
			case next <- h:
			case <-ctx.Done():
				return
			}
		}
	})
	sum := fleetProof{OK: true, Hosts: len(all)}
	for _, h := range all {
		select {
		case <-h.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if h.err != nil {
			return h.err
		}
		if sum.OK = sum.OK && h.OK; h.OK {
			sum.Proven++
		}
		sum.Rows += h.Rows
		sum.Unsigned += h.Unsigned
		if err := a.printAudit(h, c.Bool("json")); err != nil {
			return err
		}
	}
	if err := a.printFleet(sum, all, c.Bool("json")); err != nil {
		return err
	}
	if !sum.OK {
		return silent{errUnproven}
	}
	return nil
}

// auditOf is what an audit of a host goes by.
type auditOf struct {
	key     string
	kept    [][]byte
	witness string // "" keeps nothing
	whole   bool
}

// run asks for the notes first: the rows under them were there before.
func (h *audit) run(ctx context.Context, db *clickhouse.DB, o auditOf) error {
	notes, err := db.Changes(ctx, h.HostID)
	if err != nil {
		return err
	}
	points, err := db.Checkpoints(ctx, h.HostID)
	if err != nil {
		return err
	}
	notes = append(notes, points...)
	for _, n := range o.kept {
		if s, err := journal.ReadSigned(n); err != nil || hostOf(s.Origin) == h.HostID {
			notes = append(notes, n) // what nobody can read is told of for each host
		}
	}
	var pin *journal.Pin
	if o.witness != "" {
		if pin, err = journal.ReadPin(o.witness, h.HostID); err != nil {
			return fmt.Errorf("--witness: %w", err)
		}
	}
	switch {
	case o.key != "":
		h.Trust = "given"
	case pin != nil:
		h.Trust = "kept"
	default:
		h.Trust = "server"
	}
	a, err := journal.NewAudit(h.HostID, o.key, pin, o.whole, notes, func(p journal.Problem) { h.add(p) })
	if errors.Is(err, journal.ErrNoKey) {
		h.Error = "not proven: neither ClickHouse nor --key nor --witness tells with which key this log began"
		return nil
	}
	if err != nil {
		h.Error = "not proven: " + err.Error()
		return nil
	}
	sum, pin, err := db.AuditHost(ctx, h.HostID, a, func(d clickhouse.Difference) { h.add(d) })
	if err != nil {
		return err
	}
	sum.Host = h.Host
	h.Audited, h.OK = sum, sum.OK()
	if pin == nil || o.witness == "" {
		return nil
	}
	if err := pin.Write(o.witness); err != nil {
		return fmt.Errorf("--witness: %w", err)
	}
	return nil
}

func (h *audit) add(what any) {
	if len(h.lines) < namedMost {
		h.lines = append(h.lines, what)
	} else {
		h.more++
	}
}

func (a *app) printAudit(h *audit, asJSON bool) error {
	if asJSON {
		for _, l := range h.lines {
			var err error
			if p, ok := l.(journal.Problem); ok {
				err = a.json(struct {
					HostID string `json:"host_id"`
					journal.Problem
				}{h.HostID, p})
			} else {
				err = a.json(l)
			}
			if err != nil {
				return err
			}
		}
		return a.json(h)
	}
	name := printableText(strings.TrimPrefix(h.Host+" "+h.HostID, " "))
	for _, l := range h.lines {
		switch x := l.(type) {
		case journal.Problem:
			a.linef("%s  %s: %s", name, a.color(red, strings.ReplaceAll(x.Kind, "_", " ")), printableText(x.Text))
		case clickhouse.Difference:
			a.linef("%s  %s: %s", name, a.color(red, "clickhouse "+x.What), printableText(x.String()))
		}
	}
	if h.more > 0 {
		a.linef("%s  and %d more of these", name, h.more)
	}
	if h.Error != "" {
		a.linef("%s  %s", name, a.color(red, printableText(h.Error)))
		return nil
	}
	text := fmt.Sprintf("%s read, proven up to record %d, signed %s", plural(h.Rows, "row"), h.Proven, h.Signed)
	switch {
	case h.Proven == 0:
		text = plural(h.Rows, "row") + " read, none proven"
	case h.From > 1:
		text = fmt.Sprintf("%s from record %d on, %s", plural(h.Rows, "row"), h.From, strings.TrimPrefix(text, plural(h.Rows, "row")+" read, "))
	}
	if h.Unsigned > 0 {
		text += fmt.Sprintf("; %d not signed yet", h.Unsigned)
	}
	if h.Trust == "server" {
		text += "; key as ClickHouse has it"
	}
	ok := a.color(green, "ok")
	if !h.OK {
		ok = a.color(red, "not verified")
	}
	a.linef("%s  %s: %s", name, ok, text)
	return nil
}

func (a *app) printFleet(sum fleetProof, all []*audit, asJSON bool) error {
	if asJSON {
		return a.json(sum)
	}
	text := a.color(green, "verified")
	if !sum.OK {
		text = a.color(red, fmt.Sprintf("not verified: %d of %s", sum.Hosts-sum.Proven, plural(uint64(sum.Hosts), "host")))
	}
	a.linef("%s, %s: %s", plural(uint64(sum.Hosts), "host"), plural(sum.Rows, "row"), text)
	if slices.ContainsFunc(all, func(h *audit) bool { return h.Trust == "server" }) {
		a.line("note: a key that ClickHouse itself tells of proves that rows and checkpoints there agree, not whose they are; give keys/journal.pub of each host with --key, and keep what was proven with --witness")
	}
	return nil
}

// keysOf reads verifier's keys, one a line, by the id of their host.
func keysOf(file string) (map[string]string, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError{fmt.Errorf("--key: %w", err)}
	}
	keys, err := journal.ReadKeys(string(b))
	if err != nil {
		return nil, hint(usagef("--key %s: %v", shellQuote(file), err), "it holds lines of keys/journal.pub, one for each host")
	}
	return keys, nil
}
