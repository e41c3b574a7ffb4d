package rollback

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
)

// Errors that callers tell apart.
var (
	ErrLocked    = errors.New("another process has the vault open for writing")
	ErrReadOnly  = errors.New("the vault is open for reading only")
	ErrNoRoom    = errors.New("too little disk space is free for another version")
	ErrNoVersion = errors.New("there is no such version")
	ErrMissing   = cas.ErrMissing
	ErrCorrupt   = cas.ErrCorrupt
	ErrSealed    = cas.ErrSealed
)

// DefaultEvidenceMax is how much evidence is kept unless Options say otherwise.
const DefaultEvidenceMax = 1 << 30

// queueMax is how many bytes of unwritten log Capture lets gather before it
// calls Sync itself.
const queueMax = 4 << 20

// Options are the choices of Open. The zero value is ready for use.
type Options struct {
	Now          func() time.Time // default time.Now
	Rand         io.Reader        // for temporary names; default crypto/rand
	EvidenceDir  string           // default <vault>/../evidence
	EvidenceMax  int64            // bytes kept there, the oldest go first; default 1 GiB
	ReserveBytes int64            // disk space held back for restores on a full disk; default none
	// FreeFloor is how many bytes of the vault's file system captures leave free: with
	// less they end in ErrNoRoom. Default none.
	FreeFloor int64
	Disk      cas.Disk // tests inject faults here
	// Sealer encrypts the contents that are written from now on, and decrypts those
	// that were sealed before. Nil: they are written as they are. A vault that was
	// once opened for writing with one is opened for writing with it alone.
	Sealer   Sealer
	ReadOnly bool // as OpenReadOnly does it
	// Before is called before versions become durable: the records that they name
	// must be durable when it returns, or a crash would leave versions of nothing.
	Before func() error
}

// Sealer is the key provider of a vault: cas.Sealer says what it has to guarantee.
type Sealer = cas.Sealer

// Store is an open vault. Its methods may be called from several goroutines.
type Store struct {
	dir      string
	readOnly bool
	now      func() time.Time
	rand     io.Reader
	disk     cas.Disk
	enc      cbor.EncMode
	objects  *cas.Store
	lock     int // descriptor that holds the lock
	before   func() error
	sealer   Sealer
	floor    int64
	reserve  *reserve
	evidence *evidence
	intents  int // directory descriptor
	plans    int // directory descriptor

	keeping    sync.RWMutex // held from when a content is stored until a version names it
	namespaces namespaces

	sync sync.Mutex // one Sync at a time; guards log
	log  *versionLog

	mu      sync.RWMutex
	catalog *catalog
	queue   []byte // frames that the log lacks
	opened  Opened
}

// Opened tells what Open found and mended.
type Opened struct {
	TornBytes int64     // cut off the end of the log: a write that a crash interrupted
	Damage    []Problem // parts of the log that cannot be read
	Leftovers []string  // evidence made of restores that a crash interrupted
}

// Open opens the vault in dir for writing and makes it if it is missing. The error
// wraps ErrSealed if the vault is sealed and the Sealer has not the key.
func Open(dir string, o Options) (*Store, error) {
	s, err := open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", dir, err)
	}
	return s, nil
}

// OpenReadOnly opens the vault in dir for reading, beside a writer or without
// one. It shows what was durable when it was opened. Without a Sealer, contents
// that are sealed are errors that wrap ErrSealed.
func OpenReadOnly(dir string) (*Store, error) {
	return Open(dir, Options{ReadOnly: true})
}

func open(dir string, o Options) (_ *Store, err error) {
	readOnly := o.ReadOnly
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.EvidenceDir == "" {
		o.EvidenceDir = filepath.Join(filepath.Dir(dir), "evidence")
	}
	if o.EvidenceMax == 0 {
		o.EvidenceMax = DefaultEvidenceMax
	}
	s := &Store{dir: dir, readOnly: readOnly, now: o.Now, rand: o.Rand, disk: o.Disk, before: o.Before, sealer: o.Sealer, floor: o.FreeFloor, lock: -1, intents: -1, plans: -1,
		catalog: newCatalog()}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if s.enc, err = newEncoding(); err != nil {
		return nil, err
	}
	if !readOnly {
		if err := s.acquire(); err != nil {
			return nil, err
		}
	}
	if s.objects, err = cas.Open(dir, cas.Options{Disk: s.disk, ReadOnly: readOnly, Sealer: s.sealer}); err != nil {
		return nil, err
	}
	var bad []damage
	var torn int64
	for try := 0; ; try++ {
		s.catalog = newCatalog()
		s.log, bad, torn, err = openLog(filepath.Join(dir, "versions"), s.disk, readOnly, s.catalog)
		if err == nil {
			break
		}
		if !readOnly || !errors.Is(err, fs.ErrNotExist) || s.log == nil || try == anewMost {
			return nil, err
		}
		// the writer has written the log anew, and taken the old one away
		if err := s.log.close(); err != nil {
			return nil, err
		}
	}
	s.opened.TornBytes = torn
	for _, d := range bad {
		s.opened.Damage = append(s.opened.Damage, d.problem())
	}
	if err := s.openSeal(bad); err != nil {
		return nil, err
	}
	if readOnly {
		return s, nil
	}
	if s.reserve, err = openReserve(filepath.Join(dir, "reserve"), o.ReserveBytes, s.disk); err != nil {
		return nil, err
	}
	if s.evidence, err = openEvidence(o.EvidenceDir, o.EvidenceMax, s.disk); err != nil {
		return nil, err
	}
	if err := s.recoverIntents(); err != nil {
		return nil, err
	}
	if err := s.openPlans(); err != nil {
		return nil, err
	}
	return s, nil
}

