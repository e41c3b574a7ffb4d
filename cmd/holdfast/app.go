package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/index"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/rollback"
)

// app is one run of the program: where it writes and what time it is.
type app struct {
	file     string // the configuration unless --config names one
	out      io.Writer
	err      io.Writer
	now      func() time.Time
	terminal bool
	noColor  bool

	buf   *bufio.Writer // over out
	fleet bool          // answers may be of several hosts: each says of which
}

// ops is what the mutating verbs need: a running daemon, or the same operations
// without one.
type ops = control.Handler

func (a *app) run(ctx context.Context, args []string) error {
	a.open()
	c := a.commands()
	return c.RunContext(ctx, reorder(c, args))
}

func (a *app) open() { a.buf = bufio.NewWriterSize(a.out, 1<<16) }

func (a *app) flush() error {
	if a.buf == nil {
		return nil
	}
	return a.buf.Flush()
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "read the configuration from `FILE`", DefaultText: config.DefaultFile},
		&cli.StringFlag{Name: "state", Usage: "keep state in `DIR`", DefaultText: config.Default().State},
		&cli.StringFlag{Name: "socket", Usage: "ask the daemon on `PATH`", DefaultText: config.Default().Socket},
	}
}

func (a *app) commands() *cli.App {
	app := &cli.App{
		Name:            "holdfast",
		Usage:           "record who changed protected files, put them back, answer questions about it",
		Writer:          a.buf,
		ErrWriter:       a.err,
		HideVersion:     true,
		HideHelpCommand: true,
		Flags:           globalFlags(),
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError:    onUsageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return hint(usagef("unknown verb %q", c.Args().First()), "holdfast --help lists the verbs")
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			a.runCommand(), a.stopCommand(), a.statusCommand(), a.doctorCommand(),
			a.logCommand(), a.whoCommand(), a.showCommand(), a.sessionsCommand(), a.treeCommand(), a.sqlCommand(),
			a.versionsCommand(), a.diffCommand(), a.restoreCommand(), a.undoCommand(), a.trustCommand(),
			a.windowCommand(), a.holdCommand(), a.pruneCommand(),
			a.policyCommand(), a.verifyCommand(), a.indexCommand(), a.fsckCommand(), a.schemaCommand(), a.versionCommand(),
		},
	}
	prepare(app.Commands)
	return app
}

// prepare gives every command the same manners.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = onUsageError
		c.HideHelpCommand = true
		c.UseShortOptionHandling = false
		prepare(c.Subcommands)
		if len(c.Subcommands) > 0 && c.Action == nil {
			c.Action = func(c *cli.Context) error {
				if c.Args().Present() {
					return hint(usagef("%s: unknown verb %q", c.Command.Name, c.Args().First()), "holdfast "+c.Command.Name+" --help lists what there is")
				}
				return cli.ShowSubcommandHelp(c)
			}
		}
	}
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	what := "holdfast"
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != "holdfast" {
		what += " " + c.Command.Name
	}
	return hint(usageError{err}, what+" --help shows the flags")
}

// noArgs refuses arguments that a verb would not look at.
func noArgs(c *cli.Context) error {
	if c.Args().Present() {
		return hint(usagef("%s takes no arguments: %q", c.Command.Name, c.Args().First()), "holdfast "+c.Command.Name+" --help shows the flags")
	}
	return nil
}

// someArgs refuses fewer arguments than least and more than most (0: any number).
func someArgs(c *cli.Context, what string, least, most int) error {
	switch n := c.NArg(); {
	case n < least:
		return hint(usagef("%s needs %s", c.Command.Name, what), fmt.Sprintf("holdfast %s %s", c.Command.Name, what))
	case most > 0 && n > most:
		return hint(usagef("%s: one argument too many: %q", c.Command.Name, c.Args().Get(most)), "quote an argument that holds spaces")
	}
	return nil
}

