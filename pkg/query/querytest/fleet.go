package querytest

import (
	"context"
	"path"
	"reflect"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// RunFleet tests a store that holds those records, host by host and each by sequence,
// with the questions that people have about what they see: each is made of a record.
func RunFleet(t *testing.T, s query.Store, records []*event.Record) {
	t.Helper()
	ctx := context.Background()
	asked, answered := 0, 0
	try := func(f query.Filter) {
		t.Helper()
		got, want := ask(t, s, f), answer(records, f)
		asked++
		if len(want) > 0 {
			answered++
		}
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || !reflect.DeepEqual(got[i], want[i]) {
				t.Fatalf("%+v: %d records, want %d; they differ from number %d on", f, len(got), len(want), i)
			}
		}
	}
	try(query.Filter{})
	try(query.Filter{Limit: 10})
	try(query.Filter{Limit: len(records) / 2})
	for _, r := range chosen(records) {
		for _, f := range about(r) {
			try(f)
			f.Limit = 5
			try(f)
			f.Kind, f.Since, f.Until = r.Kind, r.Time-3*24*3600*1e9, r.Time+1
			try(f)
		}
	}
	if answered < asked*9/10 {
		t.Errorf("only %d of %d questions have an answer", answered, asked)
	}
	for _, f := range []query.Filter{{}, {User: "alice"}, {Verdict: event.VerdictUnauthorized, Limit: 20}} {
		got, err := query.Sessions(ctx, s, f)
		want, _ := query.Sessions(ctx, List(records), f) // a list does not fail
		if err != nil || len(want) == 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("sessions of %+v: %d, %v; want %d", f, len(got), err, len(want))
		}
	}
	for _, r := range chosen(records) {
		if r.Kind == event.RecChange {
			got, err := query.Who(ctx, s, r.Path, r.Host)
			want, _ := query.Who(ctx, List(records), r.Path, r.Host)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("who changed %s: %+v, %v; want %+v", r.Path, got, err, want)
			}
		}
		got, err := query.Get(ctx, s, r.ID)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("record %s: %+v, %v", r.ID, got, err)
		}
	}
}

// chosen is the last record of each kind and verdict.
func chosen(records []*event.Record) (out []*event.Record) {
	last := map[[2]string]*event.Record{}
	for _, r := range records {
		last[[2]string{r.Kind, r.Verdict}] = r
	}
	for _, r := range records {
		if last[[2]string{r.Kind, r.Verdict}] == r {
			out = append(out, r)
		}
	}
	return out
}

// about makes the questions of a record that select it.
func about(r *event.Record) (out []query.Filter) {
	out = []query.Filter{{Host: r.Host}, {Host: r.HostID, AfterSeq: r.Seq - 1}, {Verdict: r.Verdict, Rule: r.Rule}, {Found: r.Found, Op: r.Op}}
	if r.Path != "" {
		dir, base := path.Split(r.Path)
		out = append(out, query.Filter{Path: r.Path}, query.Filter{Path: dir}, query.Filter{Path: "**" + base[:min(5, len(base))] + "**"}, query.Filter{Path: dir + "*"})
	}
	if a := r.Actor; a != nil {
		out = append(out, query.Filter{User: a.User, Session: a.Session}, query.Filter{Source: a.SourceIP, User: a.User})
	}
	if p := r.Process; p != nil {
		out = append(out, query.Filter{Exec: p.ExecID}, query.Filter{Exe: path.Base(p.Exe)}, query.Filter{Exe: p.Exe})
		if len(p.Argv) > 1 {
			out = append(out, query.Filter{Command: p.Argv[0] + " " + p.Argv[1][:min(3, len(p.Argv[1]))]})
		}
	}
	return out
}
