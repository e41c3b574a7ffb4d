package config

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

// ClickHouse is where records are shipped to. Without a URL nothing is shipped.
type ClickHouse struct {
	// URL is clickhouse://user@host:9000/database, or http:// or https://.
	URL string `yaml:"url" json:"url"`
	// PasswordFile holds the password, so that the configuration needs none.
	PasswordFile string `yaml:"password_file" json:"password_file,omitempty"`
	// Cluster names the cluster for ON CLUSTER tables.
	Cluster string `yaml:"cluster" json:"cluster,omitempty"`
	// KeepDays is for how long the server keeps records: 0 is 400 days, -1 for
	// ever. A change takes effect by schema apply.
	KeepDays int `yaml:"keep_days" json:"keep_days,omitempty"`
	// CAFile, CertFile and KeyFile are PEM files for TLS.
	CAFile   string `yaml:"ca_file" json:"ca_file,omitempty"`
	CertFile string `yaml:"cert_file" json:"cert_file,omitempty"`
	KeyFile  string `yaml:"key_file" json:"key_file,omitempty"`
}

// Enabled reports whether records are shipped.
func (c ClickHouse) Enabled() bool { return c.URL != "" }

func (c *Config) checkClickHouse(bad func(key, msg, hint string)) {
	ch := c.ClickHouse
	if ch.URL == "" {
		if ch != (ClickHouse{}) {
			bad("clickhouse", "clickhouse settings without a url", "add url: clickhouse://user@host:9000/database, or remove the section")
		}
		return
	}
	scheme, rest, ok := strings.Cut(ch.URL, "://")
	if !ok || rest == "" || !slices.Contains([]string{"clickhouse", "http", "https"}, scheme) {
		bad("clickhouse.url", fmt.Sprintf("no ClickHouse url: %q", Redact(ch.URL)), "write clickhouse://user@host:9000/database, or http:// or https://")
	}
	if (ch.CertFile == "") != (ch.KeyFile == "") {
		bad("clickhouse.cert_file", "a certificate needs its key, and a key its certificate", "give both cert_file and key_file")
	}
}

// userinfo returns the scheme, the part before the @ and the rest of a URL. It
// does not use net/url, which refuses several hosts separated by commas.
func userinfo(raw string) (scheme, user, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(raw, "://")
	if !ok {
		return "", "", raw, false
	}
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
		return scheme, rest[:at], rest[at+1:], true
	}
	return scheme, "", rest, true
}

// Redact takes the password out of a URL.
func Redact(raw string) string {
	scheme, user, rest, ok := userinfo(raw)
	name, _, secret := strings.Cut(user, ":")
	if !ok || !secret {
		return raw
	}
	return scheme + "://" + name + ":xxxxx@" + rest
}

// Secret returns the ClickHouse URL with the password of PasswordFile in it.
func (c ClickHouse) Secret() (string, error) {
	if c.PasswordFile == "" {
		return c.URL, nil
	}
	b, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read ClickHouse password: %w", err)
	}
	scheme, user, rest, _ := userinfo(c.URL)
	name, _, _ := strings.Cut(user, ":")
	if name == "" {
		name = "default"
	}
	plain, err := url.PathUnescape(name)
	if err != nil {
		return "", fmt.Errorf("clickhouse url %s: the user is not percent-encoded", Redact(c.URL))
	}
	return scheme + "://" + url.UserPassword(plain, strings.TrimRight(string(b), "\r\n")).String() + "@" + rest, nil
}
