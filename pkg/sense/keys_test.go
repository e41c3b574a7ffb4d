package sense

import (
	"testing"

	"github.com/holdfast/holdfast/bpf"
)

func TestABitStandsForAFileSystemAtHandAndForAllIfSomeAreNot(t *testing.T) {
	for _, c := range []struct {
		name   string
		supers uint32
		of     []uint64
		want   uint32
	}{
		{"none has it", 3, nil, 0},
		{"one of three has it", 3, []uint64{12}, 1 << 2},
		{"the first and the last of six have it", 6, []uint64{10, 15}, 1<<0 | 1<<5},
		{"seven are watched and none has it", 7, nil, 0},
		{"seven are watched and one that is at hand has it", 7, []uint64{10}, ^uint32(0)},
		{"seven are watched and the one that is not at hand has it", 7, []uint64{16}, ^uint32(0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := bpf.TracerSettings{Supers: c.supers}
			for i := range s.Super {
				s.Super[i] = uint64(10 + i)
			}
			of := map[uint64]bool{}
			for _, sb := range c.of {
				of[sb] = true
			}
			if got := bits(&s, of); got != c.want {
				t.Errorf("got %b, want %b", got, c.want)
			}
		})
	}
}
