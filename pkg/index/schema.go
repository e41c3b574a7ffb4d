package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"

	"modernc.org/sqlite"
)

// version is in the file's user_version. A file with another one is built anew, so
// there are no migrations: change the schema and count up.
const version = 5

// Strings are kept once, in names and paths, and records refer to them by number:
// rows and indexes stay small and inserts fast. paths is apart because patterns search it; its
// base is the last element of a path, in bases, and pieces finds its text by any three characters in a row.
// Command lines are kept once too: lines numbers them by their digest, commands has their text
// and finds it by any three characters in a row. line is NULL for a process without arguments.
// till is the later of time and time_end: a question since a moment is about it. spans says of each
// block of records between which times they lie, and is searched instead of the times of all records;
// a record of a long time (longTime) is in no span and found by rec_long.
// above has which execution began which, as far up as records tell: exec is a number of names or, of a record that names
// ancestors and no exec id of its own, its sequence below zero.
// meaning holds the sentences of the few records that have some, each on a line.
// by_path has a row for each of path and path_to. The sequence is the rowid and so
// the last column of every index: all answers come out in order without sorting.
const schema = `
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, seg INTEGER NOT NULL, off INTEGER NOT NULL, leaf BLOB NOT NULL);
INSERT INTO state VALUES (1, 0, 0, 0, x'');
CREATE TABLE names (id INTEGER PRIMARY KEY, s TEXT NOT NULL UNIQUE);
CREATE TABLE paths (id INTEGER PRIMARY KEY, s TEXT NOT NULL UNIQUE, base INTEGER);
CREATE INDEX paths_base ON paths (base) WHERE base IS NOT NULL;
CREATE TABLE bases (id INTEGER PRIMARY KEY, s TEXT NOT NULL UNIQUE);
CREATE TABLE lines (id INTEGER PRIMARY KEY, s TEXT NOT NULL UNIQUE);
CREATE VIRTUAL TABLE commands USING fts5(s, tokenize = 'trigram case_sensitive 1', detail = none, columnsize = 0);
CREATE VIRTUAL TABLE pieces USING fts5(s, tokenize = 'trigram case_sensitive 1', detail = none, columnsize = 0);
CREATE TABLE above (ancestor INTEGER NOT NULL, exec INTEGER NOT NULL, PRIMARY KEY (ancestor, exec)) WITHOUT ROWID;
CREATE TABLE spans (block INTEGER PRIMARY KEY, low INTEGER NOT NULL, high INTEGER NOT NULL);
CREATE TABLE rec (
	seq INTEGER PRIMARY KEY, seg INTEGER NOT NULL, off INTEGER NOT NULL, time INTEGER NOT NULL, till INTEGER NOT NULL,
	host INTEGER, host_id INTEGER, boot INTEGER, kind INTEGER, op INTEGER, path INTEGER, path_to INTEGER, rule INTEGER, verdict INTEGER,
	user INTEGER, session INTEGER, source INTEGER, port INTEGER, exec INTEGER, exe INTEGER, base INTEGER, found INTEGER, ticket INTEGER, line INTEGER, meaning TEXT);
CREATE TABLE by_path (path INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (path, seq)) WITHOUT ROWID;
CREATE INDEX rec_long ON rec (till, time) WHERE till - time > 60000000000;
CREATE INDEX rec_kind ON rec (kind);
CREATE INDEX rec_op ON rec (op) WHERE op IS NOT NULL;
CREATE INDEX rec_rule ON rec (rule) WHERE rule IS NOT NULL;
CREATE INDEX rec_verdict ON rec (verdict) WHERE verdict IS NOT NULL;
CREATE INDEX rec_user ON rec (user) WHERE user IS NOT NULL;
CREATE INDEX rec_session ON rec (session) WHERE session IS NOT NULL;
CREATE INDEX rec_source ON rec (source) WHERE source IS NOT NULL;
CREATE INDEX rec_exec ON rec (exec) WHERE exec IS NOT NULL;
CREATE INDEX rec_exe ON rec (exe) WHERE exe IS NOT NULL;
CREATE INDEX rec_base ON rec (base) WHERE base IS NOT NULL;
CREATE INDEX rec_found ON rec (found) WHERE found IS NOT NULL;
CREATE INDEX rec_ticket ON rec (ticket) WHERE ticket IS NOT NULL;
CREATE INDEX rec_line ON rec (line) WHERE line IS NOT NULL;
CREATE INDEX rec_meaning ON rec (seq) WHERE meaning IS NOT NULL;
CREATE VIEW records AS SELECT r.seq, r.time, h.s AS host, hi.s AS host_id, b.s AS boot, k.s AS kind, o.s AS op, p.s AS path, pt.s AS path_to,
	ru.s AS rule, v.s AS verdict, fo.s AS found, ti.s AS ticket, r.meaning, u.s AS actor_user, se.s AS actor_session, so.s AS actor_source_ip, r.port AS actor_source_port, ex.s AS process_exec_id, e.s AS process_exe
	FROM rec r LEFT JOIN names h ON h.id = r.host LEFT JOIN names hi ON hi.id = r.host_id LEFT JOIN names b ON b.id = r.boot LEFT JOIN names k ON k.id = r.kind
	LEFT JOIN names o ON o.id = r.op LEFT JOIN paths p ON p.id = r.path LEFT JOIN paths pt ON pt.id = r.path_to LEFT JOIN names ru ON ru.id = r.rule
	LEFT JOIN names v ON v.id = r.verdict LEFT JOIN names u ON u.id = r.user LEFT JOIN names se ON se.id = r.session LEFT JOIN names so ON so.id = r.source
	LEFT JOIN names fo ON fo.id = r.found LEFT JOIN names ti ON ti.id = r.ticket LEFT JOIN names ex ON ex.id = r.exec LEFT JOIN names e ON e.id = r.exe;
`

