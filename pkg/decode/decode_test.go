package decode_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/decode"
	"github.com/holdfast/holdfast/pkg/event"
)

// golden returns the records in testdata, which kernels wrote: the directory
// /tmp/holdfast-golden/w was watched while
//
//	echo hi > w/a; cp w/a w/sub/b; mv w/a w/c; rm w/sub/b; chmod 600 w/c
//	ln -s c w/l; ln w/c w/h; mkdir w/d; rmdir w/d; cd w; mv c c2; rm c2
//
// ran as root outside any login.
func golden(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden records: %v", err)
	}
	out := make(map[string][]byte)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(f), ".bin")] = b
	}
	return out
}

func TestRecordsOfRealKernelsDecode(t *testing.T) {
	type want struct {
		op                       event.Op
		comm                     string
		path, base, path2, base2 string
		flags                    uint16
	}
	const base = "/tmp/holdfast-golden"
	wants := map[string]want{
		"6.1-lsm-file-open":                 {event.OpOpen, "sh", "a", "", "", "", event.FlagCreated},
		"6.1-lsm-file-write":                {event.OpWrite, "sh", "a", "", "", "", event.FlagFirst},
		"6.1-lsm-file-close":                {event.OpClose, "sh", "a", "", "", "", 0},
		"6.1-lsm-file-rename":               {event.OpRename, "mv", "a", "", "c", "", 0},
		"6.1-lsm-file-unlink":               {event.OpUnlink, "rm", "sub/b", "", "", "", 0},
		"6.1-lsm-file-chmod":                {event.OpChmod, "chmod", "c", "", "", "", 0},
		"6.1-lsm-file-symlink":              {event.OpSymlink, "ln", "l", "", "", "", 0},
		"6.1-lsm-file-link":                 {event.OpLink, "ln", "c", "", "h", "", 0},
		"6.1-lsm-file-mkdir":                {event.OpMkdir, "mkdir", "d", "", "", "", event.FlagDir},
		"6.1-lsm-file-rmdir":                {event.OpRmdir, "rmdir", "d", "", "", "", 0},
		"6.18-tracepoint-file-open":         {event.OpOpen, "sh", "a", "", "", "", event.FlagCreated},
		"6.18-tracepoint-file-write":        {event.OpWrite, "sh", "a", "", "", "", event.FlagFirst},
		"6.18-tracepoint-file-close":        {event.OpClose, "sh", "a", "", "", "", 0},
		"6.18-tracepoint-file-rename":       {event.OpRename, "mv", "c", "", "c2", "", 0},
		"6.18-tracepoint-file-unlink":       {event.OpUnlink, "rm", "c2", "", "", "", 0},
		"6.18-tracepoint-file-rename-named": {event.OpRename, "mv", "w/a", base, "w/c", base, event.FlagNamed},
		"6.18-tracepoint-file-unlink-named": {event.OpUnlink, "rm", "w/sub/b", base, "", "", event.FlagNamed},
		"6.18-tracepoint-file-chmod-named":  {event.OpChmod, "chmod", "w/c", base, "", "", event.FlagNamed | event.FlagFollow},
	}
	records := golden(t)
	var d decode.Decoder
	for name, w := range wants {
		t.Run(name, func(t *testing.T) {
			var e event.Event
			if err := d.Decode(records[name], &e); err != nil {
				t.Fatal(err)
			}
			got := want{e.Op, e.CommString(), string(e.Path), string(e.Base), string(e.Path2), string(e.Base2), e.Flags}
			if got != w {
				t.Errorf("got %+v, want %+v", got, w)
			}
			if e.Kind != event.KindFile || e.Key.PID == 0 || e.Key.Start == 0 || e.Time < e.Key.Start || e.Parent.PID == 0 {
				t.Errorf("kind %d key %+v parent %+v time %d", e.Kind, e.Key, e.Parent, e.Time)
			}
			if e.Login != event.Unset || e.Creds != (event.Creds{}) {
				t.Errorf("login %d creds %+v, want root outside any login", e.Login, e.Creds)
			}
		})
	}
}

