package clickhouse

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
)

func TestConfig(t *testing.T) {
	good := []struct{ url, addr, database string }{
		{"clickhouse://h", "h:9000", "holdfast"},
		{"clickhouse://u:p@h:1/db", "h:1", "db"},
		{"clickhouse://h?secure=true", "h:9440", "holdfast"},
		{"clickhouse://h1,h2:7/db", "h1:9000,h2:7", "db"},
		{"http://h/", "h:8123", "holdfast"},
		{"https://u:p@h", "h:8443", "holdfast"},
		{"clickhouse://[::1]/db", "[::1]:9000", "db"},
	}
	for _, c := range good {
		db, err := New(Config{URL: c.url})
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if db.addr != c.addr || db.target.Database != c.database {
			t.Errorf("%s is %s and %s, want %s and %s", c.url, db.addr, db.target.Database, c.addr, c.database)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	bad := []struct {
		name string
		c    Config
		says string
	}{
		{"no address", Config{}, "scheme"},
		{"no host", Config{URL: "clickhouse:///db"}, "no host"},
		{"an unknown scheme", Config{URL: "mysql://h"}, "scheme"},
		{"a parameter that we do not know", Config{URL: "clickhouse://h?compress=zstd"}, "compress"},
		{"a password that breaks the address is not printed", Config{URL: "clickhouse://u:secret%zz@h/db"}, "percent-encode"},
		{"a database name that is SQL", Config{URL: "clickhouse://h/a;drop"}, "database name"},
		{"a cluster name that is SQL", Config{URL: "clickhouse://h", Cluster: "a'"}, "cluster name"},
		{"too long a retention", Config{URL: "clickhouse://h", KeepDays: 100_000}, "retention"},
		{"HTTPS without password and certificate", Config{URL: "https://h"}, "needs a password"},
		{"certificates without TLS", Config{URL: "clickhouse://h", CAFile: "x"}, "without TLS"},
		{"a CA file that is not there", Config{URL: "https://u:p@h", CAFile: "/nonexistent"}, "ca_file"},
		{"a CA file without a certificate", Config{URL: "https://u:p@h", CAFile: "/dev/null"}, "no PEM"},
		{"a key file that is not there", Config{URL: "https://u:p@h", CertFile: "/nonexistent", KeyFile: "/nonexistent"}, "cert_file"},
	}
	for _, c := range bad {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.c)
			wantErr(t, err, ErrConfig)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v does not say %q", err, c.says)
			}
		})
	}
}

const users = `<clickhouse>
<profiles><default/><one><readonly>1</readonly></one><two><readonly>2</readonly></two></profiles>
<quotas><default/></quotas>
<users>
<default><password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default>
<pw><password>secret</password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></pw>
<ro1><password>secret</password><networks><ip>::/0</ip></networks><profile>one</profile><quota>default</quota></ro1>
<ro2><password>secret</password><networks><ip>::/0</ip></networks><profile>two</profile><quota>default</quota></ro2>
<reader><password>secret</password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota><grants><query>GRANT SELECT ON d.*</query></grants></reader>
</users></clickhouse>`

