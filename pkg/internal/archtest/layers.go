package archtest

import "strings"

// stages are the folders of pkg/ in the order of the path.
func stages() []string {
	return []string{"sense", "decode", "attribute", "coalesce", "rehash", "judge", "respond", "journal", "ship"}
}

// allowed says which of our folders the files of a folder may import. Packages
// for tests are not listed: they may import what they like.
func allowed() map[string][]string {
	const (
		event   = "pkg/event"
		digest  = "pkg/digest"
		policy  = "pkg/policy"
		journal = "pkg/journal"
		query   = "pkg/query"
	)
	return map[string][]string{
		// words, and what is made of them alone
		event:                     {},
		digest:                    {event},
		"bpf":                     {},
		"schemas":                 {},
		"pkg/internal/strictyaml": {},
		"pkg/internal/archtest":   {},
		"pkg/internal/chain":      {},
		"pkg/internal/regular":    {},
		policy:                    {event, "pkg/internal/strictyaml"},
		"pkg/accounts":            {event},
		"pkg/config":              {event, policy, "pkg/internal/strictyaml"},
		"pkg/control":             {event},
		"pkg/kernel":              {event, "bpf"},

		// the stages: none imports another
		"pkg/sense":     {event, policy, "bpf"},
		"pkg/decode":    {event, "bpf"},
		"pkg/attribute": {event, digest, "pkg/internal/chain"},
		"pkg/coalesce":  {event, "pkg/internal/chain"},
		"pkg/rehash":    {event, digest},
		"pkg/judge":     {event, policy},
		"pkg/respond":   {event},
		journal:         {event, "pkg/internal/regular"},
		"pkg/ship":      {event, "pkg/internal/regular"},

		// answers
		query:            {event},
		"pkg/index":      {event, journal, query},
		"pkg/clickhouse": {event, journal, query, "schemas"},

		"pkg/publish": {},
		"pkg/window":  {event, policy, "pkg/internal/regular"},

		// the vault: usable without all of the above
		"rollback":     {event, digest, "rollback/cas"},
		"rollback/cas": {event, digest},

		// wiring
		"pkg/vault":    {event, digest, "pkg/accounts", "pkg/pipeline", "pkg/rehash", "pkg/respond", "rollback"},
		"pkg/pipeline": {event, policy, "pkg/accounts", "pkg/decode", "pkg/attribute", "pkg/coalesce", "pkg/rehash", "pkg/judge", "pkg/respond", journal, "pkg/window"},
		"pkg/daemon":   {"/..."},
		"cmd/holdfast": {event, digest, policy, "pkg/accounts", "pkg/config", "pkg/control", "pkg/kernel", "pkg/daemon", journal, "pkg/index", query, "pkg/clickhouse", "pkg/ship", "rollback"},
	}
}

// layerOf returns what dir may import. Programs that only serve the demo may
// import nothing of ours: they stand for strangers.
func layerOf(dir string) ([]string, bool) {
	if dir == "demo" || strings.HasPrefix(dir, "demo/") {
		return nil, true
	}
	may, ok := allowed()[dir]
	return may, ok
}

// home is where a third-party module may be imported.
type home struct {
	module    string
	dirs      []string
	testsOnly bool
}

func homes() []home {
	return []home{
		{module: "github.com/cilium/ebpf", dirs: []string{"bpf", "pkg/kernel", "pkg/sense"}},
		// The second opinion on records hashes by itself, too.
		{module: "github.com/zeebo/blake3", dirs: []string{"pkg/digest", "vmtests/replay"}},
		{module: "github.com/google/nftables", dirs: []string{"pkg/contain"}},
		{module: "github.com/vishvananda/netlink", dirs: []string{"pkg/contain"}},
		{module: "github.com/ClickHouse/clickhouse-go/v2", dirs: []string{"pkg/clickhouse/..."}},
		{module: "github.com/ClickHouse/ch-go", dirs: []string{"pkg/clickhouse/..."}},
		{module: "github.com/ebitengine/purego", dirs: []string{"pkg/clickhouse/clickhousetest/..."}},
		{module: "modernc.org/sqlite", dirs: []string{"pkg/index"}},
		{module: "github.com/urfave/cli/v2", dirs: []string{"cmd/holdfast"}},
		{module: "github.com/goccy/go-yaml", dirs: []string{"pkg/internal/strictyaml"}},
		// The log is a tlog; clickhouse computes the same leaf hashes over its rows.
		{module: "golang.org/x/mod", dirs: []string{"pkg/journal", "pkg/clickhouse"}},
		// One format each: the journal's records, and the vault's log of versions.
		{module: "github.com/fxamacker/cbor/v2", dirs: []string{"pkg/journal", "rollback"}},
		{module: "github.com/klauspost/compress", dirs: []string{"rollback/cas"}},
		{module: "github.com/rogpeppe/go-internal", testsOnly: true},
		// System calls have no home: they are the operating system's own interface.
		{module: "golang.org/x/sys", dirs: []string{"/..."}},
	}
}

func homeOf(importPath string) (home, bool) {
	for _, h := range homes() {
		if importPath == h.module || strings.HasPrefix(importPath, h.module+"/") {
			return h, true
		}
	}
	return home{}, false
}
