package clickhouse

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"
)

// What can be wrong with a server or with how it is set up. Each text ends with
// what to do.
var (
	ErrConfig        = errors.New("wrong ClickHouse setting")
	ErrUnreachable   = errors.New("the server does not answer: check the address in clickhouse.url and that the server runs")
	ErrTLS           = errors.New("no secure connection: check clickhouse.ca_file, cert_file and key_file against the server's certificate, or the port")
	ErrAuth          = errors.New("the server refuses the user or password: check them in clickhouse.url (percent-encode special characters)")
	ErrNotClickHouse = errors.New("what answers is not ClickHouse, or not this protocol: use clickhouse:// with the native port (9000, with TLS 9440) or http:// and https:// with the HTTP port (8123, 8443)")
	ErrTooOld        = errors.New("the server is too old: upgrade it to ClickHouse " + minVersion + " or later")
	ErrReadOnly      = errors.New("the user may not write: use a user with INSERT and SELECT on the database, and for holdfast schema apply with CREATE too (to read only, a profile with readonly = 2, not 1, is enough)")
	ErrNoSchema      = errors.New("the database has not the tables of this version: run holdfast schema apply")
	ErrEdited        = errors.New("a migration that was applied differs from this program's: use the holdfast version that applied it, or a newer one")
	ErrNewerSchema   = errors.New("a newer holdfast has changed the database: upgrade this one")
)

// Server error codes (ClickHouse src/Common/ErrorCodes.cpp).
const (
	codeNoSuchColumn         = 16
	codeUnknownIdentifier    = 47
	codeUnknownTable         = 60
	codeUnknownDatabase      = 81
	codeReadonly             = 164
	codeUnknownUser          = 192
	codeWrongPassword        = 193
	codeRequiredPassword     = 194
	codeAccessDenied         = 497
	codeAuthenticationFailed = 516
)

// explain wraps what the driver returned for op so that it names the cause.
// Cancellation stays what it is.
func (db *DB) explain(op string, err error) error {
	if err == nil {
		return nil
	}
	op = fmt.Sprintf("%s ClickHouse %s", op, db.addr)
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", op, err)
	}
	if kind := kindOf(err); kind != nil {
		return fmt.Errorf("%s: %w (%w)", op, kind, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// kindOf maps an error of the driver to one of the Err values, or nil.
func kindOf(err error) error {
	if code, ok := serverCode(err); ok {
		switch code {
		case codeUnknownUser, codeWrongPassword, codeRequiredPassword, codeAuthenticationFailed:
			return ErrAuth
		case codeReadonly, codeAccessDenied:
			return ErrReadOnly
		case codeUnknownDatabase, codeUnknownTable, codeNoSuchColumn, codeUnknownIdentifier:
			return ErrNoSchema
		}
		return nil
	}
	if errors.Is(err, ch.ErrUnsupportedServerRevision) {
		return ErrTooOld
	}
	var (
		record  tls.RecordHeaderError
		verify  *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		alert   tls.AlertError
	)
	if errors.As(err, &record) || errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &alert) {
		return ErrTLS
	}
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") { // net/http has no value for it
		return ErrTLS
	}
	var (
		op  *net.OpError
		dns *net.DNSError
	)
	// An alert of the other side, such as that it wants a certificate (crypto/tls conn.go: the
	// type of the alert is not exported).
	if errors.As(err, &op) && op.Op == "remote error" {
		return ErrTLS
	}
	if op != nil || errors.As(err, &dns) || errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ch.ErrAcquireConnTimeout) {
		return ErrUnreachable
	}
	return nil
}

// serverCode returns the code of an exception of the server.
func serverCode(err error) (int, bool) {
	var e *ch.Exception
	if errors.As(err, &e) {
		return int(e.Code), true
	}
	return 0, false
}
