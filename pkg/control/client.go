package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
)

// Client asks a running daemon.
type Client struct {
	socket string
	http   *http.Client
}

var _ Handler = (*Client)(nil)

// NewClient returns a client for the socket. It connects when it is first used.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Ping reports whether the daemon listens: nil, ErrNotRunning, ErrForbidden or
// another error.
func (c *Client) Ping(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return c.explain(err)
	}
	return conn.Close()
}

// Status implements Handler.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Restore implements Handler.
func (c *Client) Restore(ctx context.Context, r RestoreRequest) (Outcome, error) {
	return c.post(ctx, "/v1/restore", r)
}

// Undo implements Handler.
func (c *Client) Undo(ctx context.Context, r UndoRequest) (Outcome, error) {
	return c.post(ctx, "/v1/undo", r)
}

// Trust implements Handler.
func (c *Client) Trust(ctx context.Context, r TrustRequest) (Outcome, error) {
	return c.post(ctx, "/v1/trust", r)
}

// Hold implements Handler.
func (c *Client) Hold(ctx context.Context, r HoldRequest) (Outcome, error) {
	return c.post(ctx, "/v1/hold", r)
}

// Window implements Handler.
func (c *Client) Window(ctx context.Context, r WindowRequest) (Outcome, error) {
	return c.post(ctx, "/v1/window", r)
}

// Prune implements Handler.
func (c *Client) Prune(ctx context.Context, r PruneRequest) (Outcome, error) {
	return c.post(ctx, "/v1/prune", r)
}

// Stop implements Handler.
func (c *Client) Stop(ctx context.Context, r StopRequest) (Outcome, error) {
	return c.post(ctx, "/v1/stop", r)
}

// Reindex implements Handler.
func (c *Client) Reindex(ctx context.Context, r ReindexRequest) (Outcome, error) {
	return c.post(ctx, "/v1/reindex", r)
}

func (c *Client) post(ctx context.Context, path string, req any) (Outcome, error) {
	var o Outcome
	b, err := json.Marshal(req)
	if err != nil {
		return o, fmt.Errorf("ask daemon: %w", err)
	}
	err = c.do(ctx, http.MethodPost, path, bytes.NewReader(b), &o)
	return o, err
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader, into any) (err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://holdfast"+path, body)
	if err != nil {
		return fmt.Errorf("ask daemon: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		var f fault
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxRequest)).Decode(&f); err != nil || f.Message == "" {
			return fmt.Errorf("ask daemon: %s answered %s", c.socket, resp.Status)
		}
		return f.err()
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("ask daemon: read answer: %w", err)
	}
	return nil
}

// explain gives the reasons why nobody answers their names.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("socket %s: %w", c.socket, ErrNotRunning)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("socket %s: %w", c.socket, ErrForbidden)
	}
	return fmt.Errorf("ask daemon: %w", err)
}
