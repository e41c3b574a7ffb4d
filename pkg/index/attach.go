package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
)

// OpenRead opens the index in path and the journal in dir for questions. It works
// beside a daemon and without one, also where nothing can be written. An index that is missing or does not
// fit is not needed: everything is then read from the journal, and Lag says so. One that is put in its place later is used
// from then on.
func OpenRead(path, dir string) (query.Store, error) {
	if _, err := journal.Newest(dir); err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	s := &store{path: path, dir: dir}
	s.attach()
	return s, nil
}

func (s *store) attach() {
	var err error
	s.note = ""
	s.file, err = os.Stat(s.path)
	if err == nil {
		s.db, err = attachRead(s.path, s.dir)
	}
	if s.why = err; err != nil {
		s.note = fmt.Sprintf("the index is not used, the journal is read instead: %v", err)
	}
}

// renew opens the file again if it is another one than before, or gone: who follows does so for weeks, in which
// an index may be built anew. No question may be open.
func (s *store) renew() {
	st, err := os.Stat(s.path)
	switch {
	case err != nil && s.file == nil, err == nil && s.file != nil && os.SameFile(st, s.file):
		return
	}
	if s.db != nil {
		_ = s.db.Close() // it was only read
		s.db = nil
	}
	s.attach()
}

// attachRead tries the file as it is and then, where the files that SQLite keeps beside it can neither be
// found nor made, as one that nobody changes.
func attachRead(path, dir string) (*sql.DB, error) {
	if err := plain(path); err != nil {
		return nil, err
	}
	db, err := checkRead(path, dir, "ro")
	if err == nil || errors.Is(err, errUnfit) {
		return db, err
	}
	if st, serr := os.Stat(path + "-wal"); serr == nil && st.Size() > 0 {
		return nil, err // without that part the file may be half a change
	}
	return checkRead(path, dir, "immutable")
}

func checkRead(path, dir, mode string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn(path, mode))
	if err != nil {
		return nil, err
	}
	s, err := readState(context.Background(), db)
	if err == nil {
		err = fits(s, dir)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}
