package event

import (
	"encoding/hex"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// run gives the output of a coreutils-like tool: the truth these tests compare with.
func run(t *testing.T, name string, arg ...string) string {
	t.Helper()
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, arg, err, out)
	}
	return string(out)
}

func xattr(t *testing.T, file, name string) Bytes {
	t.Helper()
	b := make([]byte, 4096)
	n, err := unix.Lgetxattr(file, name, b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestCapsTextIsWhatGetcapPrints(t *testing.T) {
	for _, caps := range []string{
		"cap_net_raw=ep", "cap_net_bind_service=p", "cap_net_admin,cap_net_raw=eip",
		"cap_sys_admin=i", "cap_bpf,cap_checkpoint_restore=ep", "cap_chown=p",
	} {
		t.Run(caps, func(t *testing.T) {
			f := filepath.Join(t.TempDir(), "f")
			run(t, "cp", "/bin/true", f)
			run(t, "setcap", caps, f)
			want := strings.TrimSpace(strings.TrimPrefix(run(t, "getcap", f), f))
			s := State{Exists: true, Xattrs: map[string]Bytes{XattrCaps: xattr(t, f, XattrCaps)}}
			if got := s.CapsText(); got != want {
				t.Errorf("CapsText() = %q, getcap prints %q", got, want)
			}
		})
	}
}

func TestCapsTextGivenToSetcapMakesTheSameAttribute(t *testing.T) {
	for _, raw := range []string{
		"0100000200200000000000000000000000000000", // one capability
		"0000000200200000010000000000000000000000", // permitted and another inheritable
		"01000002ffffffffffffffffff010000ff010000", // all of them
	} {
		t.Run(raw, func(t *testing.T) {
			b, err := hex.DecodeString(raw)
			if err != nil {
				t.Fatal(err)
			}
			f := filepath.Join(t.TempDir(), "f")
			run(t, "cp", "/bin/true", f)
			s := State{Exists: true, Xattrs: map[string]Bytes{XattrCaps: b}}
			run(t, "setcap", s.CapsText(), f)
			if got := hex.EncodeToString(xattr(t, f, XattrCaps)); got != raw {
				t.Errorf("setcap %q made %s, want %s", s.CapsText(), got, raw)
			}
		})
	}
}

func TestCapsTextOfRevisionThreeNamesItsRoot(t *testing.T) {
	b, err := hex.DecodeString("0100000300200000000000000000000000000000e8030000")
	if err != nil {
		t.Fatal(err)
	}
	s := State{Xattrs: map[string]Bytes{XattrCaps: b}}
	if got, want := s.CapsText(), "cap_net_raw=ep [rootid=1000]"; got != want {
		t.Errorf("CapsText() = %q, want %q", got, want)
	}
}

func TestTextOfMalformedAttributesSaysSo(t *testing.T) {
	for name, raw := range map[string]Bytes{"empty": {}, "short": {2, 0, 0}, "long": make(Bytes, 77), "odd": {2, 0, 0, 0, 1}} {
		t.Run(name, func(t *testing.T) {
			s := State{Xattrs: map[string]Bytes{XattrCaps: raw, XattrACL: raw}}
			if s.CapsText() != "malformed" || s.ACLText() != "malformed" {
				t.Errorf("caps %q, acl %q, want malformed", s.CapsText(), s.ACLText())
			}
		})
	}
}

func TestACLTextIsWhatGetfaclPrints(t *testing.T) {
	for _, tc := range []struct{ name, acl string }{
		{"a user", "u:1234:rw"},
		{"a group and a mask", "g:4321:rwx,m::r"},
		{"several", "u:1:r,u:2:w,g:3:x"},
		{"a default ACL too", "u:1:r,d:u:7:rwx,d:o::-"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := t.TempDir()
			run(t, "setfacl", "-m", tc.acl, d)
			lines := strings.Fields(strings.ReplaceAll(run(t, "getfacl", "-cpnE", d), "\t#", "#"))
			s := State{Xattrs: map[string]Bytes{XattrACL: xattr(t, d, XattrACL)}}
			if strings.Contains(tc.acl, "d:") {
				s.Xattrs[XattrACLDefault] = xattr(t, d, XattrACLDefault)
			}
			if got, want := s.ACLText(), strings.Join(lines, ","); got != want {
				t.Errorf("ACLText() = %q, getfacl prints %q", got, want)
			}
		})
	}
}

func TestFlagsMaskIsTheSumOfTheLetters(t *testing.T) {
	var sum uint32
	for _, f := range inodeFlags {
		sum |= f.bit
	}
	if sum != FlagsMask {
		t.Errorf("flags add up to %#x, FlagsMask is %#x", sum, FlagsMask)
	}
	s := State{Flags: FlagsMask}
	back, err := ParseFlags(s.FlagsText())
	if err != nil || back != FlagsMask {
		t.Errorf("ParseFlags(%q) = %#x, %v", s.FlagsText(), back, err)
	}
	if _, err := ParseFlags("iz"); err == nil {
		t.Error("ParseFlags took an unknown letter")
	}
}

func TestStateJSONComesBackTheSame(t *testing.T) {
	caps, _ := hex.DecodeString("0100000200200000000000000000000000000000")
	for _, tc := range []struct {
		name string
		s    State
		has  []string
	}{
		{"nothing", State{}, []string{`{"exists":false}`}},
		{"a plain file", State{Exists: true, Type: TypeRegular, Hash: Hash{1}, Size: 5, Mode: 0o644, UID: 1, User: "daemon", Mtime: 12345}, []string{`"mode":"0644"`, `"hash":"blake3:01`}},
		{"everything", State{
			Exists: true, Type: TypeRegular, Mode: 0o4755, Flags: FlagImmutable | 0x40, Unread: "permission denied",
			Xattrs: map[string]Bytes{XattrCaps: caps, "user.x": {0xff, 0, '\\', 'x'}}, Dev: 1, Ino: 2, Nlink: 3,
		}, []string{`"flags":"id"`, `"caps":"cap_net_raw=ep"`}},
		{"a symlink to bytes", State{Exists: true, Type: TypeSymlink, Mode: 0o777, Target: Bytes("a\xffb")}, []string{`"target":"a\\xFFb"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j, err := json.Marshal(tc.s)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range tc.has {
				if !strings.Contains(string(j), h) {
					t.Errorf("%s lacks %s", j, h)
				}
			}
			var back State
			if err := json.Unmarshal(j, &back); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, tc.s) {
				t.Errorf("came back as %+v, was %+v", back, tc.s)
			}
		})
	}
}
