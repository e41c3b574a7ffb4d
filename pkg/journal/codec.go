package journal

import (
	"errors"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/holdfast/holdfast/pkg/event"
)

// ErrTooLarge is returned for a record whose encoding is above the limit of a frame.
var ErrTooLarge = errors.New("record larger than 1 MiB")

// modes are the two CBOR codecs. Encoding is the core deterministic one of RFC
// 8949 section 4.2.1: same record, same bytes, same leaf. Decoding accepts fields
// that this build does not know (written by a newer one) and text that is not
// UTF-8, because nothing that was recorded may become unreadable.
var modes = sync.OnceValue(func() (m struct {
	enc cbor.UserBufferEncMode
	dec cbor.DecMode
	err error
}) {
	m.enc, m.err = cbor.CoreDetEncOptions().UserBufferEncMode()
	if m.err == nil {
		m.dec, m.err = cbor.DecOptions{
			DupMapKey:        cbor.DupMapKeyEnforcedAPF,
			IndefLength:      cbor.IndefLengthForbidden,
			TagsMd:           cbor.TagsForbidden,
			MaxNestedLevels:  16,
			MaxArrayElements: 1 << 16,
			MaxMapPairs:      1 << 16,
			UTF8:             cbor.UTF8DecodeInvalid,
		}.DecMode()
	}
	return m
})

// Encode returns the record's bytes as the journal keeps them.
func Encode(r *event.Record) ([]byte, error) {
	m := modes()
	if m.err != nil {
		return nil, fmt.Errorf("encode record: %w", m.err)
	}
	b, err := m.enc.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	if len(b) > maxPayload {
		return nil, fmt.Errorf("encode record: %w", ErrTooLarge)
	}
	return b, nil
}

// Decode reads what Encode wrote: a record or an error, never both.
func Decode(b []byte) (*event.Record, error) {
	m := modes()
	if m.err != nil {
		return nil, fmt.Errorf("decode record: %w", m.err)
	}
	r := new(event.Record)
	if err := m.dec.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}

// segmentHead is the payload of a segment's first frame.
type segmentHead struct {
	Version int    `cbor:"v"`
	HostID  string `cbor:"host_id"`
	First   uint64 `cbor:"first"`
}

func decodeSegmentHead(b []byte) (segmentHead, error) {
	var h segmentHead
	m := modes()
	if m.err != nil {
		return h, fmt.Errorf("decode segment header: %w", m.err)
	}
	if err := m.dec.Unmarshal(b, &h); err != nil {
		return segmentHead{}, fmt.Errorf("decode segment header: %w", err)
	}
	return h, nil
}
