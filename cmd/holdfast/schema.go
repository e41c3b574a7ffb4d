package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/clickhouse"
)

func (a *app) schemaCommand() *cli.Command {
	return &cli.Command{
		Name:  "schema",
		Usage: "print, apply or compare the ClickHouse migrations",
		Subcommands: []*cli.Command{
			{Name: "print", Usage: "print the SQL of all migrations, without asking the server", Flags: []cli.Flag{
				&cli.StringFlag{Name: "cluster", Usage: "for the replicas of cluster `NAME`"},
			}, Action: a.schemaPrint},
			{Name: "apply", Usage: "run the pending migrations and set the retention", Flags: []cli.Flag{jsonFlag()}, Action: a.schemaApply},
			{Name: "status", Usage: "say which migrations the server has; exit 5 if some are pending", Flags: []cli.Flag{jsonFlag()}, Action: a.schemaStatus},
		},
	}
}

func (a *app) schemaPrint(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	if !cfg.ClickHouse.Enabled() { // the SQL needs no server: print it for the default database
		cfg.ClickHouse.URL = "clickhouse://localhost:9000/holdfast"
	}
	ch, err := chConfig(cfg)
	if err != nil {
		return err
	}
	if cluster := c.String("cluster"); cluster != "" {
		ch.Cluster = cluster
	}
	return clickhouse.PrintSchema(a.buf, ch)
}

func (a *app) schemaApply(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	db, err := a.openClickHouse(c.Context, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	names, err := db.Apply(c.Context)
	for _, n := range names {
		if c.Bool("json") {
			err = errors.Join(err, a.json(map[string]string{"name": n, "state": clickhouse.Applied}))
		} else {
			a.linef("applied %s", n)
		}
	}
	if err == nil && len(names) == 0 && !c.Bool("json") {
		a.line("nothing to do: the server has every migration")
	}
	return err
}

func (a *app) schemaStatus(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	db, err := a.openClickHouse(c.Context, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	list, err := db.SchemaStatus(c.Context)
	if err != nil {
		return err
	}
	t, behind := &table{}, 0
	t.add("MIGRATION", "STATE", "APPLIED")
	for i := range list {
		m := &list[i]
		if m.State != clickhouse.Applied {
			behind++
		}
		if c.Bool("json") {
			if err := a.json(m); err != nil {
				return err
			}
			continue
		}
		t.add(m.Name, m.State, migrated(m))
		if m.State == clickhouse.Applied {
			t.paint(1, green)
		} else {
			t.paint(1, yellow)
		}
	}
	if !c.Bool("json") {
		a.print(t)
	}
	retention, err := db.Retention(c.Context)
	if err != nil {
		return err
	}
	for _, r := range retention {
		if c.Bool("json") {
			if err := a.json(r); err != nil {
				return err
			}
			continue
		}
		a.linef("to be changed: %s", r)
	}
	if n := len(retention); n > 0 && behind == 0 {
		return hint(fmt.Errorf("schema: rows are not kept for as long as configured: %w", errDegraded), "holdfast schema apply changes it")
	}
	if behind > 0 {
		return hint(fmt.Errorf("schema: %s not as this program has them: %w", plural(uint64(behind), "migration"), errDegraded), "holdfast schema apply runs what is pending")
	}
	return nil
}

func migrated(m *clickhouse.MigrationStatus) string {
	if m.Applied.IsZero() {
		return "-"
	}
	return m.Applied.Local().Format("2006-01-02 15:04:05")
}
