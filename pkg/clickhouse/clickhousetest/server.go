package clickhousetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// ErrNoEngine says that libchdb.so is not there.
var ErrNoEngine = errors.New("the ClickHouse engine is missing: run make engine")

// Options say how a server starts.
type Options struct {
	Dir   string // data directory; it must exist
	Users string // content of users.xml; "" is a default user without password
}

// Server is one ClickHouse on loopback.
type Server struct {
	launcher, lib string
	o             Options
	tcp, http     int

	mu    sync.Mutex
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{} // closed when the process is reaped
	log   *tail
}

// New starts a server for the test, with a directory of its own, and kills it at
// the test's end.
func New(tb testing.TB, users string) *Server {
	tb.Helper()
	s, err := Launch(context.Background(), Options{Dir: tb.TempDir(), Users: users})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Kill)
	return s
}

// Launch starts a server and waits until it answers. The caller ends it by Kill.
func Launch(ctx context.Context, o Options) (*Server, error) {
	lib, err := engine()
	if err != nil {
		return nil, err
	}
	bin, err := buildLauncher(ctx, filepath.Dir(lib))
	if err != nil {
		return nil, err
	}
	s := &Server{launcher: bin, lib: lib, o: o}
	if s.tcp, err = freePort(); err != nil {
		return nil, err
	}
	if s.http, err = freePort(); err != nil {
		return nil, err
	}
	return s, s.Start(ctx)
}

// Start starts the process again after Kill, on the same directory and ports.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return errors.New("start ClickHouse: it runs already")
	}
	args := []string{"-lib", s.lib, "-dir", filepath.Join(s.o.Dir, "data"),
		"-tcp", fmt.Sprint(s.tcp), "-http", fmt.Sprint(s.http)}
	if s.o.Users != "" {
		conf, err := writeConfig(s.o)
		if err != nil {
			return err
		}
		args = append(args, "-config", conf)
	}
	s.log = &tail{}
	cmd := exec.Command(s.launcher, args...)
	cmd.Dir = s.o.Dir
	cmd.Stdout, cmd.Stderr = s.log, s.log
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its end is the news; the exit status of a killed process says nothing
		close(done)
	}()
	s.cmd, s.stdin, s.done = cmd, in, done
	if err := s.ready(ctx); err != nil {
		s.kill()
		return fmt.Errorf("start ClickHouse: %w\n%s", err, s.log)
	}
	return nil
}

// Kill ends the process with SIGKILL and waits for its end. Clients see a reset
// connection; the directory stays. Killing a server that is not running is fine.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

func (s *Server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may be gone already
	<-s.done
	_ = s.stdin.Close()
	s.cmd = nil
}

// Revive starts the server again if it has ended by itself, which this engine does
// where a server only logs: when it has refused a native handshake, and when a
// client hangs up with an answer unread.
func (s *Server) Revive(ctx context.Context) error {
	s.mu.Lock()
	ended := false
	if s.cmd != nil {
		select {
		case <-s.done:
			s.kill()
			ended = true
		default:
		}
	}
	s.mu.Unlock()
	if !ended {
		return nil
	}
	return s.Start(ctx)
}

// URL is the server's address in the native protocol with a database in it.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("clickhouse://default@127.0.0.1:%d/%s", s.tcp, database)
}

// HTTPURL is the same by HTTP.
func (s *Server) HTTPURL(database string) string {
	return fmt.Sprintf("http://default@127.0.0.1:%d/%s", s.http, database)
}

// Exec runs one statement over HTTP, beside whatever client is under test, and
// returns the answer in TabSeparated, without the last newline.
func (s *Server) Exec(ctx context.Context, query string) (string, error) {
	u := fmt.Sprintf("http://127.0.0.1:%d/?%s", s.http, url.Values{"default_format": {"TabSeparated"}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, strings.NewReader(query))
	if err != nil {
		return "", fmt.Errorf("exec: %w", err)
	}
	req.Close = true // a kept connection may be one that the server is just closing
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("exec: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "", fmt.Errorf("exec: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("exec %.60q: %s", query, bytes.TrimSpace(b))
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// MustExec is Exec for tests.
func (s *Server) MustExec(tb testing.TB, query string) string {
	tb.Helper()
	out, err := s.Exec(context.Background(), query)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// ready waits until both listeners accept.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, port := range []int{s.tcp, s.http} {
		for {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				_ = c.Close()
				break
			}
			select {
			case <-s.done:
				return errors.New("it ended at once")
			case <-ctx.Done():
				return fmt.Errorf("no answer: %w", ctx.Err())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

func writeConfig(o Options) (string, error) {
	users := filepath.Join(o.Dir, "users.xml")
	conf := filepath.Join(o.Dir, "config.xml")
	text := "<clickhouse><user_directories><users_xml><path>" + users + "</path></users_xml></user_directories></clickhouse>\n"
	if err := os.WriteFile(users, []byte(o.Users), 0o600); err != nil {
		return "", fmt.Errorf("configure ClickHouse: %w", err)
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("configure ClickHouse: %w", err)
	}
	return conf, nil
}

// freePort asks the system for a port that nobody has now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// tail keeps the last part of what the engine says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - 16<<10; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