func TestExecRecordsTellProgramArgumentsAndDirectory(t *testing.T) {
	var d decode.Decoder
	for name, b := range golden(t) {
		if !strings.HasSuffix(name, "-exec") {
			continue
		}
		var e event.Event
		if err := d.Decode(b, &e); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		argv := strings.Split(strings.TrimSuffix(string(e.Argv), "\x00"), "\x00")
		if !strings.HasSuffix(string(e.Exe), "/bin/cp") || !slices.Equal(argv, []string{"cp", "w/a", "w/sub/b"}) || string(e.Cwd) != "/tmp/holdfast-golden" {
			t.Errorf("%s: exe %q argv %q cwd %q", name, e.Exe, argv, e.Cwd)
		}
	}
}

// The path is what the kernel's list of names says when it is read by another
// route: split, reversed and joined.
func TestPathsAreTheKernelsNamesReversed(t *testing.T) {
	var d decode.Decoder
	for name, b := range golden(t) {
		var e event.Event
		if err := d.Decode(b, &e); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e.Kind != event.KindFile || e.Flags&event.FlagNamed != 0 {
			continue
		}
		end := len(b) - extra(e.Path2)
		list := b[end-extra(e.Path) : end]
		names := strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00")
		slices.Reverse(names)
		if got := strings.Join(names, "/"); got != string(e.Path) {
			t.Errorf("%s: decoded %q, by hand %q", name, e.Path, got)
		}
	}
}

// extra is how many bytes the list behind a path takes.
func extra(p []byte) int {
	if len(p) == 0 {
		return 0
	}
	return len(p) + 1
}

func TestWhatIsNotOneWholeEventIsAnError(t *testing.T) {
	whole := golden(t)["6.1-lsm-file-rename"]
	spoil := func(change func([]byte) []byte) []byte { return change(bytes.Clone(whole)) }
	tests := map[string][]byte{
		"nothing":                  nil,
		"one byte":                 whole[:1],
		"cut in the head":          whole[:100],
		"cut in the last string":   whole[:len(whole)-1],
		"one byte too many":        append(bytes.Clone(whole), 0),
		"a size that lies":         spoil(func(b []byte) []byte { b[0]++; return b }),
		"another version":          spoil(func(b []byte) []byte { b[4] = 99; return b }),
		"an unknown kind":          spoil(func(b []byte) []byte { b[6] = 200; return b }),
		"a name without its end":   spoil(func(b []byte) []byte { b[len(b)-1] = 'x'; return b }),
		"a kind with another body": spoil(func(b []byte) []byte { b[6] = byte(event.KindSession); return b }),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			var d decode.Decoder
			e := event.Event{Ino: 7}
			if err := d.Decode(b, &e); !errors.Is(err, decode.ErrWire) {
				t.Errorf("error %v, want one that wraps ErrWire", err)
			}
			if e.Kind != event.KindNone || e.Ino != 0 {
				t.Errorf("a half-filled event was left behind: %+v", e)
			}
		})
	}
}

func TestDecodingAllocatesNothing(t *testing.T) {
	var d decode.Decoder
	var e event.Event
	for name, b := range golden(t) {
		if n := testing.AllocsPerRun(100, func() {
			if err := d.Decode(b, &e); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestAnUnalignedRecordDecodesLikeAnAlignedOne(t *testing.T) {
	var a, b decode.Decoder
	for name, raw := range golden(t) {
		for shift := 1; shift < 8; shift++ {
			moved := append(make([]byte, shift, shift+len(raw)), raw...)[shift:]
			var x, y event.Event
			if err := errors.Join(a.Decode(raw, &x), b.Decode(moved, &y)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if string(x.Path) != string(y.Path) || x.Key != y.Key || x.Time != y.Time {
				t.Errorf("%s moved by %d: %q %+v, want %q %+v", name, shift, y.Path, y.Key, x.Path, x.Key)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range golden(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d decode.Decoder
		var e event.Event
		if err := d.Decode(b, &e); (err != nil) == (e.Kind != event.KindNone) {
			t.Errorf("error %v and kind %d: want one of the two", err, e.Kind)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"6.1-lsm-file-write", "6.1-lsm-file-rename", "6.1-lsm-exec"} {
		raw := golden(b)[name]
		b.Run(name, func(b *testing.B) {
			var d decode.Decoder
			var e event.Event
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(raw, &e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
