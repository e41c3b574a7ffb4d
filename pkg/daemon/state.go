package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/attribute"
	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/regular"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/ship"
	"github.com/holdfast/holdfast/pkg/vault"
	"github.com/holdfast/holdfast/pkg/window"
	"github.com/holdfast/holdfast/rollback"
)

// state is the open state directory.
type state struct {
	cfg     config.Config
	host    string
	hostID  string // of the log
	boot    string
	journal *journal.Journal
	vault   *rollback.Store
	keeper  pipeline.Vault
	log     *slog.Logger
	plans   plans
	tier    string // of the kernel side; "" without a daemon

	windowing  sync.Mutex // windows are opened and ended one after the other
	windows    *window.Set
	windowsErr error // why windows of the file are not in force
	// through tells the kernel side whom these windows let through rules that block; nil
	// without one.
	through func([]window.Window) error
}

// freeFloor is how much of the disk, in bytes, the vault and the index leave to the journal: three times its reserve, so
// that what it gives up for a critical record is not taken by a version or by the index.
const freeFloor = 12 << 20

// openState opens journal and vault, which locks them.
func openState(cfg config.Config, log *slog.Logger) (*state, error) {
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	if err := os.Chmod(cfg.State, 0o700); err != nil {
		return nil, fmt.Errorf("close state directory to others: %w", err)
	}
	s := &state{cfg: cfg, log: log, plans: plans{running: map[string]bool{}}}
	var err error
	if s.host, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("host name: %w", err)
	}
	machine, err := hostID(cfg.State)
	if err != nil {
		return nil, err
	}
	if s.boot, err = readLine("/proc/sys/kernel/random/boot_id"); err != nil {
		return nil, fmt.Errorf("boot id: %w", err)
	}
	s.journal, err = journal.Open(cfg.JournalDir(), cfg.KeysDir(), journal.Options{
		HostID: machine, Host: s.host, Boot: s.boot, SegmentBytes: int64(cfg.Limits.Segment), KeyEvery: cfg.Journal.KeyEvery, Logger: log,
		KeepFor: time.Duration(cfg.Journal.KeepDays) * 24 * time.Hour, KeepBytes: int64(cfg.Journal.KeepSize), Shipped: s.shipped(log),
		// whoever can damage the log must not be able to end the protection with it
		Continue: true,
	})
	if err != nil {
		return nil, err
	}
	s.hostID = s.journal.HostID()
	s.vault, err = rollback.Open(cfg.VaultDir(), rollback.Options{
		EvidenceDir: cfg.EvidenceDir(), EvidenceMax: int64(cfg.Limits.Evidence), ReserveBytes: int64(cfg.Limits.Reserve), FreeFloor: freeFloor, Before: s.recordsFirst,
	})
	if err != nil {
		return nil, errors.Join(err, s.journal.Close())
	}
	s.keeper = vault.Over(s.vault)
	if err := s.openWindows(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// shipped returns what tells how far records are on the server; nil if they are sent to none.
func (s *state) shipped(log *slog.Logger) func(string) uint64 {
	if !s.cfg.ClickHouse.Enabled() {
		return nil
	}
	return func(hostID string) uint64 {
		n, err := ship.Confirmed(s.cfg.ShippedFile(), hostID)
		if err != nil {
			log.Warn("shipping position cannot be read: nothing expires by age", "err", err)
		}
		return n
	}
}

// recordsFirst makes the records durable before the versions that name them.
func (s *state) recordsFirst() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return s.journal.Sync(ctx)
}

func (s *state) close() error { return errors.Join(s.vault.Close(), s.journal.Close()) }

// hostID is the machine id (machine-id(5)), or a random one of the same form
// that the state directory keeps where a machine has none.
func hostID(dir string) (string, error) {
	id, err := readLine("/etc/machine-id")
	if err == nil && len(id) == 32 {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("machine id: %w", err)
	}
	own := filepath.Join(dir, "host-id")
	kept, err := regular.ReadFile(own, 4<<10)
	if err == nil {
		return strings.TrimSpace(string(kept)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("host id: %w", err)
	}
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand
	id = hex.EncodeToString(b[:])
	if err := os.WriteFile(own, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep host id: %w", err)
	}
	return id, nil
}

func readLine(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

// clock is the pipeline's clock.
type clock struct{ wall func(uint64) event.Time }

var _ pipeline.Clock = clock{}

func newClock() clock { return clock{wall: attribute.Wall()} }

// Boot is CLOCK_BOOTTIME, which the kernel side stamps events with.
func (clock) Boot() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // cannot fail on a kernel that has the clock (since 2.6.39)
	}
	return uint64(ts.Nano())
}

func (c clock) Wall(boot uint64) event.Time { return c.wall(boot) }

func (clock) After(d time.Duration) (<-chan time.Time, func() bool) {
	t := time.NewTimer(d)
	return t.C, t.Stop
}
