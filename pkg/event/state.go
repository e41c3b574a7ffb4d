package event

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"unicode/utf8"
)

// Hash is a BLAKE3 digest of content. The zero Hash means that content was not
// hashed (not a regular file, or unreadable).
type Hash [32]byte

// IsZero reports whether h holds no digest.
func (h Hash) IsZero() bool { return h == Hash{} }

// Hex returns the 64 digits of h.
func (h Hash) Hex() string { return hex.EncodeToString(h[:]) }

// String returns "blake3:" and 64 digits, or "" for the zero Hash.
func (h Hash) String() string {
	if h.IsZero() {
		return ""
	}
	return "blake3:" + h.Hex()
}

// ParseHash reads what String wrote; the prefix may be missing.
func ParseHash(s string) (Hash, error) {
	var h Hash
	s, _ = cutPrefix(s, "blake3:")
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return h, fmt.Errorf("hash %q: want 64 hexadecimal digits", s)
	}
	copy(h[:], b)
	return h, nil
}

func cutPrefix(s, p string) (string, bool) {
	if len(s) >= len(p) && s[:len(p)] == p {
		return s[len(p):], true
	}
	return s, false
}

// MarshalJSON implements json.Marshaler.
func (h Hash) MarshalJSON() ([]byte, error) { return []byte(`"` + h.String() + `"`), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (h *Hash) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == "" {
		*h = Hash{}
		return nil
	}
	v, err := ParseHash(s)
	*h = v
	return err
}

// Mode holds permission bits and set-id bits (07777). In JSON it is four or
// more octal digits, as stat -c %a prints with a leading zero.
type Mode uint32

func (m Mode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// MarshalJSON implements json.Marshaler.
func (m Mode) MarshalJSON() ([]byte, error) { return []byte(`"` + m.String() + `"`), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (m *Mode) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		return fmt.Errorf("mode %q: want octal digits", s)
	}
	*m = Mode(v)
	return nil
}

// The file types of a State and a File.
const (
	TypeRegular = "regular"
	TypeDir     = "dir"
	TypeSymlink = "symlink"
	TypeFIFO    = "fifo"
	TypeSocket  = "socket"
	TypeChar    = "char"
	TypeBlock   = "block"
)

// TypeOfMode names the file type in the mode of an inode (inode(7), S_IFMT), ""
// for none of them.
func TypeOfMode(mode uint32) string {
	switch mode & 0o170000 {
	case 0o100000:
		return TypeRegular
	case 0o040000:
		return TypeDir
	case 0o120000:
		return TypeSymlink
	case 0o010000:
		return TypeFIFO
	case 0o140000:
		return TypeSocket
	case 0o020000:
		return TypeChar
	case 0o060000:
		return TypeBlock
	}
	return ""
}

// Bytes are raw bytes that print as text where they are text: in JSON a string,
// each byte that is not printable UTF-8 written as \xNN.
type Bytes []byte

// MarshalJSON implements json.Marshaler.
func (b Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(Text(b)) }

// UnmarshalJSON implements json.Unmarshaler.
func (b *Bytes) UnmarshalJSON(j []byte) error {
	var s string
	if err := json.Unmarshal(j, &s); err != nil {
		return err
	}
	*b = Untext(s)
	return nil
}

// Text writes bytes for people and for records: a byte that is not part of
// valid UTF-8, a control character, and a backslash before x become \xNN, so
// that Untext gives the same bytes back.
func Text(b []byte) string {
	plain := true
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if escapes(b, i, r, n) {
			plain = false
			break
		}
		i += n
	}
	if plain {
		return string(b)
	}
	var o bytes.Buffer
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if escapes(b, i, r, n) {
			for _, c := range b[i : i+n] {
				fmt.Fprintf(&o, `\x%02X`, c)
			}
		} else {
			o.Write(b[i : i+n])
		}
		i += n
	}
	return o.String()
}

