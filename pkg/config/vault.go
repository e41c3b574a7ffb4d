package config

import (
	"fmt"
	"time"
)

// Vault says for how long versions stay. One goes when no rule keeps it; the trusted and the newest version of a path,
// those under a hold, and those that a record of the journal refers to always stay.
type Vault struct {
	// KeepVersions is how many of the newest versions of each path stay, however old they are.
	KeepVersions int `yaml:"keep_versions" json:"keep_versions"`
	// KeepDays is for how many days after its replacement a version stays; 0 is for ever.
	KeepDays int `yaml:"keep_days" json:"keep_days"`
	// Grace is how long a content stays that no version names any more.
	Grace time.Duration `yaml:"grace" json:"grace"`
	// Rate is how many bytes a second enrolling large trees, and reading back what was kept, may take.
	Rate Size `yaml:"rate" json:"rate"`
}

func (c *Config) checkVault(bad func(key, msg, hint string)) {
	v := c.Vault
	if v.KeepVersions < 1 || v.KeepVersions > 1<<20 {
		bad("vault.keep_versions", "keep_versions is out of range", "use a number from 1 to 1048576")
	}
	if v.KeepDays < 0 || v.KeepDays > 36500 {
		bad("vault.keep_days", "keep_days is out of range", "use a number of days up to 36500, or 0 for ever")
	}
	if v.Rate < 64<<10 || v.Rate > 1<<40 {
		bad("vault.rate", "rate is out of range", fmt.Sprintf("use a value from %s to %s", Size(64<<10), Size(1<<40)))
	}
	if v.Grace < time.Minute || v.Grace > 365*24*time.Hour {
		bad("vault.grace", "grace is out of range", "use a value from 1m to 8760h")
	}
}
