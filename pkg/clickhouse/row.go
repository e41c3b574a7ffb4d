package clickhouse

import (
	"net/netip"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
)

// Row is one record on its way into the table: decoded for the columns, and its
// bytes as the journal has them.
type Row struct {
	Record *event.Record
	Bytes  []byte
}

// NewRow decodes a record's bytes. The row keeps b.
func NewRow(b []byte) (Row, error) {
	r, err := journal.Decode(b)
	if err != nil {
		return Row{}, err
	}
	return Row{Record: r, Bytes: b}, nil
}

// Leaf is the hash of a record's bytes in its host's Merkle log.
func Leaf(b []byte) [32]byte { return tlog.RecordHash(b) }

// view is a row with every part present: parts that the record lacks point to an
// absent one, so that columns need not ask.
type view struct {
	*event.Record
	rec           []byte
	file          *event.File
	before, after *event.State
	had, has      bool // before and after are the record's own
	actor         *event.Actor
	process       *event.Process
	response      *event.Response
	gap           *event.Gap
	sensor        *event.Sensor
	session       *event.Session
	credential    *event.Credential
	target        *event.Target
}

// views prepares rows for the columns.
func views(rows []Row) []view {
	none := event.Unset
	var (
		file     = &event.File{}
		state    = &event.State{UID: none, GID: none}
		actor    = &event.Actor{Loginuid: none, UID: none, EUID: none, SUID: none, FSUID: none, GID: none, EGID: none, FSGID: none}
		process  = &event.Process{}
		response = &event.Response{}
		gap      = &event.Gap{}
		sensor   = &event.Sensor{}

		session    = &event.Session{}
		ids        = event.Ids{UID: none, EUID: none, SUID: none, FSUID: none, GID: none, EGID: none, SGID: none, FSGID: none}
		credential = &event.Credential{Before: ids, After: ids}
		target     = &event.Target{UID: none}
	)
	out := make([]view, len(rows))
	for i, row := range rows {
		r := row.Record
		v := &out[i]
		*v = view{Record: r, rec: row.Bytes, had: r.Before != nil, has: r.After != nil}
		v.file = either(r.File, file)
		v.before = either(r.Before, state)
		v.after = either(r.After, state)
		v.actor = either(r.Actor, actor)
		v.process = either(r.Process, process)
		v.response = either(r.Response, response)
		v.gap = either(r.Gap, gap)
		v.sensor = either(r.Sensor, sensor)
		v.session = either(r.Session, session)
		v.credential = either(r.Credential, credential)
		v.target = either(r.Target, target)
	}
	return out
}

func either[T any](p, absent *T) *T {
	if p != nil {
		return p
	}
	return absent
}

// stamp is a time as the driver takes it; the unknown time is 1970-01-01.
func stamp(t event.Time) time.Time { return time.Unix(0, int64(t)).UTC() }

// digest is a hash as FixedString(32); the zero hash is 32 zero bytes.
func digest(h event.Hash) string { return string(h[:]) }

// address is the source address as IPv6: an IPv4 address is mapped, and what is no
// address ("unknown", none) is ::.
func sourceIP(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	return netip.AddrFrom16(a.As16())
}

// texts prints raw bytes as records print them.
func texts(m map[string]event.Bytes) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = event.Text(v)
	}
	return out
}

// existence is NULL where the record says nothing about the state.
func existence(known, exists bool) *bool {
	if !known {
		return nil
	}
	return &exists
}
