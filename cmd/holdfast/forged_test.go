package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
)

const evil = "/x\x1b[2J\u009b2J\nforged: line"

// poison puts evil into every text of a value.
func poison(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(evil)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		poison(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				poison(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		poison(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		val := reflect.New(v.Type().Elem()).Elem()
		poison(val)
		if v.Type().Key().Kind() == reflect.String {
			v.SetMapIndex(reflect.ValueOf(evil).Convert(v.Type().Key()), val)
		}
	case reflect.Uint8:
		v.SetUint('\n')
	case reflect.Bool:
		v.SetBool(true)
	}
}

func TestNoTextOfARecordSteersTheTerminalOrMakesALineOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	j, err := journal.Open(filepath.Join(state, "journal"), filepath.Join(state, "keys"), journal.Options{HostID: "h1", Host: "web1", Boot: "b1"})
	must(err)
	seq := 0
	for _, kind := range []string{event.RecChange, event.RecAttempt, event.RecResponse, event.RecGap, event.RecExec, event.RecAgent, event.RecSession} {
		var r event.Record
		poison(reflect.ValueOf(&r).Elem())
		r.Kind, r.Time, r.TimeEnd, r.Path = kind, 1_700_000_000_000_000_000, 1_700_000_000_000_000_000, event.Text([]byte("/srv/a\nforged: path"))
		if _, err := j.Append(&r); err != nil {
			t.Fatal(err)
		}
		seq++
	}
	must(j.Close())
	config := filepath.Join(dir, "holdfast.yaml")
	must(os.WriteFile(config, []byte("state: "+state+"\nsocket: "+filepath.Join(dir, "sock")+"\n"), 0o600))
	// A checkpoint that nobody signed is named, and its name told.
	must(os.WriteFile(filepath.Join(state, "journal", "checkpoints"), nil, 0o600))
	note, err := os.ReadFile(filepath.Join(state, "journal", "checkpoint"))
	must(err)
	must(os.WriteFile(filepath.Join(state, "journal", "checkpoint"), bytes.ReplaceAll(note, []byte("/h1\n"), []byte("/h1\x1b[2J\n")), 0o600))
	for _, args := range [][]string{{"index", "rebuild"}, {"log"}, {"show", "1"}, {"show", "3"}, {"show", "5"}, {"who", "/srv/a\nforged: path"}, {"sessions"}, {"sessions", "--session", evil}, {"tree", evil}, {"verify"}} {
		var out, errs bytes.Buffer
		a := &app{file: config, out: &out, err: &errs, now: time.Now, noColor: true}
		code := a.main(context.Background(), append([]string{"holdfast"}, args...))
		if want := map[string]int{"verify": 6}[args[0]]; code != want {
			t.Errorf("%q: exit %d: %s", args, code, &errs)
		}
		for line := range strings.Lines(out.String() + errs.String()) {
			if strings.ContainsAny(line, "\x1b\u009b") || strings.HasPrefix(line, "forged") || strings.HasPrefix(line, "  forged") {
				t.Errorf("%q: %q", args, line)
			}
		}
	}
}
