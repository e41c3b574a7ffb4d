package rollback

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sort"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/rollback/cas"
)

// A segment of the log is a row of frames:
//
//	0        4        8        12
//	+--------+--------+--------+-----------------+
//	| magic  | length | crc32c | CBOR of an entry|   all little endian
//	+--------+--------+--------+-----------------+
//
// The magic lets a reader find the next frame behind a damaged one.
const (
	frameMagic = 0x4c56_4648 // "HFVL"
	frameHead  = 12
	frameMax   = 16 << 20
	segmentMax = 8 << 20 // a full segment is followed by the next one
)

// damage is a part of a segment that holds no valid frame.
type damage struct {
	segment  string
	off, len int
	cause    string
	sealed   bool // it is valid, and sealed: it is not thrown away
}

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// newEncoding returns how entries are written: the same entry, the same bytes.
func newEncoding() (cbor.EncMode, error) { return cbor.CoreDetEncOptions().EncMode() }

// appendFrame adds the frame of an entry to b.
func appendFrame(b []byte, enc cbor.EncMode, e *entry) ([]byte, error) {
	body, err := enc.Marshal(e)
	if err != nil {
		return b, err
	}
	if len(body) > frameMax {
		return b, fmt.Errorf("entry of %q is too long: %d bytes", e.Path, len(body))
	}
	return append(b, frame(body)...), nil
}

func frame(body []byte) []byte {
	b := make([]byte, frameHead, frameHead+len(body))
	binary.LittleEndian.PutUint32(b, frameMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b[8:], castagnoli(body))
	return append(b, body...)
}

// frameAt returns the body of the frame at the start of b.
func frameAt(b []byte) ([]byte, bool) {
	if len(b) < frameHead || binary.LittleEndian.Uint32(b) != frameMagic {
		return nil, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > frameMax || int(n) > len(b)-frameHead {
		return nil, false
	}
	body := b[frameHead : frameHead+int(n)]
	return body, castagnoli(body) == binary.LittleEndian.Uint32(b[8:])
}

// readFrames calls each for every valid frame of a segment and returns where the
// last one ends. Bytes between valid frames are reported to bad; those after the
// last one are a torn tail and the caller's to judge.
func readFrames(b []byte, each func(off int, body []byte), bad func(off, n int)) (end int) {
	magic := binary.LittleEndian.AppendUint32(nil, frameMagic)
	for off := 0; off < len(b); {
		body, ok := frameAt(b[off:])
		if !ok {
			off++
			if next := bytes.Index(b[off:], magic); next >= 0 {
				off += next
				continue
			}
			break
		}
		if off > end {
			bad(end, off-end)
		}
		each(off, body)
		off += frameHead + len(body)
		end = off
	}
	return end
}

// decodeEntry reads one entry. None is sealed today: a later version may do that.
func decodeEntry(body []byte) (*entry, error) {
	if cas.Sealed(body) {
		return nil, ErrSealed
	}
	var e entry
	if err := cbor.Unmarshal(body, &e); err != nil {
		return nil, err
	}
	return &e, nil
}

// versionLog is the open log. Its methods are called under Store.sync.
type versionLog struct {
	disk cas.Disk
	dir  string
	dirf int

	fd      int
	name    string
	number  int
	good    int64 // where the next frame goes
	suspect bool  // an fsync failed: the segment is given up for a new one
	fresh   bool  // its name is not durable yet
}

// openLog reads all segments into c and, unless readOnly, cuts a torn tail off
// the last one and opens it for appending.
func openLog(dir string, disk cas.Disk, readOnly bool, c *catalog) (l *versionLog, bad []damage, torn int64, err error) {
	if !readOnly {
		if err := disk.Mkdir(unix.AT_FDCWD, dir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, nil, 0, err
		}
	}
	l = &versionLog{disk: disk, dir: dir, dirf: -1, fd: -1}
	if l.dirf, err = digest.AgainInt(func() (int, error) { return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) }); err != nil {
		return nil, nil, 0, fmt.Errorf("open %s: %w", dir, err)
	}
	segments, err := l.segments()
	if err != nil {
		return l, nil, 0, err
	}
	for i, name := range segments {
		b, err := readPlain(dir, name)
		if err != nil {
			return l, bad, 0, fmt.Errorf("read versions: %w", err)
		}
		report := func(off, n int, cause string) {
			bad = append(bad, damage{segment: name, off: off, len: n, cause: cause})
		}
		end := readFrames(b, func(off int, body []byte) {
			e, err := decodeEntry(body)
			if err == nil {
				err = c.apply(e)
			}
			if err == nil && e.Kind == entryAnew {
				bad = nil // of what does not count any more
			}
			if err != nil {
				report(off, frameHead+len(body), err.Error())
				bad[len(bad)-1].sealed = errors.Is(err, ErrSealed)
			}
		}, func(off, n int) { report(off, n, "no valid record") })
		if last := i == len(segments)-1; last {
			torn = int64(len(b) - end)
			l.name, l.good = name, int64(end)
		} else if end < len(b) {
			report(end, len(b)-end, "no valid record")
		}
		if _, err := fmt.Sscanf(name, "%08d.log", &l.number); err != nil {
			return l, bad, torn, fmt.Errorf("read versions: segment %s: %w", name, err)
		}
	}
	if readOnly || l.name == "" {
		return l, bad, torn, nil
	}
	if l.fd, err = openPlain(l.dirf, l.name, unix.O_RDWR); err != nil {
		return l, bad, torn, fmt.Errorf("open versions %s: %w", l.name, err)
	}
	if torn > 0 {
		if err := disk.Truncate(l.fd, l.name, l.good); err != nil {
			return l, bad, torn, err
		}
	}
	return l, bad, torn, nil
}

