// Package decode is stage 2: it turns the bytes of one ring record into an
// event.Event.
//
// It owns nothing but a scratch buffer: the strings of a decoded event are
// borrowed from the record or from the Decoder and are valid until the next
// Decode. A record that is not exactly what bpf/event.h describes is an error and
// leaves no half-filled event behind. Nothing is allocated.
//
// The pipeline calls it once for each record. It does not know what the numbers
// mean: names and places are for the stages after it.
package decode

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/holdfast/holdfast/bpf"
	"github.com/holdfast/holdfast/pkg/event"
)

// The sizes of the wire structs, in bytes.
const (
	headSize = int(unsafe.Sizeof(bpf.TracerEventHead{}))
	fileSize = int(unsafe.Sizeof(bpf.TracerFileBody{}))
	credSize = int(unsafe.Sizeof(bpf.TracerCredBody{}))
	peerSize = int(unsafe.Sizeof(bpf.TracerPeerBody{}))
)

// Version is the version of the wire that this build reads (bpf/event.h).
const Version = 1

// scratchSize holds four paths with their separators, and a record that has to
// be moved to an aligned address first.
const scratchSize = 4 * 4100

// ErrWire is what every error of Decode wraps: the record is not of this wire.
var ErrWire = errors.New("event does not match the wire format")

// Decoder turns records into events. The zero value is ready. It is for one
// goroutine.
type Decoder struct {
	paths   [scratchSize]byte
	aligned []uint64 // backs a record that arrived at an odd address
}

// view returns the first bytes of b as a T.
//
// Together with align this is the only use of unsafe. It is sound because the length
// is checked, the address is a multiple of 8 (the strictest alignment in
// bpf/event.h), T holds integers and arrays of integers only, so that every bit
// pattern is a value, and the result is read before b is reused. Byte order is
// that of the kernel on the same machine.
func view[T any](b []byte) (*T, error) {
	var t T
	if len(b) < int(unsafe.Sizeof(t)) {
		return nil, fmt.Errorf("%w: %d bytes where %d are needed", ErrWire, len(b), unsafe.Sizeof(t))
	}
	p := unsafe.Pointer(unsafe.SliceData(b))
	if uintptr(p)%8 != 0 {
		return nil, fmt.Errorf("%w: record at an address that is no multiple of 8", ErrWire)
	}
	return (*T)(p), nil
}

// Decode fills e from the record b. It returns an error, and leaves e empty, if
// b is not one whole event.
func (d *Decoder) Decode(b []byte, e *event.Event) error {
	*e = event.Event{}
	err := d.decode(d.align(b), e)
	if err != nil {
		*e = event.Event{}
	}
	return err
}

// align returns b, or a copy of it at an address that view accepts. The copy lies
// in memory of 64-bit words, at least as long as b.
func (d *Decoder) align(b []byte) []byte {
	if len(b) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%8 == 0 {
		return b
	}
	if n := (len(b) + 7) / 8; cap(d.aligned) < n {
		d.aligned = make([]uint64, max(n, 4096))
	}
	c := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(d.aligned[:cap(d.aligned)]))), len(b))
	copy(c, b)
	return c
}

