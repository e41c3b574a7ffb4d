package daemon_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/daemon"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/vmtests/holdtest"
)

// daemonConfig makes this test binary a daemon: it holds a config.Config.
const daemonConfig = "HOLDFAST_TEST_DAEMON"

func TestMain(m *testing.M) {
	holdtest.Main()
	text := os.Getenv(daemonConfig)
	if text == "" {
		os.Exit(m.Run())
	}
	var cfg config.Config
	err := json.Unmarshal([]byte(text), &cfg)
	if err == nil {
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
		err = daemon.Run(context.Background(), cfg, daemon.Options{Version: "test", Log: log})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// spawn starts a daemon process and waits until it is armed.
func spawn(t testing.TB, cfg config.Config) *exec.Cmd {
	t.Helper()
	c := launch(t, cfg)
	client := control.NewClient(cfg.Socket)
	for range 600 {
		if st, err := client.Status(t.Context()); err == nil && st.Armed {
			return c
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("daemon is not armed after half a minute")
	return nil
}

// launch starts a daemon process.
func launch(t testing.TB, cfg config.Config) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), daemonConfig+"="+string(text))
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func kill(t testing.TB, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) {
		t.Fatalf("killed daemon: %v", err)
	}
}

func TestRowsEqualTheJournalAfterTheDaemonWasKilledTenTimesWhileShipping(t *testing.T) {
	server := clickhousetest.New(t, "")
	top := t.TempDir()
	tree := filepath.Join(top, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.State, cfg.Socket = filepath.Join(top, "state"), filepath.Join(top, "socket")
	cfg.ClickHouse.URL = server.URL("holdfast")
	rule, err := policy.ParseWatch(tree + "=" + event.ModeObserve)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Rules = []policy.Rule{rule}
	db, err := clickhouse.New(clickhouse.Config{URL: cfg.ClickHouse.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Programs change files without a pause, over all lives of the daemon.
	script := `i=0; while [ -d "$1" ]; do i=$((i+1)); echo $i > "$1/f$((i%50))"; [ $((i%7)) = 0 ] && rm -f "$1/f$((i%50))"; done`
	load := exec.Command("sh", "-c", script, "sh", tree)
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	stopLoad := func() {
		if load.Process != nil && load.ProcessState == nil {
			load.Process.Kill()
			load.Wait() // killed: says so
		}
	}
	defer stopLoad()
	for i := range 10 {
		c := spawn(t, cfg)
		time.Sleep(time.Duration(100+rand.IntN(900)) * time.Millisecond)
		kill(t, c)
		// This engine may end when a client hangs up in the middle of an answer: one
		// more outage for the next life to survive.
		if err := server.Revive(t.Context()); err != nil {
			t.Fatal(err)
		}
		rows, err := server.Exec(t.Context(), "SELECT count() FROM holdfast.records")
		t.Logf("life %d: %s rows (%v)", i+1, rows, err)
	}
	stopLoad()
	last := spawn(t, cfg)
	defer kill(t, last)
	client := control.NewClient(cfg.Socket)
	var st control.Status
	for range 300 {
		if st, err = client.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := server.Revive(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st.Ship.Connected && st.Ship.Lag == 0 && st.Ship.Shipped == st.Journal.Seq && st.Journal.Seq > 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if st.Ship.Lag != 0 {
		t.Fatalf("shipping does not catch up: %+v", st.Ship)
	}
	sameRows(t, server, db, cfg, st.HostID)
}

// sameRows compares the rows with the journal twice: by our own comparison, and
// by counting.
func sameRows(t *testing.T, server *clickhousetest.Server, db *clickhouse.DB, cfg config.Config, hostID string) {
	t.Helper()
	r, err := journal.OpenReader(cfg.JournalDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var n uint64
	next := func(ctx context.Context) (uint64, []byte, error) {
		e, err := r.Next(ctx)
		if err != nil {
			return 0, nil, io.EOF
		}
		n++
		return e.Seq, e.Bytes, nil
	}
	c, err := db.Compare(t.Context(), hostID, 1, 0, next, func(d clickhouse.Difference) { t.Error(d) })
	if err != nil || !c.Clean() {
		t.Errorf("compare: %+v, %v", c, err)
	}
	for _, q := range []string{
		"SELECT count() FROM holdfast.records", "SELECT uniqExact(host_id, boot, seq) FROM holdfast.records",
		"SELECT count() FROM holdfast.records FINAL", "SELECT max(seq) FROM holdfast.records",
	} {
		if got := server.MustExec(t, q); got != strconv.FormatUint(n, 10) {
			t.Errorf("%s: %s, the journal has %d records", q, got, n)
		}
	}
	sum, err := journal.Verify(t.Context(), cfg.JournalDir(), "", func(p journal.Problem) { t.Error(p) })
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d records, %d rows, %d verified", n, c.Rows, sum.Records)
	if n < 100 {
		t.Errorf("only %d records: the load did not run", n)
	}
}
