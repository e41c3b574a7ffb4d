package clickhouse

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/holdfast/holdfast/schemas"
)

// The states of a migration.
const (
	Applied = "applied"
	Pending = "pending"
	Edited  = "edited" // applied from a file that differs from ours
	Newer   = "newer"  // applied by a newer program
)

// MigrationStatus is one line of schema status.
type MigrationStatus struct {
	Number  uint32    `json:"number"`
	Name    string    `json:"name"`
	State   string    `json:"state"`
	Applied time.Time `json:"applied,omitzero"`
	By      string    `json:"by,omitempty"`
}

type applied struct {
	number         uint32
	name, checksum string
	at             time.Time
	by             string
}

// SchemaStatus lists the migrations of this program and those that the server says
// were applied, in order. It returns the list and an error that wraps ErrEdited or
// ErrNewerSchema if the two do not fit together.
func (db *DB) SchemaStatus(ctx context.Context) ([]MigrationStatus, error) {
	ours, err := schemas.ClickHouse()
	if err != nil {
		return nil, err
	}
	theirs, err := db.applied(ctx)
	if err != nil {
		return nil, err
	}
	return db.status(ours, theirs)
}

func (db *DB) status(ours []schemas.Migration, theirs []applied) ([]MigrationStatus, error) {
	byNumber := make(map[uint32]applied, len(theirs))
	for _, a := range theirs {
		byNumber[a.number] = a
	}
	var (
		out []MigrationStatus
		bad error
	)
	for _, m := range ours {
		s := MigrationStatus{Number: m.Number, Name: m.Name, State: Pending}
		if a, ok := byNumber[m.Number]; ok {
			s.State, s.Applied, s.By = Applied, a.at, a.by
			if a.checksum != m.Checksum {
				s.State = Edited
				bad = fmt.Errorf("check schema %s of ClickHouse %s: %w (%s)", db.target.Database, db.addr, ErrEdited, m.Name)
			}
		}
		out = append(out, s)
	}
	for _, a := range theirs {
		if int(a.number) > len(ours) {
			out = append(out, MigrationStatus{Number: a.number, Name: a.name, State: Newer, Applied: a.at, By: a.by})
			if bad == nil {
				bad = fmt.Errorf("check schema %s of ClickHouse %s: %w (%s)", db.target.Database, db.addr, ErrNewerSchema, a.name)
			}
		}
	}
	return out, bad
}

// applied reads schema_migrations; no such table is an empty list.
func (db *DB) applied(ctx context.Context) ([]applied, error) {
	rows, err := db.conn.Query(ctx, "SELECT number, name, checksum, applied, by FROM "+db.target.Database+
		".schema_migrations ORDER BY number, applied LIMIT 1 BY number")
	if code, _ := serverCode(err); code == codeUnknownDatabase || code == codeUnknownTable {
		return nil, nil
	}
	if err != nil {
		return nil, db.explain("read schema of", err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	var out []applied
	for rows.Next() {
		var a applied
		if err := rows.Scan(&a.number, &a.name, &a.checksum, &a.at, &a.by); err != nil {
			return nil, db.explain("read schema of", err)
		}
		out = append(out, a)
	}
	return out, db.explain("read schema of", rows.Err())
}

// Apply runs the pending migrations, lets the tables keep rows for as long as
// configured, and returns what it did: names, and changes of retention. It may be repeated,
// and run by several at once: statements say IF NOT EXISTS, a migration is noted
// once, after all its statements ran, and one that was interrupted runs again.
func (db *DB) Apply(ctx context.Context) ([]string, error) {
	ours, err := schemas.ClickHouse()
	if err != nil {
		return nil, err
	}
	done, err := db.apply(ctx, ours)
	if err != nil {
		return done, err
	}
	changed, err := db.retain(ctx)
	return append(done, changed...), err
}

func (db *DB) apply(ctx context.Context, ours []schemas.Migration) ([]string, error) {
	theirs, err := db.applied(ctx)
	if err != nil {
		return nil, err
	}
	status, err := db.status(ours, theirs)
	if err != nil {
		return nil, err
	}
	var done []string
	for i, m := range ours {
		if status[i].State != Pending {
			continue
		}
		if err := db.applyOne(ctx, m); err != nil {
			return done, fmt.Errorf("apply %s: %w", m.Name, err)
		}
		done = append(done, m.Name)
	}
	return done, nil
}

func (db *DB) applyOne(ctx context.Context, m schemas.Migration) error {
	t := db.target
	var err error
	if t.Coarse, err = db.coarse(ctx); err != nil {
		return err
	}
	statements, err := schemas.Render(m, t)
	if err != nil {
		return err
	}
	for _, s := range statements {
		if err := db.conn.Exec(ctx, s); err != nil {
			return db.explain("change schema of", err)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	// Two that applied it at the same time write the same token: one row stays.
	ctx = ch.Context(ctx, ch.WithSettings(insertSettings(fmt.Sprintf("migration/%d/%s", m.Number, m.Checksum))))
	b, err := db.conn.PrepareBatch(ctx, "INSERT INTO "+db.target.Database+".schema_migrations (number, name, checksum, by)")
	if err != nil {
		return db.explain("note migration in", err)
	}
	if err := b.Append(m.Number, m.Name, m.Checksum, host); err != nil {
		return db.explain("note migration in", err)
	}
	return db.explain("note migration in", b.Send())
}

// coarse reports whether the table of records was made with large granules.
func (db *DB) coarse(ctx context.Context) (bool, error) {
	var n uint64
	err := db.conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = ? AND name = 'records' AND engine_full NOT LIKE ?",
		db.target.Database, fmt.Sprintf("%%index_granularity = %d%%", schemas.Granule)).Scan(&n)
	return n > 0, db.explain("read schema of", err)
}

// PrintSchema writes the SQL of all migrations as Apply would run it for c and a new
// database, without asking the server.
func PrintSchema(w io.Writer, c Config) error {
	_, database, err := options(c)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	t, err := c.target(database)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return printSchema(w, t)
}

// Print is PrintSchema for the target of db.
func (db *DB) Print(w io.Writer) error { return printSchema(w, db.target) }

func printSchema(w io.Writer, t schemas.Target) error {
	ms, err := schemas.ClickHouse()
	if err != nil {
		return err
	}
	for _, m := range ms {
		statements, err := schemas.Render(m, t)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "-- %s (sha256 %s)\n\n", m.Name, m.Checksum); err != nil {
			return fmt.Errorf("print schema: %w", err)
		}
		for _, s := range statements {
			if _, err := fmt.Fprintf(w, "%s;\n\n", s); err != nil {
				return fmt.Errorf("print schema: %w", err)
			}
		}
	}
	return nil
}
