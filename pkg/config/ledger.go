package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Journal says for how long records stay on this host, and how often the key changes.
type Journal struct {
	// KeepDays is for how many days a record stays at least that was shipped, or is shipped nowhere; 0 is for ever.
	KeepDays int `yaml:"keep_days" json:"keep_days"`
	// KeepSize is how large the segments may grow before the oldest goes, shipped or not; 0 is without bound.
	KeepSize Size `yaml:"keep_size" json:"keep_size"`
	// KeyEvery is for how long a key signs before it is destroyed.
	KeyEvery time.Duration `yaml:"key_every" json:"key_every"`
	// AliveEvery is how often a record says that the daemon is there, whatever else happens; 0 is never.
	AliveEvery time.Duration `yaml:"alive_every" json:"alive_every"`
}

// Checkpoints says where copies of signed checkpoints go, besides ClickHouse.
type Checkpoints struct {
	// Every is the shortest time between two of them.
	Every time.Duration `yaml:"every" json:"every"`
	// File is a file to append them to, on storage that root on this host cannot rewrite.
	File string `yaml:"file" json:"file,omitempty"`
	// Syslog is a server to send them to: unixgram:///dev/log, udp://HOST:PORT or tcp://HOST:PORT.
	Syslog string `yaml:"syslog" json:"syslog,omitempty"`
}

func (c *Config) checkLedger(bad func(key, msg, hint string)) {
	j, p := c.Journal, c.Checkpoints
	if j.KeepDays < 0 || j.KeepDays > 36500 {
		bad("journal.keep_days", "keep_days is out of range", "use a number of days up to 36500, or 0 for ever")
	}
	if j.KeepSize != 0 && j.KeepSize < 2*c.Limits.Segment {
		bad("journal.keep_size", fmt.Sprintf("keep_size of %s is less than two segments of %s", j.KeepSize, c.Limits.Segment), "use at least twice limits.segment, or 0 for no bound")
	}
	if j.KeyEvery < time.Minute || j.KeyEvery > 30*24*time.Hour {
		bad("journal.key_every", "key_every is out of range", "use a value from 1m to 720h")
	}
	if j.AliveEvery != 0 && (j.AliveEvery < time.Minute || j.AliveEvery > 24*time.Hour) {
		bad("journal.alive_every", "alive_every is out of range", "use a value from 1m to 24h, or 0 for never")
	}
	if p.Every < time.Second || p.Every > 24*time.Hour {
		bad("checkpoints.every", "every is out of range", "use a value from 1s to 24h")
	}
	if scheme, rest, ok := strings.Cut(p.Syslog, "://"); p.Syslog != "" && (!ok || rest == "" || scheme != "unixgram" && scheme != "udp" && scheme != "tcp") {
		bad("checkpoints.syslog", fmt.Sprintf("no syslog address: %q", p.Syslog), "write unixgram:///dev/log, udp://HOST:PORT or tcp://HOST:PORT")
	}
	if rel, err := filepath.Rel(c.State, p.File); p.File != "" && err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		bad("checkpoints.file", "the copies of checkpoints may not lie in the state directory", "name a file on other storage")
	}
}
