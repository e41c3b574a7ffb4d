package clickhouse

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"

	"github.com/holdfast/holdfast/schemas"
)

// minVersion is the oldest server that is accepted: text it in the messages too.
const (
	minVersion      = "24.8"
	minMajor        = 24
	minMinor        = 8
	defaultDatabase = "holdfast"
	defaultKeepDays = 400
)

// Config says which server, and how its tables are made.
type Config struct {
	// URL is clickhouse://user:password@host:port/database for the native protocol
	// (?secure=true for TLS) or http:// and https:// for HTTP. Several hosts are
	// separated by commas and tried in order. The database is holdfast if left out.
	URL string
	// Cluster makes the schema for the replicas of this cluster (ON CLUSTER).
	Cluster string
	// KeepDays deletes rows so many days after they arrived: 0 is 400, negative
	// keeps them for ever. Apply brings the tables to it.
	KeepDays int

	CAFile            string // PEM certificates to trust instead of the system's
	CertFile, KeyFile string // PEM client certificate
	DialTimeout       time.Duration
}

// DB is a ClickHouse server with Holdfast's database. It may be used by several
// goroutines at once.
type DB struct {
	conn    driver.Conn
	options *ch.Options
	addr    string // for messages; without credentials
	target  schemas.Target
	eager   bool // in tests: the server is asked as one that is not lazy
}

// New prepares a connection to the server of c without touching the network: what
// it returns an error for is wrong in c.
func New(c Config) (*DB, error) {
	o, database, err := options(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	target, err := c.target(database)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	conn, err := ch.Open(o)
	if err != nil {
		return nil, fmt.Errorf("%w: clickhouse.url: %w", ErrConfig, err)
	}
	return &DB{conn: conn, options: o, addr: strings.Join(o.Addr, ","), target: target}, nil
}

// Open is New and Ping.
func Open(ctx context.Context, c Config) (*DB, error) {
	db, err := New(c)
	if err != nil {
		return nil, err
	}
	if err := db.Ping(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// Close ends the connections.
func (db *DB) Close() error { return db.conn.Close() }

// Ping asks whether a ClickHouse of a known version is there and lets us in. It
// does not look for the tables: Ready does.
func (db *DB) Ping(ctx context.Context) error {
	v, err := db.conn.ServerVersion() // connects; takes no context, DialTimeout bounds it
	if err == nil {
		if tooOld(v.Version) {
			return fmt.Errorf("connect ClickHouse %s: %w (it is %d.%d)", db.addr, ErrTooOld, v.Version.Major, v.Version.Minor)
		}
		err = db.conn.Ping(ctx)
	}
	if err == nil {
		return nil
	}
	// What speaks, but not as ClickHouse does, fails somewhere in the driver's
	// decoding: here, where nothing was asked yet, that is all it can be.
	if _, server := serverCode(err); !server && kindOf(err) == nil && !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w (%w)", ErrNotClickHouse, err)
		return fmt.Errorf("connect ClickHouse %s: %w", db.addr, err)
	}
	return db.explain("connect", err)
}

func tooOld(v proto.Version) bool {
	return v.Major < minMajor || v.Major == minMajor && v.Minor < minMinor
}

// Ready reports whether records can be inserted: Ping, a schema of this version,
// and a user that may write.
func (db *DB) Ready(ctx context.Context) error {
	if err := db.Ping(ctx); err != nil {
		return err
	}
	status, err := db.SchemaStatus(ctx)
	if err != nil {
		return err
	}
	for _, m := range status {
		if m.State == Pending {
			return fmt.Errorf("check ClickHouse %s: %w (%s is pending)", db.addr, ErrNoSchema, m.Name)
		}
	}
	var readonly string
	if err := db.conn.QueryRow(ctx, "SELECT toString(getSetting('readonly'))").Scan(&readonly); err != nil {
		return db.explain("check", err)
	}
	if readonly != "0" {
		return fmt.Errorf("check ClickHouse %s: %w (its profile has readonly = %s)", db.addr, ErrReadOnly, readonly)
	}
	return nil
}

func (c Config) target(database string) (schemas.Target, error) {
	keep := c.KeepDays
	switch {
	case keep == 0:
		keep = defaultKeepDays
	case keep < 0:
		keep = 0
	}
	t := schemas.Target{Database: database, Cluster: c.Cluster, KeepDays: keep}
	return t, t.Check()
}

// options translates c for the driver. Its own reading of URLs is not used: it
// takes whatever it does not know for a server setting.
func options(c Config) (*ch.Options, string, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		// The cause would print the URL with the password in it.
		return nil, "", errors.New("clickhouse.url cannot be read: percent-encode special characters in user and password")
	}
	o := &ch.Options{
		Auth:         ch.Auth{Username: u.User.Username()},
		DialTimeout:  c.DialTimeout,
		Compression:  &ch.Compression{Method: ch.CompressionLZ4},
		MaxOpenConns: 4,
		MaxIdleConns: 2,
		ClientInfo:   ch.ClientInfo{Products: []struct{ Name, Version string }{{Name: "holdfast"}}},
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = 5 * time.Second
	}
	o.Auth.Password, _ = u.User.Password()
	secure, port := false, ""
	switch u.Scheme {
	case "clickhouse":
		port = "9000"
	case "http":
		o.Protocol, port = ch.HTTP, "8123"
	case "https":
		o.Protocol, secure, port = ch.HTTP, true, "8443"
	default:
		return nil, "", fmt.Errorf("clickhouse.url: scheme %q: want clickhouse, http or https", u.Scheme)
	}
	for k, v := range u.Query() {
		if k != "secure" || u.Scheme != "clickhouse" || v[0] != "true" && v[0] != "false" {
			return nil, "", fmt.Errorf("clickhouse.url: parameter %s=%s: only secure=true with clickhouse:// is known", k, v[0])
		}
		if v[0] == "true" {
			secure, port = true, "9440"
		}
	}
	for _, h := range strings.Split(u.Host, ",") {
		addr, err := address(h, port)
		if err != nil {
			return nil, "", err
		}
		o.Addr = append(o.Addr, addr)
	}
	if o.TLS, err = tlsConfig(c, secure); err != nil {
		return nil, "", err
	}
	if u.Scheme == "https" && o.Auth.Password == "" && c.CertFile == "" {
		// The driver takes this for a log-in by certificate, which the server then misses.
		return nil, "", errors.New("clickhouse.url: https:// needs a password, or clickhouse.cert_file and key_file to log in by certificate")
	}
	database := strings.Trim(u.Path, "/")
	if database == "" {
		database = defaultDatabase
	}
	return o, database, nil
}

func address(host, port string) (string, error) {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host, nil
	}
	host = strings.Trim(host, "[]")
	if host == "" {
		return "", errors.New("clickhouse.url: no host: want clickhouse://user:password@host:port/database")
	}
	return net.JoinHostPort(host, port), nil
}

func tlsConfig(c Config, secure bool) (*tls.Config, error) {
	if !secure {
		if c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" {
			return nil, errors.New("clickhouse.ca_file, cert_file or key_file without TLS: use https:// or ?secure=true")
		}
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("clickhouse.ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("clickhouse.ca_file %s: no PEM certificate in it", c.CAFile)
		}
	}
	if c.CertFile != "" || c.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("clickhouse.cert_file and key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}
