package pipeline

import (
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
)

func TestWhatAnOpenEmptiedAndIsNotEmptyWasWritten(t *testing.T) {
	file := func(size uint64) event.State { return event.State{Exists: true, Type: event.TypeRegular, Size: size} }
	unread := file(3)
	unread.Unread = "gone before it could be read"
	for _, tt := range []struct {
		name   string
		opened bool
		ops    []event.Op
		after  event.State
		want   bool
	}{
		{"emptied by an open, and it holds something", true, []event.Op{event.OpTruncate}, file(3), true},
		{"made by an open, and it holds something", true, []event.Op{event.OpCreate}, file(3), true},
		{"emptied by an open, and empty", true, []event.Op{event.OpTruncate}, file(0), false},
		{"its write is told of", true, []event.Op{event.OpTruncate, event.OpWrite}, file(3), false},
		{"made shorter by truncate(2)", false, []event.Op{event.OpTruncate}, file(3), false},
		{"what it held then is not known", true, []event.Op{event.OpTruncate}, unread, false},
		{"a directory is not written", true, []event.Op{event.OpCreate}, event.State{Exists: true, Type: event.TypeDir, Size: 40}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := written(&event.Change{Opened: tt.opened, Ops: tt.ops}, &rehash.Finding{After: tt.after}); got != tt.want {
				t.Errorf("written: %v, want %v", got, tt.want)
			}
		})
	}
}
