package event

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// inodeFlags are the flags that chattr(1) can set and a restore can put back, and
// those of encryption and verity, which only go on (FS_IOC_SET_ENCRYPTION_POLICY,
// FS_IOC_ENABLE_VERITY), in the order of lsattr(1). FS_EXTENT_FL ("e") is left out: it tells how a file
// system lays data out, each new ext4 inode has it, and it follows no copy
// (linux include/uapi/linux/fs.h, FS_*_FL).
var inodeFlags = [...]struct {
	letter byte
	bit    uint32
}{
	{'s', 0x00000001}, {'u', 0x00000002}, {'S', 0x00000008}, {'D', 0x00010000},
	{'i', FlagImmutable}, {'a', FlagAppend}, {'d', 0x00000040}, {'A', 0x00000080},
	{'c', 0x00000004}, {'E', 0x00000800}, {'j', 0x00004000}, {'t', 0x00008000}, {'T', 0x00020000},
	{'C', 0x00800000}, {'x', 0x02000000}, {'F', 0x40000000}, {'P', 0x20000000},
	{'V', 0x00100000}, {'m', 0x00000400},
}

// The two inode flags that stand in the way of a restore.
const (
	FlagImmutable uint32 = 0x00000010
	FlagAppend    uint32 = 0x00000020
)

// FlagsMask holds every flag that State.Flags may have.
const FlagsMask uint32 = 0x6293ccff

// FlagsSet are those of them that can be set and taken away.
const FlagsSet uint32 = 0x6283c4ff

// FlagsText returns the flags as the letters of lsattr(1), without its dashes.
func (s State) FlagsText() string {
	var b []byte
	for _, f := range inodeFlags {
		if s.Flags&f.bit != 0 {
			b = append(b, f.letter)
		}
	}
	return string(b)
}

// ParseFlags reads what FlagsText wrote.
func ParseFlags(text string) (uint32, error) {
	var v uint32
letters:
	for i := range len(text) {
		for _, f := range inodeFlags {
			if f.letter == text[i] {
				v |= f.bit
				continue letters
			}
		}
		return 0, fmt.Errorf("inode flags %q: unknown letter %q", text, text[i])
	}
	return v, nil
}

// ACLText returns the access ACL, then the default ACL, as getfacl(1) writes
// them with numeric ids, separated by commas: "user::rw-,user:1000:r--,...". It
// is "" without an ACL and says so if the attribute is malformed.
func (s State) ACLText() string {
	var parts []string
	for _, a := range []struct{ name, prefix string }{{XattrACL, ""}, {XattrACLDefault, "default:"}} {
		if raw, ok := s.Xattrs[a.name]; ok {
			parts = append(parts, aclEntries(raw, a.prefix)...)
		}
	}
	return strings.Join(parts, ",")
}

// aclEntries decodes a POSIX ACL attribute: a 32 bit version, then for each
// entry tag, permissions (16 bits each) and id (32 bits), all little endian
// (linux include/uapi/linux/posix_acl_xattr.h).
func aclEntries(raw []byte, prefix string) []string {
	if len(raw) < 4 || len(raw)%8 != 4 || binary.LittleEndian.Uint32(raw) != 2 {
		return []string{prefix + "malformed"}
	}
	var out []string
	for e := raw[4:]; len(e) > 0; e = e[8:] {
		perm := binary.LittleEndian.Uint16(e[2:])
		id := strconv.FormatUint(uint64(binary.LittleEndian.Uint32(e[4:])), 10)
		var who string
		switch binary.LittleEndian.Uint16(e) {
		case 0x01:
			who = "user:"
		case 0x02:
			who = "user:" + id
		case 0x04:
			who = "group:"
		case 0x08:
			who = "group:" + id
		case 0x10:
			who = "mask:"
		case 0x20:
			who = "other:"
		default:
			who = "unknown:" + id
		}
		out = append(out, prefix+who+":"+rwx(perm))
	}
	return out
}

func rwx(p uint16) string {
	b := []byte("---")
	for i, c := range []byte("rwx") {
		if p&(4>>i) != 0 {
			b[i] = c
		}
	}
	return string(b)
}

// capNames are the capabilities by number (linux include/uapi/linux/capability.h).
var capNames = [...]string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
	"setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
	"ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
	"sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod",
	"lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
	"wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
}

