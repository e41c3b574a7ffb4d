package sense

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

// defines reads the numbers of bpf/*.h that begin with prefix.
func defines(t *testing.T, file, prefix string) map[string]uint64 {
	t.Helper()
	b, err := os.ReadFile("../../bpf/" + file)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]uint64)
	for _, m := range regexp.MustCompile(`(?m)^#define (`+prefix+`\w+) (0x[0-9a-f]+|\d+)`).FindAllStringSubmatch(string(b), -1) {
		n, err := strconv.ParseUint(m[2], 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		out[m[1]] = n
	}
	if len(out) == 0 {
		t.Fatalf("no %s* in bpf/%s", prefix, file)
	}
	return out
}

func TestOperationNumbersAreThoseOfTheWire(t *testing.T) {
	names := map[string]event.Op{
		"OP_NONE": event.OpNone, "OP_OPEN": event.OpOpen, "OP_WRITE": event.OpWrite, "OP_TRUNCATE": event.OpTruncate,
		"OP_CREATE": event.OpCreate, "OP_UNLINK": event.OpUnlink, "OP_RENAME": event.OpRename, "OP_LINK": event.OpLink,
		"OP_SYMLINK": event.OpSymlink, "OP_MKDIR": event.OpMkdir, "OP_RMDIR": event.OpRmdir, "OP_MKNOD": event.OpMknod,
		"OP_CHMOD": event.OpChmod, "OP_CHOWN": event.OpChown, "OP_UTIMES": event.OpUtimes, "OP_SETXATTR": event.OpSetxattr,
		"OP_REMOVEXATTR": event.OpRemovexattr, "OP_SETACL": event.OpSetacl, "OP_SETFLAGS": event.OpSetflags,
		"OP_MAP_WRITE": event.OpMapWrite, "OP_CLOSE": event.OpClose, "OP_MOUNT": event.OpMount, "OP_UMOUNT": event.OpUmount,
		"OP_REMOUNT": event.OpRemount, "OP_RAW_WRITE": event.OpRawWrite, "OP_RECEIVE": event.OpReceive,
		"OP_KILL": event.OpKill, "OP_PTRACE": event.OpPtrace, "OP_BPF": event.OpBPF, "OP_LIMIT": event.OpLimit,
	}
	for name, n := range defines(t, "event.h", "OP_") {
		if op, ok := names[name]; !ok || uint64(op) != n {
			t.Errorf("%s is %d on the wire, %d in package event (known: %v)", name, n, op, ok)
		}
	}
}

func TestKindAndFlagNumbersAreThoseOfTheWire(t *testing.T) {
	names := map[string]uint64{
		"EV_FILE": uint64(event.KindFile), "EV_FORK": uint64(event.KindFork), "EV_EXEC": uint64(event.KindExec),
		"EV_EXIT": uint64(event.KindExit), "EV_SESSION": uint64(event.KindSession), "EV_PROC": uint64(event.KindProc),
		"EV_SOCKET": uint64(event.KindSocket), "EV_HELD": uint64(event.KindHeld), "EV_GUARD": uint64(event.KindGuard), "EV_CRED": uint64(event.KindCred),
		"EF_BLOCKED": uint64(event.FlagBlocked), "EF_ALLOWED": uint64(event.FlagAllowed), "EF_NAMED": uint64(event.FlagNamed),
		"EF_FOLLOW": uint64(event.FlagFollow), "EF_CREATED": uint64(event.FlagCreated), "EF_FIRST": uint64(event.FlagFirst),
		"EF_APPEARED": uint64(event.FlagAppeared), "EF_DIR": uint64(event.FlagDir), "EF_TRUNCATED": uint64(event.FlagTruncated),
		"EF_MAPPED": uint64(event.FlagMapped), "EF_AHEAD": uint64(event.FlagAhead), "EF_ASTRAY": uint64(event.FlagAstray),
	}
	for name, n := range defines(t, "event.h", "E[VF]_") {
		if names[name] != n {
			t.Errorf("%s is %d on the wire, %d in package event", name, n, names[name])
		}
	}
}

func TestMarkNumbersAreThoseOfTheMaps(t *testing.T) {
	want := map[string]uint64{
		"MARK_ROOT": markRoot, "MARK_NAMES": markNames, "MARK_EXCEPT": markExcept, "MARK_PENDING": markPending, "MARK_LINK": markLink, "MARK_BELOW": markBelow,
		"MODE_OBSERVE": uint64(modeNumber(event.ModeObserve)), "MODE_RESTORE": uint64(modeNumber(event.ModeRestore)), "MODE_BLOCK": uint64(modeNumber(event.ModeBlock)),
	}
	for _, prefix := range []string{"MARK_", "MODE_"} {
		for name, n := range defines(t, "maps.h", prefix) {
			if want[name] != n {
				t.Errorf("%s is %d in the kernel side, %d here", name, n, want[name])
			}
		}
	}
}

func TestEveryHookOfTheWireHasAName(t *testing.T) {
	for name, n := range defines(t, "event.h", "HOOK_") {
		if name == "HOOK_NONE" || name == "HOOK_MAX" {
			continue
		}
		if HookName(uint16(n)) == "unknown" {
			t.Errorf("%s has no name", name)
		}
	}
}
