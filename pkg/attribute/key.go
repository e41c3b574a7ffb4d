package attribute

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// ExecID is the text of a program's key as records show it: pid, start and
// number of execs, "4711-1zq3k9d2-3". Start is in base 36. The zero key is "".
func ExecID(k event.ProcKey) string {
	if k == (event.ProcKey{}) {
		return ""
	}
	b := make([]byte, 0, 32)
	b = appendProc(b, k)
	b = append(b, '-')
	b = strconv.AppendUint(b, uint64(k.Execs), 10)
	return string(b)
}

func appendProc(b []byte, k event.ProcKey) []byte {
	b = strconv.AppendUint(b, uint64(k.PID), 10)
	b = append(b, '-')
	return strconv.AppendUint(b, k.Start, 36)
}

// ParseExecID reads what ExecID wrote, and nothing else.
func ParseExecID(s string) (event.ProcKey, error) {
	var k event.ProcKey
	f := strings.Split(s, "-")
	if len(f) != 3 {
		return k, fmt.Errorf("exec id %q: want PID-START-EXECS", s)
	}
	pid, err1 := strconv.ParseUint(f[0], 10, 32)
	start, err2 := strconv.ParseUint(f[1], 36, 64)
	execs, err3 := strconv.ParseUint(f[2], 10, 32)
	k = event.ProcKey{PID: uint32(pid), Execs: uint32(execs), Start: start}
	if err1 != nil || err2 != nil || err3 != nil || ExecID(k) != s {
		return event.ProcKey{}, fmt.Errorf("exec id %q: want PID-START-EXECS", s)
	}
	return k, nil
}

// loginSession and serviceSession name sessions (see the package comment).
func loginSession(id uint64) string { return "login-" + strconv.FormatUint(id, 10) }

func serviceSession(k event.ProcKey) string { return string(appendProc([]byte("svc-"), k)) }

const kernelSession = "kernel"
