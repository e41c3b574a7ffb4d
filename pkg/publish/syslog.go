package publish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
)

// Syslog sends each note as one message of RFC 5424, facility authpriv, severity notice:
//
//	<85>1 TIME HOST holdfast PID checkpoint - checkpoint of …: size … note64=…
//
// One datagram each (RFC 5426), or over TCP with its length before it (RFC 6587 section 3.4.1).
type Syslog struct {
	Network string // unixgram, udp or tcp
	Address string
	Host    string // host name in the messages
}

var _ Place = Syslog{}

// ParseSyslog reads unixgram:///dev/log, udp://HOST:PORT or tcp://HOST:PORT.
func ParseSyslog(s string) (Syslog, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Syslog{}, fmt.Errorf("syslog address: %w", err)
	}
	out := Syslog{Network: u.Scheme, Address: u.Host}
	switch u.Scheme {
	case "unixgram":
		out.Address = u.Path
	case "udp", "tcp":
		if u.Port() == "" {
			out.Address = net.JoinHostPort(u.Hostname(), map[string]string{"udp": "514", "tcp": "601"}[u.Scheme])
		}
	default:
		return Syslog{}, fmt.Errorf("syslog address %q: use unixgram:///dev/log, udp://HOST:PORT or tcp://HOST:PORT", s)
	}
	if out.Address == "" || strings.HasPrefix(out.Address, ":") {
		return Syslog{}, fmt.Errorf("syslog address %q: no host", s)
	}
	return out, nil
}

// Name implements Place.
func (s Syslog) Name() string { return s.Network + "://" + s.Address }

// Send implements Place. Only TCP can tell that nobody listens on another host, and none that the message was kept.
func (s Syslog) Send(ctx context.Context, notes []Note) (err error) {
	conn, err := new(net.Dialer).DialContext(ctx, s.Network, s.Address)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	for _, n := range notes {
		m := s.message(n)
		if s.Network == "tcp" {
			m = fmt.Sprintf("%d %s", len(m), m)
		}
		if _, err := conn.Write([]byte(m)); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

func (s Syslog) message(n Note) string {
	const authprivNotice = 10*8 + 5
	host := s.Host
	if host == "" {
		host = "-"
	}
	return fmt.Sprintf("<%d>1 %s %s holdfast %d checkpoint - %s", authprivNotice, n.Time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"), host, os.Getpid(), n.Line)
}
