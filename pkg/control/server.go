package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxRequest bounds a request's body: a million paths are an error, not memory.
const maxRequest = 16 << 20

// Peer is the process at the other end of the socket, as the kernel knows it.
type Peer struct {
	PID int32
	UID uint32
	GID uint32
}

type peerKey struct{}

// PeerFrom returns who asks, from the context that a Handler is called with. It
// is false when the call did not come through the socket.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// Server answers on a socket until its context ends.
type Server struct {
	handler Handler
	log     *slog.Logger
	uid     uint32 // the one user who may ask
}

// NewServer returns a server for the user that runs this process, which for a
// daemon is root. A nil log discards.
func NewServer(h Handler, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{handler: h, log: log, uid: uint32(os.Geteuid())}
}

// Listen creates the socket with mode 0600. A socket that nobody answers is
// replaced; anything else at path is left alone.
func Listen(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// bind(2) gives the socket file the mode of the socket's own inode less the
		// umask (linux v6.1 net/unix/af_unix.c:unix_bind_bsd), so that it never
		// exists with another one.
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// removeStale removes a socket that was left behind.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("listen %s: a file that is no socket is in the way", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		if err := c.Close(); err != nil {
			return fmt.Errorf("listen %s: %w", path, err)
		}
		return fmt.Errorf("listen %s: %w", path, ErrInUse)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// Serve answers on l until ctx ends, then lets running requests finish for a
// moment. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := srv.Shutdown(grace)
	if err != nil {
		err = errors.Join(err, srv.Close())
	}
	<-done
	return err
}

// withPeer asks the kernel who opened the connection. Without an answer the
// connection has no peer and every request on it is refused.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || cerr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid})
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		st, err := s.handler.Status(r.Context())
		s.answer(w, st, err)
	})
	mux.HandleFunc("POST /v1/restore", post(s, s.handler.Restore))
	mux.HandleFunc("POST /v1/undo", post(s, s.handler.Undo))
	mux.HandleFunc("POST /v1/trust", post(s, s.handler.Trust))
	mux.HandleFunc("POST /v1/hold", post(s, s.handler.Hold))
	mux.HandleFunc("POST /v1/window", post(s, s.handler.Window))
	mux.HandleFunc("POST /v1/prune", post(s, s.handler.Prune))
	mux.HandleFunc("POST /v1/stop", post(s, s.handler.Stop))
	mux.HandleFunc("POST /v1/reindex", post(s, s.handler.Reindex))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := PeerFrom(r.Context()); !ok || p.UID != s.uid {
			s.log.Warn("control: request refused", "uid", p.UID, "pid", p.PID)
			s.answer(w, nil, ErrForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func post[Req any](s *Server, do func(context.Context, Req) (Outcome, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req Req
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&req); err != nil {
			s.answer(w, nil, fmt.Errorf("%w: %w", ErrInvalid, err))
			return
		}
		o, err := do(r.Context(), req)
		s.answer(w, o, err)
	}
}

// answer writes v, or err as a fault. The status code is for people who try the
// socket with curl; Client reads the fault.
func (s *Server) answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		f := faultOf(err)
		w.WriteHeader(map[string]int{"not_found": 404, "invalid": 400, "busy": 409, "forbidden": 403, "failed": 500}[f.Kind])
		v = f
	}
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Warn("control: answer not delivered", "err", err)
	}
}