// settings reads the configuration for verbs that only need to know where things
// are: mistakes in rules do not stop them, and the default file may be missing.
func (a *app) settings(c *cli.Context) (config.Config, error) {
	file, named := a.configFile(c)
	cfg := config.Default()
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
	case err != nil:
		return cfg, configError(fmt.Errorf("read configuration: %w", err))
	default:
		if cfg, err = config.Parse(file, data); err != nil {
			return cfg, configError(err)
		}
	}
	return a.override(c, cfg)
}

// fullSettings reads the configuration with all rules. found is false if the
// default file does not exist.
func (a *app) fullSettings(c *cli.Context) (cfg config.Config, found bool, err error) {
	file, named := a.configFile(c)
	cfg, err = config.Load(file)
	switch {
	case err == nil:
		found = true
	case errors.Is(err, fs.ErrNotExist) && !named && !exists(file):
		cfg = config.Default()
	default:
		return cfg, false, configError(err)
	}
	cfg, err = a.override(c, cfg)
	return cfg, found, err
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

func (a *app) configFile(c *cli.Context) (file string, named bool) {
	if file = c.String("config"); file != "" {
		return file, true
	}
	return a.file, false
}

// override lays the global flags over the configuration.
func (a *app) override(c *cli.Context, cfg config.Config) (config.Config, error) {
	for flag, field := range map[string]*string{"state": &cfg.State, "socket": &cfg.Socket} {
		v := c.String(flag)
		if v == "" {
			continue
		}
		abs, err := filepath.Abs(v)
		if err != nil {
			return cfg, fmt.Errorf("--%s %s: %w", flag, v, err)
		}
		*field = abs
	}
	return cfg, nil
}

// configError makes a complaint about the configuration a usage error, with the
// usual things to do.
func configError(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return hint(usageError{err}, "run as root")
	case errors.Is(err, fs.ErrNotExist):
		return hint(usageError{err}, "name the file with --config, or a tree with holdfast run --watch PATH=MODE")
	}
	return usageError{err}
}

// stateError explains why the state directory cannot be read.
func stateError(cfg config.Config, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0:
		return hint(err, "a running daemon guards "+shellQuote(cfg.State)+": holdfast stop --reason TEXT ends it, on the record")
	case errors.Is(err, fs.ErrPermission):
		return hint(err, "the state directory "+shellQuote(cfg.State)+" is for root only: run as root")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return hint(err, "nothing was recorded in "+shellQuote(cfg.State)+" yet: start holdfast run, or name the directory with --state")
	}
	return err
}

// storeFlag says where questions go.
func storeFlag() cli.Flag {
	return &cli.StringFlag{Name: "store", Value: "local", Usage: "ask `WHERE`: local or clickhouse"}
}

func jsonFlag() cli.Flag {
	return boolFlag("json", "print one JSON object a line")
}

func boolFlag(name, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, DisableDefaultText: true}
}

// openStore opens what --store names.
func (a *app) openStore(c *cli.Context) (query.Store, error) {
	cfg, err := a.settings(c)
	if err != nil {
		return nil, err
	}
	switch where := c.String("store"); where {
	case "local", "":
		// The reason why a directory cannot be read is lost below SQLite: look first.
		d, err := os.Open(cfg.JournalDir())
		if err != nil {
			return nil, stateError(cfg, fmt.Errorf("open journal: %w", err))
		}
		if err := d.Close(); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
		s, err := index.OpenRead(cfg.IndexFile(), cfg.JournalDir())
		if err != nil {
			return nil, stateError(cfg, err)
		}
		return s, nil
	case "clickhouse":
		a.fleet = c.String("host") == ""
		return a.openClickHouse(c.Context, cfg)
	default:
		return nil, hint(usagef("unknown store %q", where), "use --store local or --store clickhouse")
	}
}

// note tells a person what an answer may lack: records that are not in it yet, or
// an index that could not be used.
func (a *app) note(ctx context.Context, s query.Store) error {
	lag, err := s.Lag(ctx)
	if err != nil {
		return err
	}
	if lag.Note != "" {
		fmt.Fprintln(a.err, "note: "+printableText(lag.Note))
	}
	if lag.Behind > 0 {
		fmt.Fprintf(a.err, "note: the answer lacks the newest %s\n", plural(lag.Behind, "record"))
	}
	return nil
}