// TestWrongServer: each way of being wrong has its error, before any record is lost.
func TestWrongServer(t *testing.T) {
	ctx := context.Background()
	s := clickhousetest.New(t, users)
	native := strings.TrimPrefix(s.URL("d"), "clickhouse://default@")
	byHTTP := strings.TrimPrefix(s.HTTPURL("d"), "http://default@")
	if _, err := open(t, s.URL("d")).Apply(ctx); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<html>welcome</html>")
	}))
	t.Cleanup(web.Close)
	noWeb := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(noWeb.Close)

	reach := []struct {
		name, url string
		want      error
	}{
		{"a closed port", "clickhouse://" + closedPort(t), ErrUnreachable},
		{"a closed port by HTTP", "http://" + closedPort(t), ErrUnreachable},
		{"a host that does not exist", "clickhouse://no-such-host.invalid", ErrUnreachable},
		{"a port that accepts and says nothing", "clickhouse://" + listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), ErrUnreachable},
		{"a port that says nothing, by HTTP", "http://" + listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), ErrUnreachable},
		{"a port that hangs up", "clickhouse://" + listen(t, func(net.Conn) {}), ErrUnreachable},
		{"a port that hangs up on HTTP", "http://" + listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }), ErrUnreachable}, // after the request: before it, net/http takes it for an idle connection
		{"an SSH server", "clickhouse://" + listen(t, says("SSH-2.0-OpenSSH_9.2\r\n")), ErrNotClickHouse},
		{"an SSH server by HTTP", "http://" + listen(t, says("SSH-2.0-OpenSSH_9.2\r\n")), ErrNotClickHouse},
		{"a web server", web.URL, ErrNotClickHouse},
		{"a web server without that page", noWeb.URL, ErrNotClickHouse},
		{"a web server by the native protocol", "clickhouse://" + strings.TrimPrefix(web.URL, "http://"), ErrUnreachable}, // it waits for more
		{"the HTTP port by the native protocol", "clickhouse://" + byHTTP, ErrNotClickHouse},
		{"the native port by HTTP", "http://" + native, ErrNotClickHouse},
		{"a wrong password", "clickhouse://pw:wrong@" + native, ErrAuth},
		{"a wrong password by HTTP", "http://pw:wrong@" + byHTTP, ErrAuth},
		{"a user that does not exist", "clickhouse://nobody:secret@" + native, ErrAuth},
		{"a user that does not exist by HTTP", "http://nobody:secret@" + byHTTP, ErrAuth},
		{"ClickHouse 23.3", "clickhouse://" + listen(t, hello(23, 3, 54462)), ErrTooOld},
		{"ClickHouse 1.1 of 2016", "clickhouse://" + listen(t, hello(1, 1, 54000)), ErrTooOld},
		{"TLS to a port without", "clickhouse://" + native + "?secure=true", ErrTLS},
		{"HTTPS to a port without", "https://pw:secret@" + byHTTP, ErrTLS},
	}
	for _, c := range reach {
		t.Run(c.name, func(t *testing.T) {
			db, err := Open(ctx, Config{URL: c.url, DialTimeout: 300 * time.Millisecond})
			wantErr(t, err, c.want)
			if db != nil {
				t.Error("an error and a DB")
			}
			if c.want == ErrAuth || c.want == ErrTLS {
				// This engine ends its process after it has refused a native handshake
				// (an uncaught exception of the library's, which a server does not have).
				s.Kill()
				if err := s.Start(ctx); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	write := []struct {
		name, url string
		ready     error // what Ready says
		read      bool  // questions are answered
	}{
		{"a user with a password may do all", "clickhouse://pw:secret@" + native, nil, true},
		{"the same by HTTP", "http://pw:secret@" + byHTTP, nil, true},
		{"a readonly user is refused for writing, not for reading", "clickhouse://ro2:secret@" + native, ErrReadOnly, true},
		{"a readonly user by HTTP", "http://ro2:secret@" + byHTTP, ErrReadOnly, true},
		{"a strictly readonly user", "clickhouse://ro1:secret@" + native, ErrReadOnly, true},
		{"a user with SELECT alone", "clickhouse://reader:secret@" + native, nil, true},
	}
	for _, c := range write {
		t.Run(c.name, func(t *testing.T) {
			db, err := Open(ctx, Config{URL: c.url})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			wantErr(t, db.Ready(ctx), c.ready)
			if _, _, err := db.Reach(ctx, testHost, 0); (err == nil) != c.read {
				t.Errorf("Reach: %v", err)
			}
			err = db.Send(ctx, "token "+c.name, samples(t, testHost, 1, 2))
			if may := strings.Contains(c.url, "pw:"); may != (err == nil) || !may && !errors.Is(err, ErrReadOnly) {
				t.Errorf("Send: %v", err)
			}
		})
	}
	t.Run("a server that dies while it is used", func(t *testing.T) {
		db, err := Open(ctx, Config{URL: s.URL("d")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		s.Kill()
		if _, _, err = db.Reach(ctx, testHost, 0); err == nil {
			t.Fatal("a dead server answered")
		}
		_, _, err = db.Reach(ctx, testHost, 0)
		wantErr(t, err, ErrUnreachable)
		if err := s.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if _, n, err := db.Reach(ctx, testHost, 0); err != nil || n != 2 {
			t.Errorf("after its restart: newest %d, %v", n, err)
		}
	})
}

// TestTLS: the engine has no TLS; a proxy in front of it has.
func TestTLS(t *testing.T) {
	ctx := context.Background()
	ca, config := certificate(t)
	s := clickhousetest.New(t, users)
	mutual := config.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	leaf, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	mutual.ClientCAs.AddCert(leaf)
	der, err := x509.MarshalPKCS8PrivateKey(config.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	front := func(url string, config *tls.Config) string {
		back := url[strings.Index(url, "@")+1 : strings.LastIndex(url, "/")]
		return listen(t, func(c net.Conn) {
			s := tls.Server(c, config)
			b, err := net.Dial("tcp", back)
			if err != nil {
				return
			}
			defer func() { _ = b.Close() }()
			go func() { _, _ = io.Copy(b, s); _ = b.Close() }()
			_, _ = io.Copy(s, b)
		})
	}
	for name, url := range map[string]string{
		"native": "clickhouse://pw:secret@" + front(s.URL("x"), mutual) + "?secure=true",
		"https":  "https://pw:secret@" + front(s.HTTPURL("x"), mutual),
	} {
		t.Run(name+" with a client certificate where one is wanted", func(t *testing.T) {
			db, err := Open(ctx, Config{URL: url, CAFile: ca, CertFile: ca, KeyFile: keyFile})
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		t.Run(name+" without one", func(t *testing.T) {
			_, err := Open(ctx, Config{URL: url, CAFile: ca})
			wantErr(t, err, ErrTLS)
		})
	}
	for name, url := range map[string]string{
		"native": "clickhouse://pw:secret@" + front(s.URL("x"), config) + "?secure=true",
		"https":  "https://pw:secret@" + front(s.HTTPURL("x"), config),
	} {
		t.Run(name+" with the CA", func(t *testing.T) {
			db, err := Open(ctx, Config{URL: url, CAFile: ca})
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		t.Run(name+" with an unknown CA", func(t *testing.T) {
			_, err := Open(ctx, Config{URL: url})
			wantErr(t, err, ErrTLS)
		})
	}
}

// listen serves each connection of a loopback port by serve and then closes it.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				serve(c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, text)
		_, _ = c.Read(make([]byte, 1024))
	}
}

// hello answers the native handshake as a server of that version does.
func hello(major, minor, revision uint64) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = bufio.NewReader(c).ReadByte()
		text := func(b []byte, s string) []byte { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }
		b := text([]byte{0}, "ClickHouse")
		for _, n := range []uint64{major, minor, revision} {
			b = binary.AppendUvarint(b, n)
		}
		if revision >= 54401 {
			b = binary.AppendUvarint(text(text(b, "UTC"), "old"), 1) // time zone, display name, patch
		}
		if revision >= 54461 {
			b = binary.AppendUvarint(b, 0) // password complexity rules
		}
		if revision >= 54462 {
			b = binary.LittleEndian.AppendUint64(b, 1) // nonce
		}
		_, _ = c.Write(b)
		_, _ = io.Copy(io.Discard, c)
	}
}

// certificate makes a CA that is its own server certificate for 127.0.0.1.
func certificate(t *testing.T) (caFile string, c *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return caFile, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
