package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/regular"
)

// Open opens the journal in dir for writing, or begins one, with the signing key
// in keyDir. It repairs what a crash leaves and refuses what a crash cannot have
// done; see the package comment.
func Open(dir, keyDir string, o Options) (*Journal, error) {
	o = o.withDefaults()
	if o.HostID == "" {
		return nil, errors.New("open journal: no host id")
	}
	fail := func(err error) (*Journal, error) { return nil, fmt.Errorf("open journal %s: %w", dir, err) }
	for _, d := range []string{dir, keyDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fail(err)
		}
	}
	lock, err := takeLock(dir)
	if err != nil {
		return fail(err)
	}
	r := &recovery{dir: dir, keyDir: keyDir, machine: o.HostID, o: o}
	w, err := r.open()
	if o.Continue && (errors.Is(err, ErrTampered) || errors.Is(err, ErrKey) || errors.Is(err, errBadKey)) {
		// There is nothing left to go on from. Whoever did that must not end the recording with it.
		why := err
		if err = setAside(dir, o.Now()); err == nil {
			r = &recovery{dir: dir, keyDir: keyDir, machine: o.HostID, o: o, wiped: true}
			r.wrong(ProblemRemoved, "the log was begun again, what is left of the earlier one is beside it: %v", why)
			w, err = r.open()
		}
	}
	if err != nil {
		return fail(errors.Join(err, lock.Close()))
	}
	o.HostID = r.o.HostID
	j := &Journal{
		dir: dir, o: o, prefix: o.HostID + "/" + o.Boot + "/", opened: r.opened, lock: lock,
		kick: make(chan struct{}, 1), done: make(chan struct{}), changed: make(chan struct{}),
		queue: new(batch), next: w.written + 1,
	}
	w.fill(&j.stats)
	j.floor = &w.floor
	j.floor.Store(w.first)
	go j.run(w)
	return j, nil
}