// longTime is the time in ns from which on a record is in no span, as rec_long has it: in one it
// would have every question about its hours look through its block.
const longTime = 60_000_000_000

// spanRecords is how many sequences a block of spans has.
const spanRecords = 1024

// errUnfit says that a file is no index of this journal, whatever it is. errVersion: it is one, of
// another build; there is nothing to look into, and it is not kept.
var (
	errUnfit   = errors.New("index does not fit")
	errVersion = fmt.Errorf("%w: it is of another version", errUnfit)
)

// dsn names a file to the driver. Every pragma is set per connection.
func dsn(path, mode string) string {
	q := url.Values{}
	for _, p := range []string{"busy_timeout(10000)", "temp_store(FILE)", "cache_size(-16000)"} {
		q.Add("_pragma", p)
	}
	switch mode {
	case "rwc":
		for _, p := range []string{"journal_mode(WAL)", "synchronous(NORMAL)", "wal_autocheckpoint(4000)", "journal_size_limit(67108864)"} {
			q.Add("_pragma", p)
		}
		q.Set("_txlock", "immediate")
	case "immutable":
		mode = "ro"
		q.Set("immutable", "1")
	}
	q.Set("mode", mode)
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}).String()
}

// state is the one row that says how far the index is, with the leaf hash of that
// record: an index whose last record the journal has otherwise belongs to another journal.
type state struct {
	seq, seg uint64
	off      int64
	leaf     []byte
}

type querier interface {
	QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
}

func readState(ctx context.Context, db querier) (state, error) {
	var s state
	var v int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return s, err
	}
	if v != version {
		return s, fmt.Errorf("%w: its schema is %d, this is %d", errVersion, v, version)
	}
	err := db.QueryRowContext(ctx, "SELECT seq, seg, off, leaf FROM state").Scan(&s.seq, &s.seg, &s.off, &s.leaf)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: it has no state", errUnfit)
	}
	return s, err
}

// unusable reports whether err says that the file itself is bad, so that building
// it anew helps. Codes of sqlite3.h: a full disk or a locked file are none of them.
func unusable(err error) bool {
	if errors.Is(err, errUnfit) || errors.Is(err, os.ErrNotExist) {
		return true
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	const generic, corrupt, constraint, notADB = 1, 11, 19, 26
	switch e.Code() & 0xff {
	case generic, corrupt, constraint, notADB: // generic: a table or column is missing
		return true
	}
	return false
}