// acquire makes the directory and takes the writer's lock, which the kernel
// releases when the process ends.
func (s *Store) acquire() error {
	if err := s.disk.Mkdir(unix.AT_FDCWD, s.dir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	var err error
	s.lock, err = openPlain(unix.AT_FDCWD, filepath.Join(s.dir, "lock"), unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(s.lock, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	} else if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

// Opened returns what Open found and mended.
func (s *Store) Opened() Opened { return s.opened }

// Close makes durable what waits and releases the vault.
func (s *Store) Close() error {
	var err error
	if !s.readOnly {
		err = s.Sync()
	}
	return errors.Join(err, s.release())
}

func (s *Store) release() error {
	var err error
	if s.log != nil {
		err = s.log.close()
		s.log = nil
	}
	if s.objects != nil {
		err = errors.Join(err, s.objects.Close())
		s.objects = nil
	}
	if s.evidence != nil {
		err = errors.Join(err, s.evidence.close())
		s.evidence = nil
	}
	for _, fd := range []*int{&s.intents, &s.plans, &s.lock} {
		if *fd >= 0 {
			err = errors.Join(err, unix.Close(*fd))
			*fd = -1
		}
	}
	return err
}

// Sync makes durable all that was captured before the call: contents first,
// then the log that names them. After an error all of it still waits and Sync
// may be called again.
func (s *Store) Sync() error {
	if s.readOnly {
		return ErrReadOnly
	}
	s.sync.Lock()
	defer s.sync.Unlock()
	// What the frames refer to was put before they were queued: taking the
	// queue first means that Flush covers all of it.
	s.mu.RLock()
	frames := s.queue[:len(s.queue):len(s.queue)]
	s.mu.RUnlock()
	err := s.objects.Flush()
	if err == nil && len(frames) > 0 && s.before != nil {
		err = s.before()
	}
	if err == nil && len(frames) > 0 {
		err = s.log.append(frames)
	}
	if err != nil {
		return fmt.Errorf("sync vault: %w", err)
	}
	s.mu.Lock()
	s.queue = append([]byte(nil), s.queue[len(frames):]...)
	s.mu.Unlock()
	return s.reserve.refill()
}

// Content returns the content of h. It is verified before the first byte: a
// damaged object is an error that wraps ErrCorrupt, a missing one ErrMissing, one
// that cannot be opened ErrSealed.
func (s *Store) Content(h event.Hash) (io.ReadCloser, error) { return s.objects.Open(h) }

// Has reports whether the content of h is in the vault. An error says that this cannot
// be told: it may be.
func (s *Store) Has(h event.Hash) (bool, error) { return s.objects.Has(h) }

// Stats are the sizes of a vault.
type Stats struct {
	Paths    int   `json:"paths"`
	Versions int   `json:"versions"`
	Objects  int   `json:"objects"` // durable contents
	Bytes    int64 `json:"bytes"`   // of the different contents that versions name
	Stored   int64 `json:"stored"`  // of the objects on disk
	Reserve  int64 `json:"reserve"` // held back now

	Evidence        int64  `json:"evidence"`         // bytes of displaced inodes
	EvidenceItems   int    `json:"evidence_items"`   //
	EvidenceDropped uint64 `json:"evidence_dropped"` // removed to stay below the limit, since Open
}

// Stats counts. The first call looks at every object.
func (s *Store) Stats() Stats {
	var st Stats
	s.mu.RLock()
	st.Paths, st.Versions, st.Bytes = len(s.catalog.paths), s.catalog.versions, s.catalog.bytes
	s.mu.RUnlock()
	st.Objects, st.Stored = s.objects.Sizes() // what cannot be listed is left out: Fsck says why
	if !s.readOnly {
		st.Reserve = s.reserve.held()
		st.Evidence, st.EvidenceItems, st.EvidenceDropped = s.evidence.stats()
	}
	return st
}

// tempPrefix begins every temporary name that a restore makes beside its target.
const tempPrefix = ".holdfast-"

// token returns 16 random hex digits.
func (s *Store) token() (string, error) {
	var b [8]byte
	if _, err := io.ReadFull(s.rand, b[:]); err != nil {
		return "", fmt.Errorf("make a random name: %w", err)
	}
	return fmt.Sprintf("%016x", binary.LittleEndian.Uint64(b[:])), nil
}
