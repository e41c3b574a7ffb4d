package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
)

func (a *app) showCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "print one record in full; ID is its id, or its number on this host",
		ArgsUsage: "ID",
		Flags: []cli.Flag{
			jsonFlag(), storeFlag(),
			&cli.BoolFlag{Name: "prove", Usage: "print a document that proves the record to whoever has the verifier key: holdfast verify --proof"},
			&cli.StringFlag{Name: "checkpoint", Usage: "with --prove: prove also that the log goes on from the signed checkpoint in `FILE` (the last of several); without ID, that alone"},
		},
		Action: a.show,
	}
}

func (a *app) show(c *cli.Context) (err error) {
	if c.IsSet("checkpoint") && (c.NArg() == 0 || !c.Bool("prove")) {
		return a.proveEarlier(c)
	}
	if err := someArgs(c, "ID", 1, 1); err != nil {
		return err
	}
	s, err := a.openStore(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r, err := get(c.Context, s, c.Args().First())
	if err != nil {
		return err
	}
	if c.Bool("prove") {
		return a.prove(c, r)
	}
	if c.Bool("json") {
		return a.json(r)
	}
	answers, err := responses(c.Context, s, r)
	if err != nil {
		return err
	}
	if err := a.printRecord(r); err != nil {
		return err
	}
	for _, x := range answers {
		a.linef("%s %s (record %d)", a.color(dim, pad("answered by", 24)), responseText(x), x.Seq)
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	if err := a.printProofOf(c.Context, cfg, r); err != nil {
		return err
	}
	return errors.Join(a.printDiffOf(cfg, r), a.note(c.Context, s))
}

// printProofOf prints the leaf of the log that the record is, and the signed
// checkpoint above it. The journal of another host has no leaf here.
func (a *app) printProofOf(ctx context.Context, cfg config.Config, r *event.Record) (err error) {
	j, err := journal.OpenReader(cfg.JournalDir())
	if err != nil {
		return nil // the record came from elsewhere
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if err := j.Seek(r.Seq); err != nil {
		return err
	}
	e, err := j.Next(ctx)
	if err != nil || e.Seq != r.Seq {
		return nil
	}
	here, err := journal.Decode(e.Bytes)
	if err != nil || here.ID != r.ID {
		return nil
	}
	size, err := journal.Newest(cfg.JournalDir())
	if err != nil {
		return err
	}
	a.field("proof", fmt.Sprintf("leaf %s, below the signed checkpoint of %s; holdfast verify checks both", e.Leaf, plural(size, "record")))
	return nil
}

// errStop ends a walk over records that has found what it looked for.
var errStop = errors.New("stop")

// get finds a record by its id, or by its number where only this host's records
// are.
func get(ctx context.Context, s query.Store, id string) (*event.Record, error) {
	seq, err := strconv.ParseUint(strings.TrimPrefix(id, "#"), 10, 64)
	if err != nil {
		r, err := query.Get(ctx, s, id)
		if errors.Is(err, query.ErrNotFound) {
			return nil, hint(fmt.Errorf("show %s: %w", printableText(id), errNotFound), "holdfast log prints the number of each record, holdfast log --json its id")
		}
		return r, err
	}
	var found *event.Record
	if seq > 0 {
		err = s.Records(ctx, query.Filter{AfterSeq: seq - 1}, func(r *event.Record) error {
			if r.Seq == seq {
				found = r
			}
			return errStop
		})
	}
	if err != nil && !errors.Is(err, errStop) {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("show #%d: %w", seq, errNotFound)
	}
	return found, nil
}

// printRecord prints every field under its documented name, in the order of the
// record.
func (a *app) printRecord(r *event.Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("show %s: %w", r.ID, err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := a.printValue(dec, ""); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("show %s: %w", r.ID, err)
	}
	if r.Process != nil {
		a.linef("%s %s", a.color(dim, pad("chain", 24)), chainLine(r))
	}
	return nil
}

// printValue prints the next JSON value; an object's fields get their names
// joined with dots, and a list of words goes on one line.
func (a *app) printValue(dec *json.Decoder, name string) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	switch tok {
	case json.Delim('{'):
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			if err := a.printValue(dec, strings.TrimPrefix(name+"."+fmt.Sprint(key), ".")); err != nil {
				return err
			}
		}
		_, err = dec.Token()
		return err
	case json.Delim('['):
		var words, sentences []string
		for i := 0; dec.More(); i++ {
			var raw json.RawMessage
			if err := dec.Decode(&raw); err != nil {
				return err
			}
			if raw[0] == '{' {
				sub := json.NewDecoder(bytes.NewReader(raw))
				sub.UseNumber()
				if err := a.printValue(sub, fmt.Sprintf("%s.%d", name, i)); err != nil {
					return err
				}
				continue
			}
			var s string
			if json.Unmarshal(raw, &s) != nil {
				s = string(raw)
			}
			sentences = append(sentences, s)
			words = append(words, shellQuote(string(event.Untext(s))))
		}
		if name == "meaning" { // sentences: one on each line
			for _, w := range sentences {
				a.field(name, w)
			}
			words = nil
		}
		if len(words) > 0 {
			a.field(name, strings.Join(words, " "))
		}
		_, err = dec.Token()
		return err
	}
	a.field(name, fmt.Sprint(tok))
	return nil
}

func (a *app) field(name, value string) {
	a.linef("%s %s", a.color(dim, pad(printableText(name), 24)), printableText(value))
}

// printDiffOf prints the change of content if the vault has kept both sides.
func (a *app) printDiffOf(cfg config.Config, r *event.Record) (err error) {
	if r.Before == nil || r.After == nil || r.Before.Hash.IsZero() || r.After.Hash.IsZero() || r.Before.Hash == r.After.Hash {
		return nil
	}
	v, err := a.openVault(cfg)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no rule keeps versions here
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	before, err := v.Has(r.Before.Hash)
	if err != nil {
		return err
	}
	after, err := v.Has(r.After.Hash)
	if err != nil {
		return err
	}
	if !before || !after {
		a.linef("%s not shown: the vault does not keep both versions", pad("diff", 24))
		return nil
	}
	a.line("")
	return a.contentDiff(string(event.Untext(cmp.Or(r.PathTo, r.Path))), &side{name: "before", hash: r.Before.Hash, vault: v}, &side{name: "after", hash: r.After.Hash, vault: v})
}