func (d *Decoder) decode(b []byte, e *event.Event) error {
	h, err := view[bpf.TracerEventHead](b)
	if err != nil {
		return err
	}
	if int(h.Size) != len(b) {
		return fmt.Errorf("%w: head says %d bytes, record has %d", ErrWire, h.Size, len(b))
	}
	if h.Version != Version {
		return fmt.Errorf("%w: version %d, this build reads %d", ErrWire, h.Version, Version)
	}
	head(h, e)
	rest := b[headSize:]
	switch e.Kind {
	case event.KindFile, event.KindHeld, event.KindGuard:
		f, err := view[bpf.TracerFileBody](rest)
		if err != nil {
			return err
		}
		file(f, e)
		rest = rest[fileSize:]
	case event.KindSession, event.KindSocket:
		p, err := view[bpf.TracerPeerBody](rest)
		if err != nil {
			return err
		}
		peer(p, e)
		rest = rest[peerSize:]
	case event.KindCred:
		c, err := view[bpf.TracerCredBody](rest)
		if err != nil {
			return err
		}
		cred(c, e)
		rest = rest[credSize:]
	case event.KindFork, event.KindExec, event.KindExit, event.KindProc:
	default:
		return fmt.Errorf("%w: unknown kind %d", ErrWire, h.Kind)
	}
	var s [4][]byte
	for i, n := range h.Len {
		if int(n) > len(rest) {
			return fmt.Errorf("%w: string %d of %d bytes, %d are left", ErrWire, i, n, len(rest))
		}
		s[i], rest = rest[:n], rest[n:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes after the last string", ErrWire, len(rest))
	}
	return d.strings(&s, e)
}

func head(h *bpf.TracerEventHead, e *event.Event) {
	e.Kind, e.Op, e.Flags, e.Hook = event.Kind(h.Kind), event.Op(h.Op), h.Flags, h.Hook
	e.CPU, e.Lost, e.Time, e.Ret = uint16(h.Cpu), h.Lost, h.Time, h.Ret
	e.Key = event.ProcKey{PID: h.Tgid, Execs: h.Execs, Start: h.Start}
	e.Parent = event.ProcKey{PID: h.Ptgid, Execs: h.Pexecs, Start: h.Pstart}
	e.TID = h.Tid
	e.Creds = event.Creds{
		UID: h.Uid, EUID: h.Euid, SUID: h.Suid, FSUID: h.Fsuid,
		GID: h.Gid, EGID: h.Egid, SGID: h.Sgid, FSGID: h.Fsgid,
	}
	e.Login, e.Audit, e.Session = h.Loginuid, h.Audit, h.Session
	e.Cgroup, e.MntNS, e.Kthread = h.Cgroup, h.Mntns, h.Kthread != 0
	e.ExeDev, e.ExeIno, e.Comm, e.TTY = h.ExeDev, h.ExeIno, h.Comm, h.Tty
}

func file(f *bpf.TracerFileBody, e *event.Event) {
	e.Anchor, e.Anchor2 = f.Anchor, f.Anchor2
	e.Dev, e.Ino, e.Gen, e.Nlink, e.FMode = f.Dev, f.Ino, f.Gen, f.Nlink, f.Fmode
	e.Opener, e.Count, e.Bytes, e.First, e.Arg = f.Opener, f.Count, f.Bytes, f.First, f.Arg
}

func peer(p *bpf.TracerPeerBody, e *event.Event) {
	e.How, e.LocalPort = p.How, p.Lport
	if p.Port != 0 {
		e.Peer = netip.AddrPortFrom(netip.AddrFrom16(p.Addr).Unmap(), p.Port)
	}
}

func cred(c *bpf.TracerCredBody, e *event.Event) {
	e.CredHow, e.Before, e.After = c.How, ids(&c.Before), ids(&c.After)
	e.Target = event.ProcKey{PID: c.Tgid, Execs: c.Execs, Start: c.Start}
}

func ids(i *bpf.TracerIds) event.IDs {
	return event.IDs{Caps: i.Caps, UserNS: i.Userns, Creds: event.Creds{
		UID: i.Uid, EUID: i.Euid, SUID: i.Suid, FSUID: i.Fsuid,
		GID: i.Gid, EGID: i.Egid, SGID: i.Sgid, FSGID: i.Fsgid,
	}}
}

func (d *Decoder) strings(s *[4][]byte, e *event.Event) (err error) {
	buf := d.paths[:]
	place := func(b []byte, absolute bool) []byte {
		var out []byte
		if err == nil {
			out, buf, err = join(b, buf, absolute)
		}
		return out
	}
	switch e.Kind {
	case event.KindFile, event.KindHeld:
		if e.Flags&event.FlagNamed != 0 {
			e.Path, e.Path2 = s[0], s[2]
			e.Base = place(s[1], true)
			if len(s[2]) > 0 {
				e.Base2 = place(s[3], true)
			}
			return err
		}
		e.Path, e.Path2 = place(s[0], false), place(s[2], false)
		if e.Op.Beneath() && len(s[1]) > 0 {
			e.Base = place(s[1], true)
		}
	case event.KindExec, event.KindProc:
		if len(s[0]) > 0 {
			e.Exe = place(s[0], true)
		}
		e.Argv, e.Script = s[1], s[3]
		if len(s[2]) > 0 || e.Kind == event.KindExec {
			e.Cwd = place(s[2], true)
		}
	}
	return err
}

// join writes a list of NUL ended names, the last one first, as a path into buf
// and returns it with what is left of buf.
func join(names, buf []byte, absolute bool) (path, left []byte, err error) {
	if len(names)+1 > len(buf) {
		return nil, nil, fmt.Errorf("%w: paths of more than %d bytes", ErrWire, scratchSize)
	}
	if len(names) > 0 && names[len(names)-1] != 0 {
		return nil, nil, fmt.Errorf("%w: a name without its end", ErrWire)
	}
	n := 0
	if absolute {
		buf[0], n = '/', 1
	}
	for end := len(names); end > 0; {
		start := end - 1
		for start > 0 && names[start-1] != 0 {
			start--
		}
		n += copy(buf[n:], names[start:end-1])
		if end = start; end > 0 {
			buf[n] = '/'
			n++
		}
	}
	return buf[:n:n], buf[n:], nil
}
