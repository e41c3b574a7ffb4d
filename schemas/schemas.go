// Package schemas owns the SQL of Holdfast's ClickHouse side: numbered migrations
// as files in clickhouse/, embedded, and their rendering for one server or for a
// cluster.
//
// It promises that a migration's file is never edited once it was released (a test
// holds the digests), and that all statements of a migration may run again.
// pkg/clickhouse applies what Render returns; this package talks to no server.
//
// The ON CLUSTER variant is one shard with any number of replicas: databases and
// tables are made on all of them and the tables are of the Replicated family. It
// has been parsed by a real server but never run on a cluster.
package schemas

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

//go:embed clickhouse/*.sql
var files embed.FS

// Migration is one numbered change of the schema.
type Migration struct {
	Number   uint32
	Name     string // the file's name without directory
	Checksum string // SHA-256 of Text in hex
	Text     string // a template of Target
}

// ClickHouse returns the migrations in order. They are numbered from 1 without a gap.
func ClickHouse() ([]Migration, error) { return load(files, "clickhouse") }

func load(f fs.FS, dir string) ([]Migration, error) {
	entries, err := fs.ReadDir(f, dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	var ms []Migration
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".sql") {
			continue
		}
		number, _, _ := strings.Cut(e.Name(), "_")
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || len(number) != 4 || n != uint64(len(ms)+1) {
			return nil, fmt.Errorf("read migration %s: want the name %04d_WHAT.sql", e.Name(), len(ms)+1)
		}
		b, err := fs.ReadFile(f, dir+"/"+e.Name())
		if err != nil {
			return nil, fmt.Errorf("read migration: %w", err)
		}
		sum := sha256.Sum256(b)
		ms = append(ms, Migration{Number: uint32(n), Name: e.Name(), Checksum: hex.EncodeToString(sum[:]), Text: string(b)})
	}
	return ms, nil
}

// Target is where a migration is to run; it fills in the templates.
type Target struct {
	Database string // required
	Cluster  string // "" is one server
	KeepDays int    // rows are deleted so many days after they arrived; 0 keeps them for ever
	Coarse   bool   // records was made with granules of 8192 rows or 10 MB, as before 0012_granules.sql
}

// MaxKeepDays bounds KeepDays: ClickHouse computes the end of life in a 32-bit
// time, which must not pass its end in 2106.
const MaxKeepDays = 20 * 365

var (
	identifier  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	clusterName = regexp.MustCompile(`^[A-Za-z0-9_{}.-]{1,128}$`) // {cluster} is a macro of the server
)

// Check reports what about t cannot be written into SQL.
func (t Target) Check() error {
	switch {
	case !identifier.MatchString(t.Database):
		return fmt.Errorf("database name %q: want letters, digits and _", t.Database)
	case t.Cluster != "" && !clusterName.MatchString(t.Cluster):
		return fmt.Errorf("cluster name %q: want letters, digits and _ - . or a {macro}", t.Cluster)
	case t.KeepDays < 0 || t.KeepDays > MaxKeepDays:
		return fmt.Errorf("retention of %d days: want 0 (for ever) to %d", t.KeepDays, MaxKeepDays)
	}
	return nil
}

// OnCluster is the clause behind the name of what is made.
func (t Target) OnCluster() string {
	if t.Cluster == "" {
		return ""
	}
	return " ON CLUSTER '" + t.Cluster + "'"
}

// Engine returns the table engine of the MergeTree family. On a cluster the path
// in the keeper is the server's default one (default_replica_path).
func (t Target) Engine(family string) string {
	if t.Cluster == "" {
		return family
	}
	return "Replicated" + family
}

// DeduplicationWindow is the table setting that makes a repeated token of an
// insert count: without it a plain MergeTree ignores tokens.
func (t Target) DeduplicationWindow() string {
	if t.Cluster == "" {
		return "non_replicated_deduplication_window = 10000"
	}
	return "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800"
}

// Durability makes an acknowledged insert survive a power cut. Tokens are
// remembered on disk: a part that is lost while its token is not could not be sent
// again. Tables that are made with it have small granules, too (0012_granules.sql).
func (t Target) Durability() string {
	return "fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = " + strconv.Itoa(Granule)
}

// Granule is how many records there are to a granule of records, the least that the
// server reads, in a database that is not Coarse. The setting of a table cannot be changed.
const Granule = 512

// TTL is the clause that deletes rows KeepDays after column, or nothing.
func (t Target) TTL(column string) string {
	if t.KeepDays == 0 {
		return ""
	}
	return fmt.Sprintf("TTL %s + toIntervalDay(%d)", column, t.KeepDays)
}

// Retained lists the tables whose rows have an end. A migration that makes one more
// names it here.
func Retained() []string {
	return []string{"records", "checkpoints", "hourly", "sessions", "roots", "notable", "displaced"}
}

// Retain is the statement that gives a table of Retained the retention of t.
func (t Target) Retain(table string) string {
	s := "ALTER TABLE " + t.Database + "." + table + t.OnCluster()
	if t.KeepDays == 0 {
		return s + " REMOVE TTL"
	}
	return s + " MODIFY " + t.TTL("received")
}

// Render returns the statements of m for t, in order, without their semicolons.
func Render(m Migration, t Target) ([]string, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	tmpl, err := template.New(m.Name).Option("missingkey=error").Parse(m.Text)
	if err != nil {
		return nil, fmt.Errorf("render migration: %w", err)
	}
	var b strings.Builder
	if err := tmpl.Execute(&b, t); err != nil {
		return nil, fmt.Errorf("render migration: %w", err)
	}
	return Split(b.String()), nil
}