// CapsText returns the file capabilities in the notation of setcap(8), such as
// "cap_net_raw=ep", "" if there are none, "malformed" if the attribute is no
// capability set.
func (s State) CapsText() string {
	raw, ok := s.Xattrs[XattrCaps]
	if !ok {
		return ""
	}
	c, ok := parseCaps(raw)
	if !ok {
		return "malformed"
	}
	return c.text()
}

// CapsNames lists the capabilities of a set, "all" and "none" where it is that.
func CapsNames(set uint64) string {
	switch {
	case set == 0:
		return "none"
	case set&(1<<len(capNames)-1) == 1<<len(capNames)-1:
		return "all"
	}
	var names []string
	for i := range 64 {
		if set>>i&1 != 0 {
			names = append(names, capName(i))
		}
	}
	return strings.Join(names, ",")
}

func capName(i int) string {
	if i < len(capNames) {
		return "cap_" + capNames[i]
	}
	return "cap_" + strconv.Itoa(i)
}

type fileCaps struct {
	permitted, inheritable uint64
	effective              bool
	rootID                 uint32
}

// parseCaps decodes struct vfs_ns_cap_data (linux include/uapi/linux/capability.h):
// revision and the effective bit, then 32 bit halves of permitted and inheritable
// in turn, then in revision 3 the user id that is root in its name space.
func parseCaps(raw []byte) (fileCaps, bool) {
	var c fileCaps
	if len(raw) < 4 {
		return c, false
	}
	magic := binary.LittleEndian.Uint32(raw)
	words := map[uint32]int{0x01000000: 2, 0x02000000: 4, 0x03000000: 5}[magic&0xff000000]
	if words == 0 || len(raw) != 4+4*words {
		return c, false
	}
	word := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(raw[4+4*i:])) }
	c.effective = magic&1 != 0
	c.permitted, c.inheritable = word(0), word(1)
	if words >= 4 {
		c.permitted |= word(2) << 32
		c.inheritable |= word(3) << 32
	}
	if words == 5 {
		c.rootID = uint32(word(4))
	}
	return c, true
}

func (c fileCaps) text() string {
	groups := map[string][]string{}
	for i := range 64 {
		p, inh := c.permitted>>i&1 != 0, c.inheritable>>i&1 != 0
		if !p && !inh {
			continue
		}
		flags := ""
		if c.effective {
			flags += "e"
		}
		if inh {
			flags += "i"
		}
		if p {
			flags += "p"
		}
		groups[flags] = append(groups[flags], capName(i))
	}
	var parts []string
	for flags, names := range groups {
		if len(groups) == 1 && len(names) >= len(capNames) {
			names = nil // all of them: "=ep", as getcap(8) prints
		}
		parts = append(parts, strings.Join(names, ",")+"="+flags)
	}
	sort.Strings(parts)
	if len(parts) == 0 {
		parts = []string{"="}
	}
	if c.rootID != 0 {
		parts = append(parts, fmt.Sprintf("[rootid=%d]", c.rootID))
	}
	return strings.Join(parts, " ")
}

// rawState is State without its methods, so that encoding it does not recurse.
type rawState State

// stateJSON is a State as people and log --json see it: flags as letters, and
// the two attributes that people ask for decoded beside the raw ones.
type stateJSON struct {
	rawState
	Size  *uint64 `json:"size,omitempty"` // of regular files, 0 included
	Flags string  `json:"flags,omitempty"`
	ACL   string  `json:"acl,omitempty"`
	Caps  string  `json:"caps,omitempty"`
}

// MarshalJSON implements json.Marshaler. A state that does not exist has
// nothing else to say.
func (s State) MarshalJSON() ([]byte, error) {
	if !s.Exists {
		return []byte(`{"exists":false}`), nil
	}
	j := stateJSON{rawState: rawState(s), Flags: s.FlagsText(), ACL: s.ACLText(), Caps: s.CapsText()}
	j.rawState.Flags = 0
	if s.Type == TypeRegular || s.Size != 0 {
		j.Size = &s.Size
	}
	return json.Marshal(j)
}

// UnmarshalJSON implements json.Unmarshaler. acl and caps are read from xattrs.
func (s *State) UnmarshalJSON(b []byte) error {
	var j stateJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	flags, err := ParseFlags(j.Flags)
	if err != nil {
		return err
	}
	*s = State(j.rawState)
	if j.Size != nil {
		s.Size = *j.Size
	}
	s.Flags = flags
	return nil
}
