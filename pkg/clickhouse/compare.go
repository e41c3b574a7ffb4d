package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// What can differ between a journal and its rows.
const (
	Missing    = "missing"    // the journal has it, no row does
	Extra      = "extra"      // a row has it, the journal does not
	Altered    = "altered"    // a row whose bytes or columns are not the record's
	Duplicated = "duplicated" // a further row of the same bytes
)

// Difference is one row or record that is not as it should be.
type Difference struct {
	What   string `json:"what"`
	HostID string `json:"host_id"`
	Boot   string `json:"boot,omitempty"`
	Seq    uint64 `json:"seq"`
	Detail string `json:"detail,omitempty"`
}

func (d Difference) String() string {
	s := fmt.Sprintf("%s %s/%s/%d", d.What, d.HostID, d.Boot, d.Seq)
	if d.Detail != "" {
		s += ": " + d.Detail
	}
	return s
}

// Comparison counts what Compare found. It is clean if Clean says so.
type Comparison struct {
	Records    uint64 `json:"records"` // read from the journal
	Rows       uint64 `json:"rows"`    // read from the server
	Matched    uint64 `json:"matched"` // records with a row of their bytes and columns
	Missing    uint64 `json:"missing"`
	Extra      uint64 `json:"extra"`
	Altered    uint64 `json:"altered"`
	Duplicated uint64 `json:"duplicated"`
}

// Clean reports whether rows and records were the same.
func (c Comparison) Clean() bool {
	return c.Missing == 0 && c.Extra == 0 && c.Altered == 0 && c.Duplicated == 0
}

// NextRecord hands out the journal's records in ascending order: number and
// bytes, io.EOF behind the last one.
type NextRecord func(ctx context.Context) (seq uint64, record []byte, err error)

// Compare holds the rows of a host's records from to to, both included, against
// the journal: bytes by leaf hash, and each column by what it must be for those
// bytes. to 0 is the end. next must begin at from; what it gives beyond to is not
// looked at. Each difference goes to report, in order of seq.
//
// Rows are taken as they lie in the table, so that a second row that a merge would
// remove counts as duplicated. Records that were not shipped yet are missing: bound
// to by the shipped position to leave them out.
func (db *DB) Compare(ctx context.Context, hostID string, from, to uint64, next NextRecord, report func(Difference)) (Comparison, error) {
	if to == 0 {
		to = math.MaxUint64
	}
	cs := columns()
	rows, err := db.conn.Query(ctx, "SELECT "+names(cs)+" FROM "+db.target.Database+
		".records WHERE host_id = ? AND seq >= ? AND seq <= ? ORDER BY host_id, seq, boot", hostID, from, to)
	if err != nil {
		return Comparison{}, db.explain("compare with", err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	c := newComparer(rows, cs, hostID, report)
	err = c.run(ctx, to, next)
	return c.count, db.explain("compare with", err)
}

type comparer struct {
	rows                 driver.Rows
	cs                   []column
	seqAt, bootAt, recAt int
	dest                 []any // the row under the cursor
	more                 bool  // there is one
	hostID               string
	report               func(Difference)
	count                Comparison
}

func newComparer(rows driver.Rows, cs []column, hostID string, report func(Difference)) *comparer {
	at := func(name string) int { return slices.IndexFunc(cs, func(c column) bool { return c.name == name }) }
	return &comparer{rows: rows, cs: cs, dest: make([]any, len(cs)), report: report, hostID: hostID, seqAt: at("seq"), bootAt: at("boot"), recAt: at("rec")}
}

// run merges the two ascending streams.
func (c *comparer) run(ctx context.Context, to uint64, next NextRecord) error {
	if err := c.advance(); err != nil {
		return err
	}
	for {
		seq, rec, err := next(ctx)
		if err == nil && seq > to {
			err = io.EOF
		}
		if errors.Is(err, io.EOF) {
			return c.extras(math.MaxUint64)
		}
		if err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
		c.count.Records++
		if err := c.extras(seq); err != nil {
			return err
		}
		if err := c.record(seq, rec); err != nil {
			return err
		}
	}
}

// extras reports the rows before seq: the journal has no such records.
func (c *comparer) extras(seq uint64) error {
	for c.more && (c.seq() < seq || seq == math.MaxUint64) {
		c.count.Extra++
		c.differ(Extra, c.boot(), c.seq(), "")
		if err := c.advance(); err != nil {
			return err
		}
	}
	return nil
}

// record judges all rows that carry the number of one record.
func (c *comparer) record(seq uint64, rec []byte) error {
	row, err := NewRow(rec)
	if err != nil {
		return err
	}
	v := views([]Row{row})[0]
	leaf := Leaf(rec)
	seen, altered := 0, 0
	for c.more && c.seq() == seq {
		switch wrong := c.wrongColumns(&v); {
		case Leaf([]byte(*c.dest[c.recAt].(*string))) != leaf:
			altered++
			c.differ(Altered, c.boot(), seq, "the bytes are not the record's")
		case len(wrong) > 0:
			altered++
			c.differ(Altered, c.boot(), seq, fmt.Sprintf("columns %v do not tell what the record does", wrong))
		default:
			if seen++; seen > 1 {
				c.count.Duplicated++
				c.differ(Duplicated, c.boot(), seq, "")
			}
		}
		if err := c.advance(); err != nil {
			return err
		}
	}
	c.count.Altered += uint64(altered)
	switch {
	case seen > 0:
		c.count.Matched++
	case altered == 0:
		c.count.Missing++
		c.differ(Missing, row.Record.Boot, seq, "")
	}
	return nil
}

// wrongColumns names the columns of the row under the cursor that are not v's.
func (c *comparer) wrongColumns(v *view) []string {
	var wrong []string
	for i := range c.cs {
		if i != c.recAt && !c.cs[i].holds(c.dest[i], v) {
			wrong = append(wrong, c.cs[i].name)
		}
	}
	return wrong
}

func (c *comparer) differ(what, boot string, seq uint64, detail string) {
	if c.report != nil {
		c.report(Difference{What: what, HostID: c.hostID, Boot: boot, Seq: seq, Detail: detail})
	}
}

func (c *comparer) advance() error {
	if c.more = c.rows.Next(); !c.more {
		return c.rows.Err()
	}
	c.count.Rows++
	for i, col := range c.cs { // fresh ones: the driver leaves a NULL's pointer as it was
		c.dest[i] = col.dest()
	}
	return c.rows.Scan(c.dest...)
}

func (c *comparer) seq() uint64  { return *c.dest[c.seqAt].(*uint64) }
func (c *comparer) boot() string { return *c.dest[c.bootAt].(*string) }