// segments returns the names of the segments in order.
func (l *versionLog) segments() ([]string, error) {
	ents, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("list versions: %w", err)
	}
	var names []string
	for _, e := range ents {
		if strings.HasSuffix(e.Name(), ".log") {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// roll begins a new segment.
func (l *versionLog) roll() error {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
	name := fmt.Sprintf("%08d.log", l.number+1)
	fd, err := l.disk.Create(l.dirf, name, 0o600)
	if errors.Is(err, unix.EEXIST) { // left empty or torn by an attempt that failed
		l.number++
		return l.roll()
	}
	if err != nil {
		return err
	}
	l.number++
	l.fd, l.name, l.good, l.suspect, l.fresh = fd, name, 0, false, true
	return nil
}

// append writes frames and makes them durable. After an error nothing of them
// counts, and append may be called again with the same frames.
func (l *versionLog) append(frames []byte) error {
	if l.fd < 0 || l.suspect || l.good >= segmentMax {
		if err := l.roll(); err != nil {
			return fmt.Errorf("append versions: %w", err)
		}
	}
	if err := l.disk.Write(l.fd, l.name, frames, l.good); err != nil {
		if terr := l.disk.Truncate(l.fd, l.name, l.good); terr != nil {
			l.suspect = true
		}
		return fmt.Errorf("append versions: %w", err)
	}
	if err := l.disk.Fsync(l.fd, l.name); err != nil {
		// The kernel may have dropped the pages: a later fsync proves nothing.
		l.suspect = true
		return fmt.Errorf("append versions: %w", err)
	}
	if l.fresh {
		if err := l.disk.Fsync(l.dirf, "versions"); err != nil {
			l.suspect = true
			return fmt.Errorf("append versions: %w", err)
		}
		l.fresh = false
	}
	l.good += int64(len(frames))
	return nil
}

// replace makes one new segment of the pieces, which counts from when it has its
// name. What is appended later goes behind it.
func (l *versionLog) replace(pieces [][]byte) error {
	temp, name := "new", fmt.Sprintf("%08d.log", l.number+1)
	if err := l.disk.Unlink(l.dirf, temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := l.disk.Create(l.dirf, temp, 0o600)
	if err != nil {
		return err
	}
	var off int64
	for _, b := range pieces {
		if err == nil {
			err = l.disk.Write(fd, name, b, off)
			off += int64(len(b))
		}
	}
	if err == nil {
		err = l.disk.Fsync(fd, name)
	}
	if err == nil {
		err = l.disk.Rename(l.dirf, temp, l.dirf, name, 0)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	if l.fd >= 0 {
		unix.Close(l.fd)
	}
	l.number++
	l.fd, l.name, l.good, l.suspect, l.fresh = fd, name, off, false, true
	if err := l.disk.Fsync(l.dirf, "versions"); err != nil {
		l.suspect = true
		return err
	}
	l.fresh = false
	return nil
}

func (l *versionLog) close() error {
	var err error
	for _, fd := range []int{l.fd, l.dirf} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	l.fd, l.dirf = -1, -1
	return err
}