func escapes(b []byte, i int, r rune, n int) bool {
	return r == utf8.RuneError && n <= 1 || r < 0x20 || r == 0x7f || r == '\\' && i+1 < len(b) && b[i+1] == 'x'
}

// Untext reverses Text.
func Untext(s string) []byte {
	o := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			if v, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				o = append(o, byte(v))
				i += 3
				continue
			}
		}
		o = append(o, s[i])
	}
	return o
}

// State is what a path was at one moment: enough to compare with, to show and,
// together with the content behind Hash, to restore exactly. A State with
// Exists false says that there was nothing at the path.
type State struct {
	Exists bool   `json:"exists"`
	Type   string `json:"type,omitempty"`
	Hash   Hash   `json:"hash,omitzero"` // regular files: BLAKE3 of the content
	Size   uint64 `json:"size,omitempty"`
	Mode   Mode   `json:"mode"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	User   string `json:"user,omitempty"`  // name of UID when the state was taken
	Group  string `json:"group,omitempty"` // name of GID
	Mtime  Time   `json:"mtime,omitzero"`
	Target Bytes  `json:"target,omitempty"` // symlinks: what they point to
	Rdev   uint64 `json:"rdev,omitempty"`   // devices: dev_t as stat(2) gives it
	Flags  uint32 `json:"flags,omitempty"`  // FS_IOC_GETFLAGS, only those of FlagsMask
	// Project is the quota project, 0 for none and where the file system has none.
	Project uint32           `json:"project,omitempty"`
	Xattrs  map[string]Bytes `json:"xattrs,omitempty"` // all namespaces; ACLs and capabilities are among them

	// Where the state was taken; no part of what Same compares.
	Dev   uint64 `json:"dev,omitempty"` // st_dev
	Ino   uint64 `json:"ino,omitempty"`
	Nlink uint32 `json:"nlink,omitempty"`
	// Unread says why Hash is missing for a regular file, "" if it is not.
	Unread string `json:"unread,omitempty"`
}

// The extended attributes that records show as acl and caps.
const (
	XattrACL        = "system.posix_acl_access"
	XattrACLDefault = "system.posix_acl_default"
	XattrCaps       = "security.capability"
)

// Same reports whether a and b are the same content and metadata. Modification
// times count for all but directories, whose times change with their entries.
func (s *State) Same(o *State) bool { return len(s.Diff(o)) == 0 }

// Diff names what differs between s and o, in a fixed order: exists, type, hash,
// target, rdev, size, mode, uid, gid, mtime, flags, project, xattrs.
func (s *State) Diff(o *State) []string {
	if s.Exists != o.Exists {
		return []string{"exists"}
	}
	if !s.Exists {
		return nil
	}
	var d []string
	add := func(name string, differs bool) {
		if differs {
			d = append(d, name)
		}
	}
	add("type", s.Type != o.Type)
	add("hash", s.Hash != o.Hash)
	add("target", !bytes.Equal(s.Target, o.Target))
	add("rdev", s.Rdev != o.Rdev)
	add("size", s.Size != o.Size && s.Type == TypeRegular)
	add("mode", s.Mode != o.Mode)
	add("uid", s.UID != o.UID)
	add("gid", s.GID != o.GID)
	add("mtime", s.Mtime != o.Mtime && s.Type != TypeDir)
	add("flags", s.Flags != o.Flags)
	add("project", s.Project != o.Project)
	add("xattrs", !sameXattrs(s.Xattrs, o.Xattrs))
	return d
}

func sameXattrs(a, b map[string]Bytes) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || !bytes.Equal(v, w) {
			return false
		}
	}
	return true
}

// XattrNames returns the attribute names in order.
func (s *State) XattrNames() []string {
	n := make([]string, 0, len(s.Xattrs))
	for k := range s.Xattrs {
		n = append(n, k)
	}
	sort.Strings(n)
	return n
}
