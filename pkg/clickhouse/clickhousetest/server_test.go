package clickhousetest

import (
	"context"
	"errors"
	"testing"
)

func TestServer(t *testing.T) {
	ctx := context.Background()
	s := New(t, "")
	s.MustExec(t, "CREATE DATABASE d")
	s.MustExec(t, "CREATE TABLE d.t (n UInt64) ENGINE = MergeTree ORDER BY n")
	s.MustExec(t, "INSERT INTO d.t SELECT number FROM numbers(1000)")

	t.Run("what was inserted survives kill -9 and is served on the same port", func(t *testing.T) {
		s.Kill()
		if _, err := s.Exec(ctx, "SELECT 1"); err == nil {
			t.Fatal("a killed server answered")
		}
		if err := s.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if got := s.MustExec(t, "SELECT count() FROM d.t"); got != "1000" {
			t.Errorf("%s rows after the restart, want 1000", got)
		}
	})
	t.Run("a second start is refused", func(t *testing.T) {
		if err := s.Start(ctx); err == nil {
			t.Error("started twice")
		}
	})
	t.Run("an error of the server is an error of Exec", func(t *testing.T) {
		if _, err := s.Exec(ctx, "SELECT nonsense"); err == nil {
			t.Error("no error")
		}
	})
}

func TestMissingEngine(t *testing.T) {
	t.Setenv("LIBCHDB", t.TempDir()+"/libchdb.so")
	if _, err := Launch(context.Background(), Options{Dir: t.TempDir()}); !errors.Is(err, ErrNoEngine) {
		t.Errorf("got %v, want ErrNoEngine", err)
	}
}
