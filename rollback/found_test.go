package rollback

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// TestWhatAComparedDirectoryShowsIsTheCausesOwnOnlyWhereNobodyElseCanHaveDoneIt: mallory
// writes a file and renames its directory before the file is read; it is found there by
// comparing. Each case differs from that in one thing.
func TestWhatAComparedDirectoryShowsIsTheCausesOwnOnlyWhereNobodyElseCanHaveDoneIt(t *testing.T) {
	const unknown = "the content that was left there is not known: "
	for _, tc := range []struct {
		name     string
		conflict string
		more     func(h *diary, wrote, found *event.Record)
	}{
		{"nobody else did anything", "", nil},
		{"another changed it, which was not read either", "changed since by alice", func(h *diary, wrote, found *event.Record) {
			r := *wrote
			r.Seq, r.ID, r.Actor, r.Path = found.Seq+1, "h/b/alice", &event.Actor{User: "alice"}, found.Path
			h.all = append(h.all, &r)
		}},
		{"it was written later than by the cause", "changed since by unknown", func(h *diary, wrote, found *event.Record) {
			wrote.Time, wrote.TimeEnd = found.After.Mtime-2, found.After.Mtime-1
		}},
		{"another inode has the name", "changed since by unknown", func(h *diary, wrote, found *event.Record) { found.After.Ino++ }},
		{"its number was of another inode", "changed since by unknown", func(h *diary, wrote, found *event.Record) { wrote.File.Gen++ }},
		{"its mode differs, too", "changed since by unknown", func(h *diary, wrote, found *event.Record) { wrote.After.Mode = 0o600 }},
		{"somebody is known to have done what was found", "changed since by alice", func(h *diary, wrote, found *event.Record) { found.Actor = &event.Actor{User: "alice", Loginuid: 3} }},
		{"it was found for an operation that could not be placed", "changed since by unknown", func(h *diary, wrote, found *event.Record) { found.Found = event.FoundUnplaced }},
		{"which moved and removed names", "", unplaced("create link mkdir rename unlink")},
		{"which set metadata that is as it was", "", unplaced("chmod rename setxattr")},
		{"which set times", "changed since by unknown", unplaced("rename utimes")},
		{"which cut a file", "changed since by unknown", unplaced("rename truncate")},
		{"which wrote", "changed since by unknown", unplaced("write")},
		{"which are not known", "changed since by unknown", unplaced("rename unknown")},
		{"which are of another version of this", "changed since by unknown", unplaced("rename defragment")},
		{"its directory was compared while one that cut a file could not be placed", "changed since by unknown", func(h *diary, wrote, found *event.Record) {
			unplaced("truncate")(h, wrote, found)
			found.Found = event.FoundOrder
		}},
		{"its mode differs, too, and somebody set one somewhere", "changed since by unknown", func(h *diary, wrote, found *event.Record) {
			unplaced("chmod")(h, wrote, found)
			wrote.After.Mode = 0o600
		}},
		{"events are missing of the time in between", "changed since by unknown", func(h *diary, wrote, found *event.Record) {
			h.all = append(h.all, &event.Record{Kind: event.RecGap, Seq: found.Seq + 1, ID: "h/b/gap", Actor: event.Nobody(),
				Gap: &event.Gap{Lost: 1, From: wrote.TimeEnd, To: wrote.TimeEnd + 1, Trees: []string{filepath.Dir(found.Path)}}})
		}},
		{"events are missing elsewhere", "", func(h *diary, wrote, found *event.Record) {
			h.all = append(h.all, &event.Record{Kind: event.RecGap, Seq: found.Seq + 1, ID: "h/b/gap", Actor: event.Nobody(),
				Gap: &event.Gap{Lost: 1, From: wrote.TimeEnd, To: wrote.TimeEnd + 1, Trees: []string{"/elsewhere"}}})
		}},
		{"it was never found", unknown + "gone", func(h *diary, wrote, found *event.Record) { h.all = h.all[:2] }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := storetest.Disk(t)
			root := filepath.Join(base, "files")
			mkdirs(t, root, root+"/d")
			write(t, root+"/d/f", "good")
			s := open1(t, filepath.Join(base, "vault"), Options{})
			h := &diary{t: t, s: s}
			before := *h.state(root + "/d/f")
			wrote := h.do("mallory", "write", root+"/d/f", "", `echo evil >> "$1"`)
			after := *wrote.After
			gone := before
			gone.Hash, gone.Unread = event.Hash{}, "gone"
			wrote.After, wrote.TimeEnd = &gone, event.TimeOf(time.Now())
			wrote.File = &event.File{Dev: after.Dev, Ino: after.Ino, Gen: generation(t, root+"/d/f")}
			h.do("mallory", "rename", root+"/d", root+"/e", `mv "$1" "$2"`)
			found := h.do(event.Unknown, "write", root+"/e/f", "", ":")
			found.Actor, found.Found, found.Before, found.After = event.Nobody(), event.FoundOrder, &gone, &after
			if tc.more != nil {
				tc.more(h, wrote, found)
			}
			p, err := s.PlanUndo(t.Context(), h.by("mallory", true), h.by("mallory", false), UndoOptions{})
			if err != nil {
				t.Fatal(err)
			}
			conflict := ""
			for _, c := range p.Conflicts {
				conflict += c.Reason
			}
			if conflict != tc.conflict {
				t.Fatalf("conflict %q, want %q", conflict, tc.conflict)
			}
			if err := s.Apply(t.Context(), p, nil); err != nil {
				t.Fatal(err)
			}
			want := "good"
			if conflict != "" {
				want = "goodevil\n"
			}
			if got := read(t, root+"/d/f"); got != want {
				t.Errorf("it holds %q, want %q", got, want)
			}
		})
	}
}

