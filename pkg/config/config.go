// Package config is the one place where Holdfast's settings are named, given
// defaults, read and checked.
//
// A configuration is one YAML file plus the rule files of a directory beside it.
// Unknown keys are errors that name file, line and the keys there are. The
// package promises that a Config from Load is complete (every setting has a
// value) and that its Policy is well formed; it does not look whether the
// machine can do what is asked. cmd loads it and lays flags over it, the daemon
// reads it.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/pkg/internal/strictyaml"
	"github.com/holdfast/holdfast/pkg/policy"
)

// DefaultFile is read unless another file is named.
const DefaultFile = "/etc/holdfast/holdfast.yaml"

// The tiers that can be asked for; TierAuto takes the best one that works.
const (
	TierAuto         = "auto"
	TierLSM          = "lsm"
	TierModifyReturn = "modify_return"
	TierTracepoint   = "tracepoint"
)

// Tiers lists what tier: and --tier may say.
func Tiers() []string { return []string{TierAuto, TierLSM, TierModifyReturn, TierTracepoint} }

// Config holds all settings. Field comments are the documentation of the keys,
// example.yaml shows each with its default.
type Config struct {
	// State is the directory of everything that must outlive the daemon.
	State string `yaml:"state" json:"state"`
	// Socket is where the daemon listens and the command line asks.
	Socket string `yaml:"socket" json:"socket"`
	// RulesDir holds policy files (*.yaml); relative to the configuration file.
	RulesDir string `yaml:"rules_dir" json:"rules_dir"`
	// Rules are rules given in the configuration file itself.
	Rules []policy.Rule `yaml:"rules" json:"rules"`
	// Tier forces one way of seeing events; auto takes the best one that works.
	Tier string `yaml:"tier" json:"tier"`
	// Guard has the daemon refuse what would end or blind it: changes of its own
	// files, signals, attaching to it. Only tiers that can block can do it.
	Guard bool `yaml:"guard" json:"guard"`
	// Processes says whose executions, ends and changes of credentials are recorded:
	// none, sessions (those of logins) or all (services, too). Changes of credentials
	// in logins and the beginnings and ends of sessions are recorded in any case.
	Processes string `yaml:"processes" json:"processes"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `yaml:"log_level" json:"log_level"`

	// File is where the settings come from, or would.
	File string `yaml:"-" json:"file"`

	Limits      Limits      `yaml:"limits" json:"limits"`
	Journal     Journal     `yaml:"journal" json:"journal"`
	Vault       Vault       `yaml:"vault" json:"vault"`
	Checkpoints Checkpoints `yaml:"checkpoints" json:"checkpoints"`
	ClickHouse  ClickHouse  `yaml:"clickhouse" json:"clickhouse"`
}

// Limits bound what the daemon may use. Reaching one is counted and shown by
// status; none of them loses an event silently.
type Limits struct {
	// Ring is the size of the kernel's event buffer, a power of two.
	Ring Size `yaml:"ring" json:"ring"`
	// Queue is how many events may wait between the ring and the pipeline.
	Queue int `yaml:"queue" json:"queue"`
	// Processes is how many processes are remembered.
	Processes int `yaml:"processes" json:"processes"`
	// Segment is the size at which the journal begins a new file.
	Segment Size `yaml:"segment" json:"segment"`
	// Reserve is disk space kept back so that a full disk cannot stop a restore
	// or its record.
	Reserve Size `yaml:"reserve" json:"reserve"`
	// Evidence bounds what is kept of displaced files; the oldest go first.
	Evidence Size `yaml:"evidence" json:"evidence"`
	// Restores of one path within RestoreWindow after which Holdfast stops
	// putting it back and says so: something fights for the file.
	Restores      int           `yaml:"restores" json:"restores"`
	RestoreWindow time.Duration `yaml:"restore_window" json:"restore_window"`
	// MappedInterval is how often a watched file is read while a process has it
	// mapped for writing, and MappedRate how many bytes a second that may take.
	MappedInterval time.Duration `yaml:"mapped_interval" json:"mapped_interval"`
	MappedRate     Size          `yaml:"mapped_rate" json:"mapped_rate"`
}

// Where things are in the state directory.

// JournalDir holds segments and checkpoints.
func (c *Config) JournalDir() string { return filepath.Join(c.State, "journal") }

// KeysDir holds the keys that sign checkpoints.
func (c *Config) KeysDir() string { return filepath.Join(c.State, "keys") }

// IndexFile is the index behind the journal.
func (c *Config) IndexFile() string { return filepath.Join(c.State, "index", "records.sqlite") }

// ShippedFile says how far records were shipped.
func (c *Config) ShippedFile() string { return filepath.Join(c.State, "shipped") }

// VaultDir holds the kept versions.
func (c *Config) VaultDir() string { return filepath.Join(c.State, "vault") }

// EvidenceDir holds displaced files.
func (c *Config) EvidenceDir() string { return filepath.Join(c.State, "evidence") }

// Default returns the settings that hold where a file says nothing.
func Default() Config {
	return Config{
		State:    "/var/lib/holdfast",
		Socket:   "/run/holdfast.sock",
		RulesDir: "/etc/holdfast/rules.d",
		Tier:     TierAuto,
		Guard:    true,

		Processes: "sessions",

		File:     DefaultFile,
		LogLevel: "info",
		Limits: Limits{
			Ring:           16 << 20,
			Queue:          1 << 16,
			Processes:      1 << 16,
			Segment:        64 << 20,
			Reserve:        64 << 20,
			Evidence:       1 << 30,
			Restores:       500,
			RestoreWindow:  time.Minute,
			MappedInterval: 10 * time.Second,
			MappedRate:     64 << 20,
		},
		Journal:     Journal{KeepDays: 400, KeepSize: 32 << 30, KeyEvery: time.Hour, AliveEvery: time.Hour},
		Checkpoints: Checkpoints{Every: time.Minute},
		Vault:       Vault{KeepVersions: 10, KeepDays: 400, Grace: 24 * time.Hour, Rate: 64 << 20},
	}
}

// Load reads the configuration file and the rules of its rules directory. A
// missing file is an error that wraps fs.ErrNotExist; a missing rules directory
// is none unless the file names it.
func Load(file string) (Config, error) {
	data, err := policy.ReadFile(file)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(file, data)
	if err != nil {
		return Config{}, err
	}
	more, err := policy.LoadRules(c.RulesDir)
	if errors.Is(err, fs.ErrNotExist) && c.RulesDir == besides(file, "rules.d") {
		err = nil
	}
	if err != nil {
		return Config{}, err
	}
	c.Rules = append(c.Rules, more...)
	_, err = c.Policy()
	return c, err
}

// Parse reads a configuration file's text without the rules directory and checks
// every setting. Relative paths are relative to the file.
func Parse(file string, data []byte) (Config, error) {
	c := Default()
	c.RulesDir = "rules.d"
	d, err := strictyaml.Decode(file, data, &c)
	if err != nil {
		return Config{}, err
	}
	c.File = besides(file, filepath.Base(file))
	for i := range c.Rules {
		c.Rules[i].Locate(file, d, fmt.Sprintf("$.rules[%d]", i))
	}
	for _, p := range []*string{&c.State, &c.Socket, &c.RulesDir, &c.ClickHouse.PasswordFile, &c.ClickHouse.CAFile, &c.ClickHouse.CertFile, &c.ClickHouse.KeyFile, &c.Checkpoints.File} {
		if *p != "" {
			*p = besides(file, *p)
		}
	}
	if err := c.check(func(key string) string { return d.Pos("$." + key) }); err != nil {
		return Config{}, err
	}
	return c, nil
}

// besides returns p, taken relative to the folder of file.
func besides(file, p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil { // the working directory is gone: keep the path as it was given
		dir = filepath.Dir(file)
	}
	return filepath.Join(dir, p)
}

// Check checks the settings, for a Config whose fields were set by hand.
func (c *Config) Check() error {
	if err := c.check(func(key string) string { return key }); err != nil {
		return err
	}
	_, err := c.Policy()
	return err
}

// Policy returns the policy of all rules; it never holds in the state directory.
func (c *Config) Policy() (*policy.Policy, error) {
	p, err := policy.New(c.Rules)
	if err != nil {
		return nil, err
	}
	p.Own = []string{c.State}
	var errs []error
	for _, prob := range p.Check(policy.Env{Own: p.Own}) {
		if prob.Fatal {
			errs = append(errs, &strictyaml.Error{File: prob.Pos, Message: prob.Message, Hint: prob.Hint})
		}
	}
	return p, errors.Join(errs...)
}

func (c *Config) check(pos func(key string) string) error {
	var errs []error
	bad := func(key, msg, hint string) {
		errs = append(errs, &strictyaml.Error{File: pos(key), Message: msg, Hint: hint})
	}
	if !slices.Contains(Tiers(), c.Tier) {
		bad("tier", fmt.Sprintf("unknown tier %q", c.Tier), "use "+strings.Join(Tiers(), ", "))
	}
	if whose := []string{"none", "sessions", "all"}; !slices.Contains(whose, c.Processes) {
		bad("processes", fmt.Sprintf("unknown processes %q", c.Processes), "use "+strings.Join(whose, ", "))
	}
	if levels := []string{"debug", "info", "warn", "error"}; !slices.Contains(levels, c.LogLevel) {
		bad("log_level", fmt.Sprintf("unknown log level %q", c.LogLevel), "use "+strings.Join(levels, ", "))
	}
	for key, p := range map[string]string{"state": c.State, "socket": c.Socket} {
		if !filepath.IsAbs(p) {
			bad(key, fmt.Sprintf("%s %q is no absolute path", key, p), "write an absolute path")
		}
	}
	if c.State == "/" {
		bad("state", "the state directory may not be /", "give it a directory of its own")
	}
	l := c.Limits
	if l.Ring < 64<<10 || l.Ring > 1<<30 || l.Ring&(l.Ring-1) != 0 {
		bad("limits.ring", fmt.Sprintf("ring of %s", l.Ring), "use a power of two from 64KiB to 1GiB")
	}
	for _, n := range []struct {
		key           string
		value         int64
		least, atMost int64
	}{
		{"queue", int64(l.Queue), 16, 1 << 24},
		{"processes", int64(l.Processes), 64, 1 << 24},
		{"segment", int64(l.Segment), 1 << 16, 1 << 32},
		{"reserve", int64(l.Reserve), 0, 1 << 40},
		{"evidence", int64(l.Evidence), 0, 1 << 50},
		{"restores", int64(l.Restores), 1, 1 << 20},
		{"restore_window", int64(l.RestoreWindow / time.Second), 1, 7 * 24 * 3600},
		{"mapped_interval", int64(l.MappedInterval / time.Second), 1, 24 * 3600},
		{"mapped_rate", int64(l.MappedRate), 64 << 10, 1 << 40},
	} {
		if n.value < n.least || n.value > n.atMost {
			bad("limits."+n.key, fmt.Sprintf("%s is out of range", n.key), fmt.Sprintf("use a value from %s to %s", show(n.key, n.least), show(n.key, n.atMost)))
		}
	}
	c.checkLedger(bad)
	c.checkVault(bad)
	c.checkClickHouse(bad)
	return errors.Join(errs...)
}

func show(key string, n int64) string {
	switch key {
	case "segment", "reserve", "evidence", "mapped_rate":
		return Size(n).String()
	case "restore_window", "mapped_interval":
		return (time.Duration(n) * time.Second).String()
	}
	return fmt.Sprint(n)
}
