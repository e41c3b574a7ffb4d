package publish

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeLog is a log whose checkpoints the test makes.
type fakeLog struct {
	mu     sync.Mutex
	latest Note
	keys   []Note
}

func (l *fakeLog) Latest() (Note, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.latest, l.latest.Size > 0, nil
}

func (l *fakeLog) Handovers() ([]Note, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys, nil
}

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func made(size int) Note {
	return Note{Signed: fmt.Appendf(nil, "log\n%d\n\n— sig\n", size), Line: fmt.Sprintf("size %d note64=eHg=", size), Size: uint64(size), Time: start.Add(time.Duration(size) * time.Minute)}
}

// listen takes what a syslog server gets, message by message.
func listen(t *testing.T, network string) (address string, messages func(n int) []string) {
	t.Helper()
	got := make(chan string, 100)
	switch network {
	case "tcp":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go octets(c, got)
			}
		}()
		address = "tcp://" + l.Addr().String()
	default:
		at := "127.0.0.1:0"
		if network == "unixgram" {
			at = filepath.Join(t.TempDir(), "log")
		}
		c, err := net.ListenPacket(network, at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 8192)
			for {
				n, _, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				got <- string(b[:n])
			}
		}()
		address = network + "://" + c.LocalAddr().String()
	}
	return address, func(n int) (out []string) {
		for range n {
			select {
			case m := <-got:
				out = append(out, m)
			case <-time.After(10 * time.Second):
				t.Fatalf("%d of %d messages: %q", len(out), n, out)
			}
		}
		return out
	}
}

// octets reads the frames of RFC 6587 section 3.4.1.
func octets(c net.Conn, got chan<- string) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		var n int
		if _, err := fmt.Fscanf(r, "%d", &n); err != nil {
			return
		}
		if b, err := r.ReadByte(); err != nil || b != ' ' {
			return
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		got <- string(b)
	}
}

func TestEachPlaceGetsTheNewestCheckpointAndEachChangeOfKeyOnce(t *testing.T) {
	// RFC 5424 section 6: PRI, VERSION, TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID, STRUCTURED-DATA, MSG
	form := regexp.MustCompile(`^<85>1 2026-03-01T1\d:\d\d:00\.000000Z web1 holdfast \d+ checkpoint - (size \d+ note64=eHg=)$`)
	for _, network := range []string{"unixgram", "udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			address, messages := listen(t, network)
			to, err := ParseSyslog(address)
			if err != nil {
				t.Fatal(err)
			}
			to.Host = "web1"
			file := File{Path: filepath.Join(t.TempDir(), "kept")}
			l := &fakeLog{latest: made(30), keys: []Note{made(1), made(20)}}
			now := start.Add(30 * 24 * time.Hour) // only the newest change of key is told of after a long time
			p := New(l, []Place{to, file}, Options{Now: func() time.Time { return now }})
			pass := func(want ...int) {
				t.Helper()
				p.pass(context.Background())
				for i, m := range messages(len(want)) {
					f := form.FindStringSubmatch(m)
					if f == nil || f[1] != made(want[i]).Line {
						t.Fatalf("message %q, want %q", m, made(want[i]).Line)
					}
				}
			}
			pass(20, 30)
			pass() // nothing is new
			l.latest = made(31)
			pass(31)
			l.latest, l.keys = made(50), append(l.keys, made(40), made(45))
			pass(40, 45, 50)
			var want []byte
			for _, n := range []int{20, 30, 31, 40, 45, 50} {
				want = append(append(want, made(n).Signed...), '\n')
			}
			if b, err := os.ReadFile(file.Path); err != nil || !bytes.Equal(b, want) {
				t.Fatalf("%q, %v", b, err)
			}
			for _, s := range p.Stats() {
				if s.Size != 50 || s.Sent != 3 || s.Errors != 0 {
					t.Fatalf("%+v", s)
				}
			}
		})
	}
}

// failing is a place that takes nothing while told so.
type failing struct {
	broken bool
	got    []uint64
}

func (f *failing) Name() string { return "failing" }
func (f *failing) Send(_ context.Context, notes []Note) error {
	if f.broken {
		return errors.New("nobody is there")
	}
	for _, n := range notes {
		f.got = append(f.got, n.Size)
	}
	return nil
}

func TestWhatAPlaceMissedWhileItWasAwayItGetsLater(t *testing.T) {
	f := &failing{}
	l := &fakeLog{latest: made(10), keys: []Note{made(0)}}
	p := New(l, []Place{f}, Options{Now: func() time.Time { return start }})
	p.pass(context.Background())
	f.broken = true
	l.latest, l.keys = made(20), append(l.keys, made(15))
	p.pass(context.Background())
	l.latest, l.keys = made(30), append(l.keys, made(25))
	p.pass(context.Background())
	if s := p.Stats()[0]; s.Errors != 2 || s.LastError != "nobody is there" || s.Size != 10 {
		t.Fatalf("%+v", s)
	}
	f.broken = false
	p.pass(context.Background())
	if s := p.Stats()[0]; fmt.Sprint(f.got) != "[0 10 15 25 30]" || s.LastError != "" {
		t.Fatalf("%v, %+v", f.got, s)
	}
}

func TestAClockThatWentBackHidesNoChangeOfKey(t *testing.T) {
	f := &failing{}
	l := &fakeLog{latest: made(100), keys: []Note{made(90)}}
	p := New(l, []Place{f}, Options{Now: func() time.Time { return start }})
	p.pass(context.Background())
	early := made(110)
	early.Time = start
	l.latest, l.keys = made(120), append(l.keys, early)
	p.pass(context.Background())
	if fmt.Sprint(f.got) != "[90 100 110 120]" {
		t.Fatalf("%v", f.got)
	}
}

func TestAFullFileKeepsWholeNotesAlone(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	file := File{Path: filepath.Join(dir, "kept")}
	if err := file.Send(context.Background(), []Note{made(1)}); err != nil {
		t.Fatal(err)
	}
	long := made(2)
	long.Signed = bytes.Repeat([]byte("x"), 5000)
	if err := file.Send(context.Background(), []Note{long}); err == nil {
		t.Fatal("5000 bytes went into a page")
	}
	if b, err := os.ReadFile(file.Path); err != nil || string(b) != string(made(1).Signed)+"\n" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestAnAddressThatCannotBeIsRefused(t *testing.T) {
	for s, want := range map[string]string{
		"udp://logs:514": "udp logs:514", "udp://logs": "udp logs:514", "tcp://[2001:db8::1]": "tcp [2001:db8::1]:601", "unixgram:///dev/log": "unixgram /dev/log",
	} {
		got, err := ParseSyslog(s)
		if err != nil || got.Network+" "+got.Address != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"logs:514", "http://logs", "udp://", "unixgram://", ""} {
		if got, err := ParseSyslog(s); err == nil {
			t.Errorf("%q was read as %+v", s, got)
		}
	}
	if !strings.Contains((Syslog{Network: "udp", Address: "x:1"}).message(made(1)), " - holdfast ") {
		t.Error("a message without a host has no NILVALUE in its place")
	}
}
