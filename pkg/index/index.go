package index

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/journal"
)

// Options of Open.
type Options struct {
	Now    func() time.Time // time.Now; names the files put aside
	Batch  int              // records in one transaction; 5000, or as many as take batchBytes
	Retry  time.Duration    // pause after an attempt that failed; 5 s
	Logger *slog.Logger     // slog.DiscardHandler

	// FreeFloor is how many bytes must be free on the disk before records are indexed; none by
	// default. What a full disk has left is for the journal: the index can be built at any time.
	FreeFloor int64

	// Bounds, if set, is Journal.Bounds of the writer in the same process.
	Bounds func() (first, last uint64)
}

// batchBytes ends a batch: decoded, a record takes several times its bytes.
const batchBytes = 4 << 20

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Batch <= 0 {
		o.Batch = 5000
	}
	if o.Retry <= 0 {
		o.Retry = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Stats tell how far the index is.
type Stats struct {
	Seq       uint64 `json:"seq"`    // newest record indexed
	Behind    uint64 `json:"behind"` // signed records that are not
	Bytes     int64  `json:"bytes"`
	Rebuilt   uint64 `json:"rebuilt"`          // times the file was put aside since Open
	Reason    string `json:"reason,omitempty"` // of the last time
	Skipped   uint64 `json:"skipped"`          // records that cannot be read: verify names them
	Errors    uint64 `json:"errors"`
	LastError string `json:"last_error,omitempty"`
}

// Index is the writer of an index file.
type Index struct {
	path, dir string
	o         Options
	in        *inserter
	pruned    uint64 // records below it have been taken out
	gone      int64  // records taken out since strings were

	mu    sync.Mutex // guards what follows
	db    *sql.DB
	file  os.FileInfo // of the file that db has open
	stats Stats
	asked error              // to build the file anew, and why
	stop  context.CancelFunc // ends the pass under way
}

// Open opens the index in path behind the journal in dir, or begins one. A file
// that does not fit is put aside (path.bad-TIME, the newest only is kept) and said so in Stats.
// Nothing is indexed before Run or CatchUp.
func Open(path, dir string, o Options) (*Index, error) {
	x := &Index{path: path, dir: dir, o: o.withDefaults(), in: newInserter()}
	ctx := context.Background()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	err := x.attach(ctx)
	if err != nil && unusable(err) {
		err = x.rebuild(ctx, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", path, err)
	}
	return x, nil
}

// Build builds the index in path anew from the journal in dir, where no daemon does.
func Build(ctx context.Context, path, dir string, o Options) (Stats, error) {
	x, err := Open(path, dir, o)
	if err != nil {
		return Stats{}, err
	}
	if err = x.rebuild(ctx, fmt.Errorf("%w: it was asked to be built anew", errUnfit)); err == nil {
		err = x.CatchUp(ctx)
	}
	return x.Stats(), errors.Join(err, x.Close())
}

// plain reports what is no regular file in the place of one of SQLite's: it would wait for a pipe.
func plain(path string) error {
	for _, end := range []string{"", "-wal", "-shm"} {
		st, err := os.Lstat(path + end)
		if err == nil && !st.Mode().IsRegular() {
			return fmt.Errorf("%w: %s is not a regular file", errUnfit, path+end)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// attach opens the file, makes the schema in an empty one, and checks that it fits the journal.
func (x *Index) attach(ctx context.Context) error {
	if err := plain(x.path); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dsn(x.path, "rwc"))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	s, err := x.prepare(ctx, db)
	var file os.FileInfo
	if err == nil {
		file, err = os.Stat(x.path)
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	x.mu.Lock()
	x.db, x.file, x.stats.Seq = db, file, s.seq
	x.mu.Unlock()
	return nil
}

func (x *Index) prepare(ctx context.Context, db *sql.DB) (state, error) {
	var tables int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return state{}, err
	}
	if tables == 0 {
		if err := create(ctx, db); err != nil {
			return state{}, err
		}
		if err := os.Chmod(x.path, 0o600); err != nil {
			return state{}, err
		}
	}
	s, err := readState(ctx, db)
	if err != nil {
		return s, err
	}
	return s, fits(s, x.dir)
}

func create(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err = tx.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA user_version = %d;", version)); err == nil {
		return tx.Commit()
	}
	return errors.Join(err, tx.Rollback())
}

// fits reports whether the journal has the record that was indexed last, as it was.
func fits(s state, dir string) error {
	if s.seq == 0 {
		return nil
	}
	newest, err := journal.Newest(dir)
	if err != nil {
		return err
	}
	if s.seq > newest {
		return fmt.Errorf("%w: it is at record %d, the journal at %d", errUnfit, s.seq, newest)
	}
	r, err := journal.OpenReader(dir)
	if err != nil {
		return err
	}
	e, err := r.At(s.seg, s.off)
	if cerr := r.Close(); cerr != nil {
		return errors.Join(err, cerr)
	}
	if err != nil || e.Seq != s.seq || !bytes.Equal(e.Leaf[:], s.leaf) {
		return fmt.Errorf("%w: the journal has another record %d", errUnfit, s.seq)
	}
	return nil
}

// rebuild puts the file aside, or removes one of another version, and begins an empty one.
func (x *Index) rebuild(ctx context.Context, why error) error {
	x.mu.Lock()
	db := x.db
	x.db = nil
	x.stats.Rebuilt++
	x.stats.Reason = why.Error()
	x.stats.Seq = 0
	x.mu.Unlock()
	if db != nil {
		if err := db.Close(); err != nil {
			x.o.Logger.Warn("close of a damaged index", "err", err)
		}
	}
	x.in.forget()
	x.pruned, x.gone = 0, 0
	aside := fmt.Sprintf("%s.bad-%d", x.path, x.o.Now().UnixNano())
	x.o.Logger.Warn("index is built anew", "path", aside, "err", why)
	old, err := filepath.Glob(x.path + ".bad-*")
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.RemoveAll(f); err != nil {
			return err
		}
	}
	for _, end := range []string{"", "-wal", "-shm"} {
		var err error
		if errors.Is(why, errVersion) {
			err = os.Remove(x.path + end)
		} else {
			err = os.Rename(x.path+end, aside+end)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return x.attach(ctx)
}

// Stats returns the counters of now.
func (x *Index) Stats() Stats {
	x.mu.Lock()
	s := x.stats
	x.mu.Unlock()
	if n, err := journal.Newest(x.dir); err == nil && n > s.Seq {
		s.Behind = n - s.Seq
	}
	for _, end := range []string{"", "-wal"} {
		if st, err := os.Stat(x.path + end); err == nil {
			s.Bytes += st.Size()
		}
	}
	return s
}

// Run indexes what the journal has and then what comes, until ctx ends, which is no
// error. What fails is counted and tried again.
func (x *Index) Run(ctx context.Context) error { return x.follow(ctx, true) }

// CatchUp indexes up to the present end of the journal.
func (x *Index) CatchUp(ctx context.Context) error {
	if err := x.follow(ctx, false); err != nil {
		return err
	}
	return ctx.Err()
}

func (x *Index) follow(ctx context.Context, forever bool) error {
	for {
		err := x.once(ctx, forever)
		switch {
		case ctx.Err() != nil || err == nil:
			return nil
		case unusable(err):
			err = x.rebuild(ctx, err)
			if err == nil {
				continue
			}
		}
		x.mu.Lock()
		x.stats.Errors++
		x.stats.LastError = err.Error()
		x.mu.Unlock()
		if !forever {
			return fmt.Errorf("index %s: %w", x.path, err)
		}
		x.o.Logger.Error("index stands still and is tried again", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(x.o.Retry):
		}
	}
}

// Rebuild has Run build the file anew from the journal, and returns at once.
func (x *Index) Rebuild() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked = fmt.Errorf("%w: it was asked to be built anew", errUnfit)
	if x.stop != nil {
		x.stop()
	}
}

// once is a pass that Rebuild can end.
func (x *Index) once(ctx context.Context, forever bool) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	x.mu.Lock()
	x.stop = stop
	asked := x.asked
	x.mu.Unlock()
	var err error
	if asked == nil {
		err = x.pass(ctx, forever)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stop = nil
	if x.asked != nil {
		err, x.asked = x.asked, nil
	}
	return err
}

// pass reads the journal from where the index is.
func (x *Index) pass(ctx context.Context, forever bool) (err error) {
	x.mu.Lock()
	db, seq := x.db, x.stats.Seq
	x.mu.Unlock()
	if db == nil {
		return errUnfit
	}
	r, err := journal.OpenReader(x.dir)
	if err != nil {
		return err
	}
	r.Bounds = x.o.Bounds
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Seek(seq + 1); err != nil {
		return err
	}
	batch := make([]journal.Entry, 0, x.o.Batch)
	for {
		clear(batch)
		batch = batch[:0]
		r.Follow = forever
		for size := 0; len(batch) < x.o.Batch && size < batchBytes && err == nil; {
			var e journal.Entry
			if e, err = r.Next(ctx); err == nil {
				batch = append(batch, e)
				size += len(e.Bytes)
				r.Follow = false
			} else if errors.Is(err, journal.ErrCorrupt) {
				x.skip(err)
				err = nil
			}
		}
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return err
		}
		if err = x.store(ctx, db, batch); err == nil {
			err = x.prune(ctx, db)
		}
		if err != nil {
			return err
		}
		if ended && !forever {
			return nil
		}
	}
}

func (x *Index) skip(err error) {
	n := uint64(1)
	var c *journal.CorruptError
	if errors.As(err, &c) {
		n = c.To - c.From + 1
	}
	x.o.Logger.Error("records cannot be indexed", "err", err)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stats.Skipped += n
}

func (x *Index) store(ctx context.Context, db *sql.DB, batch []journal.Entry) error {
	if len(batch) == 0 {
		return nil
	}
	if err := errors.Join(x.room(), x.there()); err != nil {
		return err
	}
	unread, err := x.in.insert(ctx, db, batch)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stats.Seq = batch[len(batch)-1].Seq
	x.stats.Skipped += uint64(unread)
	return nil
}

// there tells whether the file is still the one that is written to, and not shorter than it was: one that was removed takes
// records as before, and nobody finds them; what was cut SQLite does not miss as long as it remembers it.
func (x *Index) there() error {
	st, err := os.Stat(x.path)
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !os.SameFile(st, x.file):
		return fmt.Errorf("%w: the file was removed or replaced", errUnfit)
	case err != nil:
		return err
	case st.Size() < x.file.Size():
		return fmt.Errorf("%w: the file was cut", errUnfit)
	}
	x.file = st
	return nil
}

// room tells whether the disk has more free than is left to others.
func (x *Index) room() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(x.path), &fs); err != nil {
		return fmt.Errorf("statfs %s: %w", filepath.Dir(x.path), err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < x.o.FreeFloor {
		return fmt.Errorf("%d bytes are free of the %d that are left to the journal: %w", free, x.o.FreeFloor, unix.ENOSPC)
	}
	return nil
}

// Close gives the file free. Run must have ended.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.db == nil {
		return nil
	}
	err := x.db.Close()
	x.db = nil
	return err
}
