package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
)

// server is shared by the tests of this package; each test takes a database of its
// own. It is started by TestMain and not changed after.
var server *clickhousetest.Server

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "clickhouse-test-")
	if err == nil {
		server, err = clickhousetest.Launch(context.Background(), clickhousetest.Options{Dir: dir})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	server.Kill()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var databases atomic.Int64

func newDatabase() string { return fmt.Sprintf("t%d", databases.Add(1)) }

// open connects to a new database with the schema in it, which keeps its rows for ever.
func open(t testing.TB, url string) *DB {
	t.Helper()
	db, err := Open(context.Background(), Config{URL: url, KeepDays: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := db.Apply(context.Background()); err != nil {
		t.Fatal(err)
	}
	return db
}

func newDB(t testing.TB) *DB { return open(t, server.URL(newDatabase())) }

const (
	testHost = "8a7f6f1d2c3b4a59687a8b9c0d1e2f30"
	testBoot = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
)

var testTime = event.TimeOf(time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC))

// sample is an ordinary record.
func sample(hostID string, seq uint64) *event.Record {
	return &event.Record{
		ID: fmt.Sprintf("%s/%s/%d", hostID, testBoot, seq), Host: "web1", HostID: hostID, Boot: testBoot, Seq: seq,
		Time: testTime + event.Time(seq)*1_000_003, TimeEnd: testTime + event.Time(seq)*1_000_003 + 17,
		Kind: event.RecChange, Op: "write", Ops: []string{"create", "write"}, Count: 2, Bytes: seq,
		Path: fmt.Sprintf("/etc/app/conf.d/%d.conf", seq%50), Rule: "etc", Mode: event.ModeObserve, Verdict: event.VerdictObserved,
		File:   &event.File{Type: event.TypeRegular, Dev: 8, Ino: seq, Nlink: 1},
		Before: &event.State{},
		After: &event.State{Exists: true, Type: event.TypeRegular, Hash: event.Hash{byte(seq), byte(seq >> 8), 3}, Size: seq, Mode: 0o644,
			User: "root", Group: "root", Mtime: testTime},
		Actor: &event.Actor{User: "alice", Loginuid: 1000, Via: []string{"sudo"}, Session: "s7", Origin: event.OriginSSH,
			SourceIP: "192.0.2.7", SourcePort: 50022, Evidence: event.EvidenceAccepted},
		Process: &event.Process{PID: 4242, TID: 4242, ExecID: "4242-1", Comm: "sed", Exe: "/usr/bin/sed", Argv: []string{"sed", "-i", "s/a/b/", "x"},
			Cwd: "/root", Start: testTime, Unit: "ssh.service", Cgroup: "/system.slice/ssh.service", MntNS: "4026531841",
			Ancestors: []event.Ancestor{{PID: 4000, Exe: "/usr/bin/bash", Argv: []string{"-bash"}, User: "root"}, {PID: 3999, Exe: "/usr/sbin/sshd", User: "root"}}},
		Sensor: &event.Sensor{Tier: "tracepoint", Hook: "sys_exit"},
	}
}

func encode(t testing.TB, r *event.Record) []byte {
	t.Helper()
	b, err := journal.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func samples(t testing.TB, hostID string, first, last uint64) [][]byte {
	t.Helper()
	var out [][]byte
	for i := first; i <= last; i++ {
		out = append(out, encode(t, sample(hostID, i)))
	}
	return out
}

// journalOf plays the records to Compare.
func journalOf(first uint64, records [][]byte) NextRecord {
	i := 0
	return func(context.Context) (uint64, []byte, error) {
		if i == len(records) {
			return 0, nil, io.EOF
		}
		i++
		return first + uint64(i-1), records[i-1], nil
	}
}

// fill sets every field that can be reached to a value that no other field has.
func fill(v reflect.Value, next *uint64) {
	*next++
	n := *next
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), next)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), next)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8:
		v.SetUint(n % 251)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(n)
	case reflect.Int64:
		v.SetInt(int64(testTime) + int64(n))
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(n % 251)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(fmt.Appendf(nil, "bytes %d", n))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), next)
		}
	case reflect.Map:
		key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, next)
		fill(val, next)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, val)
	default:
		panic("fill: " + v.Kind().String())
	}
}

// full is a record with every field set.
func full() *event.Record {
	r, n := &event.Record{}, uint64(0)
	fill(reflect.ValueOf(r).Elem(), &n)
	r.ID = fmt.Sprintf("%s/%s/%d", r.HostID, r.Boot, r.Seq)
	r.Actor.SourceIP = "2001:db8::7"
	for _, s := range []*event.State{r.Before, r.After} {
		s.Flags &= 0x30
		s.Xattrs[event.XattrACL] = event.Bytes("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff")
		s.Xattrs[event.XattrCaps] = event.Bytes("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	}
	return r
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("error %v, want %v", got, want)
	}
	if got != nil && (strings.Contains(got.Error(), "secret") || strings.Contains(got.Error(), "\n")) {
		t.Errorf("the error tells the password or is not one line: %q", got)
	}
}