// takeLock takes the writer's lock. Verify holds it shared for a moment, so a
// refusal is asked again a few times.
func takeLock(dir string) (*os.File, error) {
	f, _, err := regular.Make(filepath.Join(dir, lockName), os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock: %w", err), f.Close())
		}
		if try == 5 {
			return nil, errors.Join(ErrLocked, f.Close())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// setAside moves what is in dir, but for the lock, to dir.before-TIME.
func setAside(dir string, now time.Time) error {
	to := fmt.Sprintf("%s.before-%d", dir, now.UnixNano())
	entries, err := os.ReadDir(dir)
	if err == nil {
		err = os.Mkdir(to, 0o700)
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return errors.Join(syncDir(to), syncDir(dir), syncDir(filepath.Dir(dir)))
}

// listSegments returns the first records of the segments in dir, in order. What has the name of one and is no regular
// file is none.
func listSegments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, e := range entries {
		if n, ok := parseSegmentName(e.Name()); ok && e.Type().IsRegular() {
			firsts = append(firsts, n)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// recovery is one run of Open.
type recovery struct {
	dir, keyDir string
	machine     string  // Options.HostID as it was given
	o           Options // with the log's own HostID
	opened      Opened

	signer *signer
	chain  *keychain
	wiped  bool // an earlier log is gone
	segs   []uint64
	check  Checkpoint // the one in force
	hashes hashFile
	w      *writer
}

// wrong notes tampering.
func (r *recovery) wrong(kind, text string, args ...any) {
	r.opened.Tampered = append(r.opened.Tampered, Problem{Kind: kind, Text: fmt.Sprintf(text, args...)})
}

// refuse returns ErrTampered if something is wrong and the caller did not ask to continue.
func (r *recovery) refuse(always bool) error {
	t := r.opened.Tampered
	if len(t) == 0 || r.o.Continue && !always {
		return nil
	}
	more := ""
	if len(t) > 1 {
		more = fmt.Sprintf(" (and %d more)", len(t)-1)
	}
	return fmt.Errorf("%w: %s%s; nothing was changed: keep a copy of the directory and verify it", ErrTampered, t[0].Text, more)
}

func (r *recovery) open() (*writer, error) {
	var err error
	if r.segs, err = listSegments(r.dir); err != nil {
		return nil, err
	}
	fresh, err := r.identify()
	if err != nil {
		return nil, err
	}
	w := &writer{dir: r.dir, keyDir: r.keyDir, o: r.o, signer: r.signer, segments: len(r.segs), keys: 1, first: 1, aged: time.Now().Add(-r.o.ageIdle)}
	r.w = w
	if fresh {
		return w, r.begin()
	}
	w.first = r.check.First
	r.segs = kept(r.segs, w.first)
	w.keyed, w.keys = r.chain.last().since, len(r.chain.links)
	if err := r.openFiles(); err != nil {
		return nil, err
	}
	if w.chain.size == 0 && r.chain.last().vkey == r.signer.vkey { // its first key began it, and signs still
		var first []byte
		if first, err = r.signer.genesis(Checkpoint{Root: (&tree{}).root(), Time: event.TimeOf(r.o.Now())}); err == nil {
			err = w.chain.add(first, true)
		}
	}
	if err == nil {
		err = r.openTree()
	}
	if err == nil {
		err = r.openSegments()
	}
	if err != nil {
		return nil, errors.Join(err, w.abandon())
	}
	r.opened.Size = w.written
	return w, nil
}

// identify finds out whose journal this is and which checkpoint is in force.
func (r *recovery) identify() (fresh bool, err error) {
	n, err := latestNote(r.dir, checkpointName)
	if err != nil {
		return false, err
	}
	notes, _, err := chainNotes(r.dir)
	if err != nil {
		return false, err
	}
	if err := r.loadKeys(notes); err != nil {
		return false, err
	}
	var c Checkpoint
	if n != nil {
		if c, err = unsigned(n); err != nil {
			r.wrong(ProblemCheckpoint, "%s: %v", checkpointName, err)
			c = Checkpoint{}
		}
	}
	key := ""
	if r.signer != nil {
		key = r.signer.name
	}
	if err := r.named(c.Origin, key); err != nil {
		return false, err
	}
	if err := r.checkHosts(); err != nil {
		return false, err
	}
	empty := len(r.segs) == 0 && c.Size == 0
	switch {
	case r.signer == nil && empty:
		return true, nil
	case r.signer == nil:
		return false, fmt.Errorf("%w: put %s back, or move the journal aside to begin another", ErrKey, filepath.Join(r.keyDir, keyName))
	case n == nil && empty:
		r.wrong(ProblemRemoved, "the log of the key in %s is gone", r.keyDir)
		return true, r.refuse(false)
	}
	if err := r.linkKeys(n, notes); err != nil {
		return false, err
	}
	return false, r.force(n)
}

// checkHosts looks whether the segments name this host. One of an earlier log of it does not hold the records that were signed.
func (r *recovery) checkHosts() error {
	for _, first := range r.segs {
		h, err := readSegmentHead(r.dir, first)
		if err == nil && h.HostID != r.machine && !strings.HasPrefix(h.HostID, r.machine+event.Again) {
			return fmt.Errorf("%w: %s is of host %s, this is %s", ErrOtherHost, segmentName(first), h.HostID, r.machine)
		}
	}
	return nil
}

func readSegmentHead(dir string, first uint64) (segmentHead, error) {
	var h segmentHead
	f, err := openRegular(dir, segmentName(first))
	if err != nil {
		return h, err
	}
	defer f.Close()
	sc := &scanner{f: f}
	fr, err := sc.at(0)
	if err == nil && fr.Kind != frameHeader {
		err = errors.New("no header")
	}
	if err != nil {
		return h, fmt.Errorf("read %s: %w", segmentName(first), err)
	}
	return decodeSegmentHead(fr.Payload)
}

// force sets the checkpoint in force: the newest, or a later one of the history if that was rolled back.
func (r *recovery) force(newest []byte) error {
	var other *note.UnverifiedNoteError
	signed := false
	if newest == nil {
		r.wrong(ProblemCheckpoint, "there are segments, but no checkpoint")
	} else if c, _, err := r.chain.open(newest); err == nil {
		r.check, signed = c, true
	} else if errors.As(err, &other) {
		return fmt.Errorf("%w: the newest checkpoint is not signed by %s", ErrKey, filepath.Join(r.keyDir, keyName))
	} else {
		r.wrong(ProblemCheckpoint, "newest checkpoint: %v", err)
	}
	n, err := latestNote(r.dir, historyName)
	if err != nil {
		return err
	}
	if n != nil {
		c, _, err := r.chain.open(n)
		switch {
		case err != nil:
			r.wrong(ProblemCheckpoint, "history of checkpoints: %v", err)
		case c.Size > r.check.Size && signed:
			r.wrong(ProblemRollback, "the newest checkpoint has size %d, the history has one of size %d", r.check.Size, c.Size)
			r.check = c
		case !signed:
			r.check, signed = c, true
		}
	}
	return r.refuse(!signed) // without any signed size there is nothing to continue from
}

func (r *recovery) openFiles() error {
	var err error
	w := r.w
	for _, f := range []struct {
		to   **appendFile
		name string
	}{{&w.hashes, hashesName}, {&w.check, checkpointName}, {&w.history, historyName}, {&w.chain, chainName}} {
		if *f.to, err = w.openAppend(f.name); err != nil {
			return errors.Join(err, w.abandon())
		}
	}
	if w.reserve, err = openReserve(r.dir, r.o.ReserveBytes); err != nil {
		return errors.Join(err, w.abandon())
	}
	r.hashes = hashFile{w.hashes.f}
	return nil
}

// abandon closes what was opened by an Open that fails.
func (w *writer) abandon() error {
	var err error
	for _, a := range []*appendFile{w.seg, w.hashes, w.check, w.history, w.chain} {
		if a != nil {
			err = errors.Join(err, a.f.Close())
		}
	}
	return errors.Join(err, w.reserve.close())
}

// cutNotes cuts a note that a crash left half written.
func cutNotes(a *appendFile) error {
	_, whole, err := lastNote(a.f)
	if err != nil || whole == a.size {
		return err
	}
	return a.cut(whole)
}

func (a *appendFile) cut(size int64) error {
	if err := a.f.Truncate(size); err != nil {
		return err
	}
	a.size = size
	return a.f.Sync()
}

// openTree makes the hash file give the signed root, or finds that it cannot.
func (r *recovery) openTree() error {
	w, size := r.w, int64(r.check.Size)
	if t, err := loadTree(r.hashes, size); err != nil || t.root() != r.check.Root {
		if err := r.rebuildHashes(); err != nil {
			return err
		}
	}
	t, err := loadTree(r.hashes, size)
	if err != nil {
		return err
	}
	w.hashed, w.sealed, w.written, w.last = *t, r.check.Size, r.check.Size, r.check
	n := tlog.StoredHashCount(size) * tlog.HashSize
	if w.hashes.size <= n {
		return nil
	}
	if len(r.opened.Tampered) > 0 {
		if _, err := r.keep(w.hashes.f, n, hashesName); err != nil {
			return err
		}
	}
	return w.hashes.cut(n)
}

// rebuildHashes computes the hash file from the records. If they do not give the
// signed root there is no tree to continue, whatever the options say.
func (r *recovery) rebuildHashes() error {
	const tmp = "." + hashesName + ".tmp"
	f, _, err := regular.Make(filepath.Join(r.dir, tmp), os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	var t tree
	var out bytes.Buffer
	err = eachRecord(r.dir, r.segs, func(seq uint64, b []byte) error {
		if seq != uint64(t.size)+1 || seq > r.check.Size {
			return errStop
		}
		out.Write(t.add(tlog.RecordHash(b), nil))
		if out.Len() >= window {
			_, err := out.WriteTo(f)
			return err
		}
		return nil
	})
	if err == nil || errors.Is(err, errStop) {
		_, err = out.WriteTo(f)
	}
	if err == nil && (uint64(t.size) != r.check.Size || t.root() != r.check.Root) {
		r.wrong(ProblemHashes, "neither the hash file nor the records give the root signed at size %d", r.check.Size)
		err = r.refuse(true)
	}
	if err == nil {
		err = f.Sync()
	}
	old := r.w.hashes
	if err == nil && hashesIn(old.size) >= t.size { // long enough, so it was changed: evidence
		err = os.Link(old.f.Name(), filepath.Join(r.dir, fmt.Sprintf("torn-%s-%d", hashesName, r.o.Now().UnixNano())))
	}
	if err == nil {
		err = os.Rename(f.Name(), old.f.Name())
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(filepath.Join(r.dir, tmp)))
	}
	r.opened.HashesRebuilt = true
	if r.w.hashes, err = r.w.openAppend(hashesName); err != nil {
		r.w.hashes = old
		return errors.Join(err, f.Close())
	}
	r.hashes = hashFile{r.w.hashes.f}
	return errors.Join(f.Close(), old.f.Close(), syncDir(r.dir))
}

// keepMost bounds what is kept of torn bytes: twice a segment.
const keepMost = 128 << 20

// keep copies what f holds from off on, keepMost at most, to a file of its own.
func (r *recovery) keep(f *os.File, off int64, name string) (string, error) {
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	to := filepath.Join(r.dir, fmt.Sprintf("torn-%s-%d", name, r.o.Now().UnixNano()))
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, io.NewSectionReader(f, off, min(st.Size()-off, keepMost)))
	err = errors.Join(err, out.Sync(), out.Close())
	if err != nil {
		return "", errors.Join(fmt.Errorf("keep the end of %s: %w", f.Name(), err), os.Remove(to))
	}
	return to, nil
}