// chConfig returns the ClickHouse settings with the password in the URL.
func chConfig(cfg config.Config) (clickhouse.Config, error) {
	ch := cfg.ClickHouse
	if !ch.Enabled() {
		return clickhouse.Config{}, hint(usagef("no ClickHouse is configured"), "add to the configuration:  clickhouse: {url: clickhouse://user@host:9000/holdfast}")
	}
	url, err := ch.Secret()
	if err != nil {
		return clickhouse.Config{}, usageError{err}
	}
	return clickhouse.Config{URL: url, Cluster: ch.Cluster, KeepDays: ch.KeepDays, CAFile: ch.CAFile, CertFile: ch.CertFile, KeyFile: ch.KeyFile}, nil
}

func (a *app) openClickHouse(ctx context.Context, cfg config.Config) (*clickhouse.DB, error) {
	ch, err := chConfig(cfg)
	if err != nil {
		return nil, err
	}
	return clickhouse.Open(ctx, ch)
}

// openVault opens the kept versions for reading, beside a daemon or without one.
func (a *app) openVault(cfg config.Config) (*rollback.Store, error) {
	s, err := rollback.OpenReadOnly(cfg.VaultDir())
	return s, stateError(cfg, err)
}

// withOps calls do with a running daemon or, if none listens, with the same
// operations on the state directory.
func (a *app) withOps(c *cli.Context, do func(context.Context, ops) (control.Outcome, error)) (control.Outcome, error) {
	cfg, err := a.settings(c)
	if err != nil {
		return control.Outcome{}, err
	}
	client := control.NewClient(cfg.Socket)
	err = client.Ping(c.Context)
	if err == nil {
		return do(c.Context, client)
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return control.Outcome{}, daemonError(err)
	}
	if os.Geteuid() != 0 {
		return control.Outcome{}, hint(fmt.Errorf("%s: %w", c.Command.Name, fs.ErrPermission), "run as root")
	}
	if _, err := os.Stat(cfg.State); err != nil {
		return control.Outcome{}, stateError(cfg, fmt.Errorf("open state: %w", err))
	}
	full, _, err := a.fullSettings(c)
	if err != nil {
		return control.Outcome{}, err
	}
	h, done, err := offline(full)
	if err != nil {
		return control.Outcome{}, runError(full, err)
	}
	o, err := do(c.Context, h)
	return o, errors.Join(err, done())
}

// daemonError adds what to do when the daemon cannot be asked.
func daemonError(err error) error {
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return hint(err, "start it with holdfast run or systemctl start holdfast; --socket names another socket")
	case errors.Is(err, control.ErrForbidden):
		return hint(err, "run as root")
	}
	return err
}

// absolute returns a path argument as the kernel would name it from here.
func absolute(p string) (string, error) {
	if p == "" {
		return "", usagef("an empty path")
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", fmt.Errorf("path %s: %w", shellQuote(p), err)
	}
	return abs, nil
}

// paths returns path arguments in raw bytes.
func paths(c *cli.Context) ([]control.Path, error) {
	var out []control.Path
	for _, p := range c.Args().Slice() {
		abs, err := absolute(p)
		if err != nil {
			return nil, err
		}
		out = append(out, control.Path(abs))
	}
	return out, nil
}

// parseTime reads a time flag.
func (a *app) parseTime(c *cli.Context, flag string) (event.Time, error) {
	s := c.String(flag)
	if s == "" {
		return 0, nil
	}
	t, err := query.ParseTime(s, a.now())
	if err != nil {
		return 0, hint(usageError{fmt.Errorf("--%s: %w", flag, err)}, "write 2006-01-02T15:04:05Z, 2006-01-02 15:04, 15:04, yesterday, or an age such as 2h or 3d")
	}
	return t, nil
}

// list writes words for a message.
func list(words []string) string { return strings.Join(words, ", ") }
