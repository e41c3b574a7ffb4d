package ship

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/holdfast/holdfast/pkg/internal/regular"
)

// position is what outlives us: up to where the sink confirmed, and the bounds of
// the last batch that was begun. Zero is unknown.
type position struct {
	confirmed   uint64
	first, last uint64
}

// positionSize is the length of the file: one line, padded. It is overwritten in
// place by one write, which a kill cannot tear; a power cut can, and the checksum
// tells.
const positionSize = 512

// Confirmed returns the last record that the sink confirmed, as a position file tells; 0 if it does not, or
// is of another host.
func Confirmed(path, hostID string) (uint64, error) {
	b, err := regular.ReadFile(path, positionSize)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read shipping position: %w", err)
	}
	pos, _ := decodePosition(b, hostID)
	return pos.confirmed, nil
}

type positionFile struct {
	f      *os.File // nil: keep nothing
	hostID string
}

func openPosition(path, hostID string) (*positionFile, error) {
	if path == "" {
		return &positionFile{}, nil
	}
	f, _, err := regular.Make(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open shipping position: %w", err)
	}
	return &positionFile{f: f, hostID: hostID}, nil
}

// load returns the position, the zero one if the file is new, torn or another
// host's.
func (p *positionFile) load() (position, error) {
	if p.f == nil {
		return position{}, nil
	}
	b := make([]byte, positionSize)
	n, err := p.f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return position{}, fmt.Errorf("read shipping position: %w", err)
	}
	pos, _ := decodePosition(b[:n], p.hostID)
	return pos, nil
}

// save writes pos. Without sync it survives our death but not the machine's: that
// is enough for a batch under way, of which the sink is rid by the time we boot.
func (p *positionFile) save(pos position, sync bool) error {
	if p.f == nil {
		return nil
	}
	_, err := p.f.WriteAt(encodePosition(pos, p.hostID), 0)
	if err == nil && sync {
		err = p.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("write shipping position: %w", err)
	}
	return nil
}

func (p *positionFile) close() error {
	if p.f == nil {
		return nil
	}
	return p.f.Close()
}

func encodePosition(pos position, hostID string) []byte {
	line := fmt.Sprintf("holdfast-ship 1 %d %d %d %08x", pos.confirmed, pos.first, pos.last, crc32.ChecksumIEEE([]byte(hostID)))
	b := bytes.Repeat([]byte{' '}, positionSize)
	copy(b, fmt.Sprintf("%s %08x", line, crc32.ChecksumIEEE([]byte(line))))
	b[positionSize-1] = '\n'
	return b
}

// decodePosition is encodePosition backwards; it reports false for anything that
// encodePosition did not write for this host.
func decodePosition(b []byte, hostID string) (position, bool) {
	var (
		pos       position
		host, sum uint32
	)
	if _, err := fmt.Sscanf(string(b), "holdfast-ship 1 %d %d %d %x %x", &pos.confirmed, &pos.first, &pos.last, &host, &sum); err != nil {
		return position{}, false
	}
	if !bytes.Equal(b, encodePosition(pos, hostID)) {
		return position{}, false
	}
	return pos, true
}