// unplaced has the file be found because of operations whose paths could not be followed.
func unplaced(ops string) func(h *diary, wrote, found *event.Record) {
	return func(_ *diary, _, found *event.Record) {
		found.Found, found.Detail = event.FoundUnplaced, map[string]string{event.DetailUnplaced: ops}
	}
}

// TestWhatWasReadAtItsNewNameBeforeTheRenameWasToldIsOneFile: the records of a cause come in
// another order than it did things.
func TestWhatWasReadAtItsNewNameBeforeTheRenameWasToldIsOneFile(t *testing.T) {
	for _, alice := range []bool{false, true} {
		base := storetest.Disk(t)
		root := filepath.Join(base, "files")
		mkdirs(t, root, root+"/d")
		write(t, root+"/d/f", "good")
		s := open1(t, filepath.Join(base, "vault"), Options{})
		h := &diary{t: t, s: s}
		gone := *h.state(root + "/d/f")
		wrote := h.do("mallory", "write", root+"/d/f", "", `echo evil >> "$1"`)
		gone.Hash, gone.Unread = event.Hash{}, "gone"
		after := *wrote.After
		wrote.After = &gone
		moved := h.do("mallory", "rename", root+"/d", root+"/e", `mv "$1" "$2"`)
		read1 := h.do("mallory", "write", root+"/e/f", "", ":")
		read1.Before, read1.After = &gone, &after
		moved.Seq, read1.Seq = read1.Seq, moved.Seq // told in this order
		h.all = []*event.Record{wrote, read1, moved}
		if alice {
			r := *read1
			r.Seq, r.ID, r.Actor = moved.Seq+1, "h/b/alice", &event.Actor{User: "alice"}
			h.all = append(h.all, &r)
			write(t, root+"/e/f", "hers")
		}
		p, err := s.PlanUndo(t.Context(), h.by("mallory", true), h.by("mallory", false), UndoOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(t.Context(), p, nil); err != nil {
			t.Fatal(err)
		}
		want, conflicts := "good", 0
		if alice {
			want, conflicts = "hers", 1
		}
		if got := read(t, root+"/d/f"); got != want || len(p.Conflicts) != conflicts {
			t.Errorf("it holds %q, want %q: conflicts %+v", got, want, p.Conflicts)
		}
	}
}

// generation is what lsattr -v tells.
func generation(t *testing.T, path string) uint32 {
	t.Helper()
	var gen uint32
	if _, err := fmt.Sscan(storetest.Run(t, "lsattr", "-v", path), &gen); err != nil {
		t.Fatal(err)
	}
	return gen
}
