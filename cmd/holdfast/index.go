package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/index"
)

func (a *app) indexCommand() *cli.Command {
	return &cli.Command{
		Name:  "index",
		Usage: "the index behind the journal, which answers questions fast and can be lost without loss",
		Subcommands: []*cli.Command{{
			Name:   "rebuild",
			Usage:  "build the index anew from the journal",
			Action: a.rebuildIndex,
		}},
	}
}

func (a *app) rebuildIndex(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	_, err = control.NewClient(cfg.Socket).Reindex(c.Context, control.ReindexRequest{})
	if err == nil {
		a.line("the daemon builds the index anew; holdfast status tells how far it is")
		return nil
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return daemonError(err)
	}
	if _, err := os.ReadDir(cfg.JournalDir()); err != nil {
		return stateError(cfg, fmt.Errorf("index rebuild: %w", err))
	}
	s, err := index.Build(c.Context, cfg.IndexFile(), cfg.JournalDir(), index.Options{})
	if err != nil {
		return stateError(cfg, err)
	}
	a.linef("%s indexed, %s", plural(s.Seq, "record"), bytesText(uint64(s.Bytes)))
	return nil
}
