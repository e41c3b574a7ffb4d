package replay

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// State is what is at one path. Only what this package compares is kept.
type State struct {
	Exists bool             `json:"exists"`
	Type   string           `json:"type,omitempty"`
	Hash   string           `json:"hash,omitempty"` // regular files: "blake3:" and 64 hexadecimal digits
	Size   uint64           `json:"size,omitempty"` // regular files
	Mode   string           `json:"mode,omitempty"` // four octal digits
	UID    uint32           `json:"uid"`
	GID    uint32           `json:"gid"`
	Mtime  time.Time        `json:"mtime,omitzero"` // not of directories: theirs change with their entries
	Target Bytes            `json:"target,omitempty"`
	Rdev   uint64           `json:"rdev,omitempty"`
	Flags  string           `json:"flags,omitempty"` // the letters of lsattr(1), without those that tell of layout
	Xattrs map[string]Bytes `json:"xattrs,omitempty"`
	Ino    uint64           `json:"ino,omitempty"` // to tell one file from another; not compared
	Unread string           `json:"unread,omitempty"`
}

// Bytes are raw bytes; in JSON those that are no printable UTF-8 are \xNN.
type Bytes []byte

// UnmarshalJSON implements json.Unmarshaler.
func (b *Bytes) UnmarshalJSON(j []byte) error {
	var s string
	if err := json.Unmarshal(j, &s); err != nil {
		return err
	}
	*b = Bytes(raw(s))
	return nil
}

// MarshalJSON implements json.Marshaler. It escapes more than it has to.
func (b Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(escape(string(b))) }

// escape writes every byte but letters, digits and plain punctuation as \xNN.
func escape(s string) string {
	var o strings.Builder
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || c == '\\' || c == '"' {
			fmt.Fprintf(&o, `\x%02X`, c)
			continue
		}
		o.WriteByte(c)
	}
	return o.String()
}

// raw takes \xNN back.
func raw(s string) string {
	at := strings.Index(s, `\x`)
	if at < 0 {
		return s
	}
	var o strings.Builder
	for {
		o.WriteString(s[:at])
		s = s[at:]
		if len(s) >= 4 {
			if b, err := hex.DecodeString(s[2:4]); err == nil {
				o.WriteByte(b[0])
				s = s[4:]
			} else {
				o.WriteString(s[:2])
				s = s[2:]
			}
		} else {
			o.WriteString(s)
			return o.String()
		}
		if at = strings.Index(s, `\x`); at < 0 {
			o.WriteString(s)
			return o.String()
		}
	}
}

// Difference is one field of one path that the records tell otherwise than the
// tree does.
type Difference struct {
	Path  string
	Field string
	Told  string // by the records
	Found string // in the tree
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s: told %s, found %s", escape(d.Path), d.Field, d.Told, d.Found)
}

// compare lists the fields that differ.
func compare(path string, told, found *State) []Difference {
	var out []Difference
	add := func(field, t, f string) {
		if t != f {
			out = append(out, Difference{path, field, t, f})
		}
	}
	if told.Exists != found.Exists {
		add("exists", strconv.FormatBool(told.Exists)+" "+told.Type, strconv.FormatBool(found.Exists)+" "+found.Type)
		return out
	}
	if !told.Exists {
		return nil
	}
	add("type", told.Type, found.Type)
	if told.Hash == "" && told.Unread != "" && found.Type == "regular" {
		add("hash", "unread: "+told.Unread, found.Hash)
	} else {
		add("hash", told.Hash, found.Hash)
	}
	if found.Type == "regular" {
		add("size", strconv.FormatUint(told.Size, 10), strconv.FormatUint(found.Size, 10))
	}
	if found.Type != "dir" && !told.Mtime.Equal(found.Mtime) {
		add("mtime", told.Mtime.UTC().Format(time.RFC3339Nano), found.Mtime.UTC().Format(time.RFC3339Nano))
	}
	add("mode", told.Mode, found.Mode)
	add("owner", fmt.Sprintf("%d:%d", told.UID, told.GID), fmt.Sprintf("%d:%d", found.UID, found.GID))
	add("target", escape(string(told.Target)), escape(string(found.Target)))
	add("rdev", strconv.FormatUint(told.Rdev, 16), strconv.FormatUint(found.Rdev, 16))
	add("flags", told.Flags, found.Flags)
	if !maps.EqualFunc(told.Xattrs, found.Xattrs, func(a, b Bytes) bool { return bytes.Equal(a, b) }) {
		add("xattrs", xattrText(told.Xattrs), xattrText(found.Xattrs))
	}
	return out
}

func xattrText(m map[string]Bytes) string {
	var o []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		o = append(o, k+"="+escape(string(m[k])))
	}
	return "{" + strings.Join(o, " ") + "}"
}
