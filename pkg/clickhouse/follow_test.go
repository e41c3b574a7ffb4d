package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// What arrives while that is given which was there is given once, whether the walk met it or not: of a later and an
// earlier record of one host it may meet only the later.
func TestFollowGivesOnceWhatArrivesDuringTheWalk(t *testing.T) {
	db := newDB(t)
	at := func(hostID string, seq uint64, time event.Time) []byte {
		r := sample(hostID, seq)
		r.Time, r.TimeEnd = time, time
		return encode(t, r)
	}
	const each = 4000 // so many that the walk takes several windows of time
	send(t, db, "a", samples(t, "a", 1, each)...)
	send(t, db, "b", samples(t, "b", 1, each)...)
	done := errors.New("all has come")
	given := map[string]int{}
	quiet := 0
	err := db.Follow(t.Context(), query.Filter{}, func(r *event.Record) error {
		if len(given) == 0 { // one before where the walk is, which it does not see, and one that it will
			send(t, db, "late", at("a", each+1, testTime-1), at("a", each+2, sample("a", each).Time-1))
		}
		given[fmt.Sprint(r.HostID, r.Seq)]++
		return nil
	}, func(error) error {
		if quiet++; len(given) == 2*each+2 && quiet > 2 || quiet > 60 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) || len(given) != 2*each+2 {
		t.Errorf("%d records, want %d: %v", len(given), 2*each+2, err)
	}
	for id, n := range given {
		if n != 1 {
			t.Errorf("%s was given %d times", id, n)
		}
	}
}

// A server that goes away and comes back: nothing is lost, nothing comes twice, and the trouble is told.
func TestFollowGoesOnWhenTheServerIsBack(t *testing.T) {
	s := clickhousetest.New(t, "")
	db := open(t, s.URL("away"))
	send(t, db, "1", samples(t, "a", 1, 3)...)
	ctx, done := context.Background(), errors.New("all has come")
	var got []string
	var troubles int
	step := 0
	err := db.Follow(ctx, query.Filter{}, func(r *event.Record) error {
		got = append(got, fmt.Sprint(r.HostID, r.Seq))
		return nil
	}, func(trouble error) error {
		switch {
		case step == 0:
			send(t, db, "2", samples(t, "a", 4, 6)...)
			step++
		case step == 1 && len(got) == 6:
			s.Kill()
			step++
		case step == 2 && trouble != nil:
			if !errors.Is(trouble, ErrUnreachable) {
				return trouble
			}
			if troubles++; troubles == 2 {
				if err := s.Start(ctx); err != nil {
					return err
				}
				send(t, db, "3", append(samples(t, "a", 7, 9), samples(t, "b", 1, 2)...)...)
				step++
			}
		case step == 3 && len(got) >= 11:
			return done
		}
		return nil
	})
	slices.Sort(got)
	if want := "a1 a2 a3 a4 a5 a6 a7 a8 a9 b1 b2"; !errors.Is(err, done) || strings.Join(got, " ") != want {
		t.Errorf("%s, %v; want %s", strings.Join(got, " "), err, want)
	}
}

// Trouble that another look does not end is told at once.
func TestFollowEndsWithWhatDoesNotPass(t *testing.T) {
	db := newDB(t)
	send(t, db, "1", samples(t, "a", 1, 3)...)
	err := db.Follow(t.Context(), query.Filter{}, func(*event.Record) error { return nil }, func(trouble error) error {
		server.MustExec(t, "DROP TABLE IF EXISTS "+db.target.Database+".records")
		server.MustExec(t, "INSERT INTO "+db.target.Database+".hosts (host_id, last_seq) VALUES ('b', 9)")
		return trouble
	})
	wantErr(t, err, ErrNoSchema)
}
