package shiptest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/holdfast/holdfast/pkg/ship"
)

// RunSink checks that dst keeps the promises of ship.Sink. dst is ready and holds
// nothing; record returns the bytes of a record of that host and number.
func RunSink(t *testing.T, dst ship.Sink, record func(hostID string, seq uint64) []byte) {
	ctx := context.Background()
	send := func(t *testing.T, host, token string, seqs ...uint64) {
		t.Helper()
		var b [][]byte
		for _, s := range seqs {
			b = append(b, record(host, s))
		}
		if err := dst.Send(ctx, token, b); err != nil {
			t.Fatal(err)
		}
	}
	reach := func(t *testing.T, host string, after, unbroken, newest uint64) {
		t.Helper()
		u, n, err := dst.Reach(ctx, host, after)
		if err != nil {
			t.Fatal(err)
		}
		if u != unbroken || n != newest {
			t.Errorf("Reach(%s, %d) = %d, %d; want %d, %d", host, after, u, n, unbroken, newest)
		}
	}
	t.Run("a ready sink says so", func(t *testing.T) {
		if err := dst.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("an empty sink reaches as far as it was asked from", func(t *testing.T) {
		reach(t, "a", 0, 0, 0)
		reach(t, "a", 17, 17, 0)
	})
	t.Run("the run of records ends before the first that is missing", func(t *testing.T) {
		send(t, "a", "a1", 1, 2, 3)
		send(t, "a", "a2", 4, 5)
		send(t, "a", "a3", 8, 9)
		reach(t, "a", 0, 5, 9)
		reach(t, "a", 3, 5, 9)
		reach(t, "a", 6, 6, 9)
		reach(t, "a", 7, 9, 9)
		reach(t, "a", 9, 9, 9)
		reach(t, "a", 12, 12, 9)
	})
	t.Run("hosts do not see each other's records", func(t *testing.T) {
		send(t, "b", "b1", 1, 2, 3, 4, 5, 6, 7, 8)
		reach(t, "a", 0, 5, 9)
		reach(t, "b", 0, 8, 8)
	})
	t.Run("a batch that is sent again with its token is there once", func(t *testing.T) {
		send(t, "c", "c1", 1, 2, 3)
		send(t, "c", "c1", 1, 2, 3)
		send(t, "c", "c2", 4)
		send(t, "c", "c1", 1, 2, 3)
		reach(t, "c", 0, 4, 4)
	})
	t.Run("held records are told with their leaf hashes", func(t *testing.T) {
		held, err := dst.Holds(ctx, "a", 4, 8)
		if err != nil {
			t.Fatal(err)
		}
		if len(held) != 3 {
			t.Errorf("%d records between 4 and 8, want 4, 5 and 8", len(held))
		}
		for _, seq := range []uint64{4, 5, 8} {
			if want := sha256.Sum256(append([]byte{0}, record("a", seq)...)); len(held[seq]) != 1 || held[seq][0] != want {
				t.Errorf("record %d: leaf %x, want %x", seq, held[seq], want)
			}
		}
	})
	t.Run("rows are displaced by their hashes, as often as is asked", func(t *testing.T) {
		for range 2 {
			if err := dst.Displace(ctx, "a", 4, 8, [][32]byte{sha256.Sum256(append([]byte{0}, record("a", 5)...)), {}}); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("a checkpoint may be sent twice", func(t *testing.T) {
		for range 2 {
			if err := dst.SendCheckpoint(ctx, "a", 5, []byte("note\n\nsignature\n")); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("changes of key are held beside a checkpoint of their size", func(t *testing.T) {
		change := []byte("note\nnext key\n\nsignature\n")
		for _, n := range [][]byte{change, []byte("note\n\nanother\n")} {
			if err := dst.SendCheckpoint(ctx, "a", 6, n); err != nil {
				t.Fatal(err)
			}
		}
		asked := [][]byte{[]byte("never sent\nnext key\n\nsignature\n")}
		for i := range 1100 { // more than one question of a sink takes
			asked = append(asked, fmt.Appendf(nil, "note %d\nnext key\n\nsignature\n", i))
		}
		asked = append(asked, change)
		handed, err := dst.Handed(ctx, "a", asked)
		if want := sha256.Sum256(append([]byte{0}, change...)); err != nil || len(handed) != 1 || !handed[want] {
			t.Errorf("handed %v, %v, want %v alone", handed, err, want)
		}
		changes, err := dst.Changes(ctx, "a")
		if err != nil || len(changes) != 1 || !bytes.Equal(changes[0], change) {
			t.Errorf("changes of key %q, %v", changes, err)
		}
		found := map[string]bool{}
		if err := dst.Notes(ctx, "a", 5, func(n []byte) { found[string(n)] = true }); err != nil || !found["note\n\nanother\n"] {
			t.Errorf("notes %v, %v", found, err)
		}
		if handed, err := dst.Handed(ctx, "another", asked); err != nil || len(handed) != 0 {
			t.Errorf("of another host: %v, %v", handed, err)
		}
	})
	t.Run("a cancelled call returns an error", func(t *testing.T) {
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, ok := dst.(*Sink); ok {
			return // memory has nothing to wait for
		}
		if err := dst.Send(gone, "x", [][]byte{record("x", 1)}); err == nil {
			t.Error("Send with a cancelled context: no error")
		}
	})
}
