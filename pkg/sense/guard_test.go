package sense

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/bpf"
	"github.com/holdfast/holdfast/pkg/decode"
	"github.com/holdfast/holdfast/pkg/event"
)

func openTracepoint(t *testing.T) *Sensor {
	t.Helper()
	s, err := Open(Options{Tier: TierTracepoint, Ring: 1 << 16, Self: uint32(os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// The truth is what the kernel tells of this process's descriptors (proc(5), fdinfo).
func TestEveryObjectThatIsLoadedIsClaimed(t *testing.T) {
	s := openTracepoint(t)
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string]uint64{"prog_id": progByID, "map_id": mapByID, "link_id": linkByID}
	seen := make(map[string]int)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if os.IsNotExist(err) {
			continue // the descriptor of the directory itself
		}
		if err != nil {
			t.Fatal(err)
		}
		fields := make(map[string]string)
		for line := range strings.Lines(string(b)) {
			k, v, _ := strings.Cut(line, ":")
			fields[k] = strings.TrimSpace(v)
		}
		for k, cmd := range commands {
			if fields[k] == "" || k == "prog_id" && fields["link_id"] != "" {
				continue
			}
			id, err := strconv.ParseUint(fields[k], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			seen[k]++
			var v uint32
			if err := s.maps["own"].Lookup(cmd<<32|id, &v); err != nil {
				t.Errorf("%s %d is not claimed: %v", k, id, err)
			}
		}
	}
	if seen["prog_id"] != len(s.progs) || seen["map_id"] < len(s.maps) || seen["link_id"] != len(s.links) {
		t.Errorf("found %v, loaded %d programs, %d maps, %d links", seen, len(s.progs), len(s.maps), len(s.links))
	}
}

func TestAttemptsThatWereOnlyCountedAreToldOfOnce(t *testing.T) {
	s := openTracepoint(t)
	put := func(pid uint32, told, count uint64) {
		t.Helper()
		v := bpf.TracerAttempt{
			Head: bpf.TracerEventHead{Version: decode.Version, Kind: uint8(event.KindGuard), Op: uint8(event.OpKill), Tgid: pid, Time: told + 7},
			Body: bpf.TracerFileBody{Arg: 9, Count: count, First: told + 3, Opener: told},
		}
		v.Head.Size = uint32(binary.Size(v))
		if err := s.maps["attempts"].Put(&bpf.TracerReach{Tgid: pid}, &v); err != nil {
			t.Fatal(err)
		}
	}
	put(1, 1000, 5) // told of long ago
	put(2, 5000, 5) // just now
	put(3, 1000, 0) // nothing since
	var d decode.Decoder
	got := make(map[uint32]uint64)
	look := func(now, age uint64) {
		t.Helper()
		clear(got)
		if err := s.Attempts(now, age, func(raw []byte) {
			var e event.Event
			if err := d.Decode(raw, &e); err != nil {
				t.Fatal(err)
			}
			if e.Kind != event.KindGuard || e.Op != event.OpKill || e.Arg != 9 || e.Time-e.First != 4 {
				t.Errorf("event %+v", e)
			}
			got[e.Key.PID] = e.Count
		}); err != nil {
			t.Fatal(err)
		}
	}
	look(6000, 2000)
	if len(got) != 1 || got[1] != 5 {
		t.Errorf("told of %v, want process 1 with 5", got)
	}
	look(6000, 0)
	if len(got) != 1 || got[2] != 5 {
		t.Errorf("told of %v, want process 2 with 5", got)
	}
	look(6000, 0)
	if len(got) != 0 {
		t.Errorf("told of %v again", got)
	}
}
