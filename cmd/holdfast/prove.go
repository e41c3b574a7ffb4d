package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
)

// prove prints the proof of a record of this host's log.
func (a *app) prove(c *cli.Context, r *event.Record) error {
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	kept, err := keptLast(c)
	if err != nil {
		return err
	}
	p, err := journal.Prove(c.Context, cfg.JournalDir(), r.Seq, kept)
	if errors.Is(err, journal.ErrUnproven) || errors.Is(err, journal.ErrCorrupt) {
		return hint(fmt.Errorf("%w: %w", err, errUnproven), "holdfast verify names what is wrong with the log")
	}
	if err != nil {
		return stateError(cfg, err)
	}
	if here, err := journal.Decode(p.Bytes); err != nil || here.ID != r.ID {
		return hint(fmt.Errorf("prove %s: %w: it is not of the log in %s", r.ID, errNotFound, shellQuote(cfg.JournalDir())), "the proof is made where the log is: on the record's host")
	}
	return a.document(p)
}

// proveEarlier prints the proof that the log goes on from a checkpoint.
func (a *app) proveEarlier(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if !c.Bool("prove") {
		return usagef("show --checkpoint goes with --prove")
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	kept, err := keptLast(c)
	if err != nil {
		return err
	}
	p, err := journal.ProveEarlier(cfg.JournalDir(), kept)
	if errors.Is(err, journal.ErrUnproven) {
		return hint(fmt.Errorf("%w: %w", err, errUnproven), "holdfast verify --checkpoint "+shellQuote(c.String("checkpoint"))+" tells more")
	}
	if err != nil {
		return stateError(cfg, err)
	}
	return a.document(p)
}

// keptLast is the last checkpoint of the file that --checkpoint names, nil without it.
func keptLast(c *cli.Context) ([]byte, error) {
	if !c.IsSet("checkpoint") {
		return nil, nil
	}
	b, err := os.ReadFile(c.String("checkpoint"))
	if err != nil {
		return nil, usageError{fmt.Errorf("--checkpoint: %w", err)}
	}
	notes := journal.Notes(b)
	return notes[len(notes)-1], nil
}

// document prints a proof for people to read as well.
func (a *app) document(p *journal.Proof) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("write proof: %w", err)
	}
	a.line(string(b))
	return nil
}

// checkProof checks a proof with a key, and with what was kept elsewhere: no configuration, log or daemon is asked.
func (a *app) checkProof(c *cli.Context) error {
	if c.IsSet("against") {
		return usagef("verify --proof looks at nothing but the document, the key and the kept checkpoints: leave out --against")
	}
	if c.String("key") == "" {
		return hint(usagef("verify --proof needs --key"), "it is a copy of keys/journal.pub that was taken when the log was begun")
	}
	key, kept, err := evidence(c.String("key"), c.StringSlice("checkpoint"))
	if err != nil {
		return err
	}
	b, err := readAll(c.String("proof"))
	if err != nil {
		return usageError{fmt.Errorf("--proof: %w", err)}
	}
	var got journal.Proven
	p, err := journal.ReadProof(b)
	if err == nil {
		got, err = p.Check(key, kept...)
	} else if !errors.Is(err, journal.ErrUnproven) {
		return usageError{fmt.Errorf("--proof: %w", err)}
	}
	if c.Bool("json") {
		out := struct {
			OK bool `json:"ok"`
			journal.Proven
			Error string `json:"error,omitempty"`
		}{OK: err == nil, Proven: got}
		if err != nil {
			out.Error = err.Error()
		}
		if err := a.json(out); err != nil {
			return err
		}
		if err != nil {
			return silent{errUnproven}
		}
		return nil
	}
	switch {
	case errors.Is(err, journal.ErrUnproven):
		a.linef("%s: %s", a.color(red, "not proven"), printableText(err.Error()))
		return silent{errUnproven}
	case err != nil:
		return usageError{fmt.Errorf("--key: %w", err)}
	case got.Record == nil:
		a.linef("%s: the log of size %d is the beginning of the log of size %d", a.color(green, "proven"), got.Earlier, got.Size)
	default:
		a.linef("%s: record %d is in the log", a.color(green, "proven"), got.Seq)
	}
	a.linef("log         %s, size %d, root %s, signed %s with key %d of the chain", printableText(got.Origin), got.Size, got.Root, when(got.Time), got.Keys)
	if got.Kept > 0 {
		a.linef("kept        the same log as of the given checkpoint of size %d", got.Kept)
	}
	if got.Record != nil {
		return a.printRecord(got.Record)
	}
	return nil
}

// readAll reads a file, or standard input for -.
func readAll(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(name)
}
