package vmtests

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// place is one column of the coverage.
type place struct{ Kernel, Tier, FS string }

func (p place) String() string { return p.Kernel + " " + p.Tier + " " + p.FS }

// cell is what one run says of one act: a line of the results.
type cell struct {
	Act     string   `json:"act"`
	Kernel  string   `json:"kernel"`
	Release string   `json:"release"`
	Tier    string   `json:"tier"`
	FS      string   `json:"fs"`
	Is      string   `json:"is"`               // one of the words below
	Lacks   []string `json:"lacks,omitempty"`  // what acts/limits.txt must explain: of the lacks below
	None    string   `json:"none,omitempty"`   // why there is nothing to see of it where nothing refuses it
	Note    string   `json:"note,omitempty"`   // what is missing or wrong
	Broken  string   `json:"broken,omitempty"` // what no known limit excuses: a false record, a change in spite of a refusal

	fails bool // the call itself fails in an observed tree
}

func (c cell) at() place { return place{c.Kernel, c.Tier, c.FS} }

// The words of a cell, the best last. A check compares by this order.
var words = []string{"error", "unseen", "seen?", "seen", "put back", "blocked", "–"}

// What a cell can lack.
var lacks = []string{"unseen", "unattributed", "unblocked"}

// pass is what a guest left of one mode.
type pass struct {
	truth, records []object
	before, after  map[string]string // act → its picture
}

func readPass(dir, mode string) (p pass, err error) {
	if p.truth, err = readObjects(filepath.Join(dir, mode+".truth")); err != nil {
		return p, err
	}
	if p.records, err = readObjects(filepath.Join(dir, "log.ndjson")); err != nil || mode != "block" {
		return p, err
	}
	if p.before, err = readPictures(filepath.Join(dir, mode+".before")); err != nil {
		return p, err
	}
	p.after, err = readPictures(filepath.Join(dir, mode+".after"))
	return p, err
}

// byPID tells which act a process did.
func (p pass) byPID() map[string]string {
	m := map[string]string{}
	for _, t := range p.truth {
		if pid := t.text("pid"); pid != "" && pid != "0" {
			m[pid] = t.text("act")
		}
	}
	return m
}

func readPictures(file string) (map[string]string, error) {
	lines, err := readObjects(file)
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for _, l := range lines {
		m[l.text("act")] = l.text("view")
	}
	return m, nil
}

// cover compares what the acts say with what the records say. blocked is nil in a
// tier that cannot block.
func cover(at place, release string, observed pass, blocked *pass) []cell {
	var cells []cell
	mine := observed.byPID()
	for _, t := range observed.truth {
		c := cell{Act: t.text("act"), Kernel: at.Kernel, Tier: at.Tier, FS: at.FS, Release: release}
		c.observe(t, slices.DeleteFunc(slices.Clone(observed.records), func(r object) bool {
			// what names the process of another act is about that act, such as a tree that was renamed
			act, ok := mine[r.text("process.pid")]
			return ok && act != c.Act
		}))
		if blocked != nil {
			i := slices.IndexFunc(blocked.truth, func(o object) bool { return o.text("act") == c.Act })
			if i < 0 {
				c.Is, c.Broken = "error", "it was not run in a blocked tree"
			} else {
				c.block(blocked.truth[i], *blocked)
			}
		}
		cells = append(cells, c)
	}
	return cells
}

// observe fills in what an observed tree's records tell of t.
func (c *cell) observe(t object, records []object) {
	switch t.text("effect") {
	case "changed":
	case "none":
		c.Is, c.None, c.fails = "–", orElse(t.text("why"), "nothing is different afterwards"), t.text("ok") != "true"
		return
	case "refused": // what is upon the daemon is refused everywhere
		c.Is = "blocked"
		if !slices.ContainsFunc(records, func(r object) bool { return r.text("verdict") == "blocked" && r.tellsRefusal(t) }) {
			c.Is, c.Broken = "error", "refused without a record of it"
		}
		return
	default:
		c.Is, c.Broken = "error", orElse(t.text("why"), t.text("effect"))
		return
	}
	want := t.text("after.hash")
	var best, other object // the best record of it, and the best of somebody else that tells the content that it left
	rank, otherRank := 0, 0
	var contents []string // that records of it tell: of a file that is made, its beginning, too
	for _, r := range records {
		n := r.seenAs(t)
		if n > rank {
			best, rank = r, n
		}
		switch h := r.text("after.hash"); {
		case n == 0 || h == "":
		case n == rank || r.by(t):
			contents = append(contents, h)
		case h == want && n > otherRank:
			other, otherRank = r, n
		}
	}
	if other != nil && !slices.Contains(contents, want) {
		// what is told of its author is another deed of his, such as the link before a write
		best, rank, contents = other, otherRank, nil
	}
	switch {
	case rank == 0:
		c.Is, c.Lacks = "unseen", []string{"unseen"}
	case rank < 3:
		c.Is, c.Lacks, c.Note = "seen?", []string{"unattributed"}, best.whoInstead(t)
	default:
		c.Is = "seen"
	}
	if want != "" && len(contents) > 0 && !slices.Contains(contents, want) {
		c.Broken = fmt.Sprintf("the content is %s by the records, and was %s", strings.Join(contents, ", "), want)
	}
}

// seenAs tells how well r tells t: 0 not at all, 1 the path and the effect, 2 the
// path and the operation, plus 2 if it names the right actor.
func (r object) seenAs(t object) int {
	if k := r.text("kind"); k != "change" && k != "attempt" {
		return 0
	}
	ops := strings.Split(t.text("op"), ",")
	named := slices.ContainsFunc(ops, func(op string) bool { return op == r.text("op") || slices.Contains(r.list("ops"), op) })
	switch hash := t.text("after.hash"); {
	case !r.concerns(t):
		return 0
	case t["names"] == nil && !(named && r.by(t)):
		return 0
	case named && r.by(t):
		return 4
	case named:
		return 2
	case r.by(t):
		return 3 // another name for the same deed
	case hash != "" && r.text("after.hash") == hash:
		return 1
	}
	return 0
}

// concerns tells whether r names a path of t; t without any is upon the daemon.
func (r object) concerns(t object) bool {
	if t["names"] == nil {
		return true
	}
	path, to := r.text("path"), r.text("path_to")
	for _, n := range append(t.names(), t.list("also")...) {
		if n == path || n == to || strings.HasSuffix(n, "/") && strings.HasPrefix(path, n) {
			return true
		}
	}
	return false
}

// by tells whether r names who did t.
func (r object) by(t object) bool {
	if t.text("kernel") == "true" {
		// a worker of the kernel, or the process on whose behalf it acts; never somebody else
		return r.text("actor.origin") == "kernel" || r.text("process.exe") == t.text("exe") || r.text("actor.evidence") == "none"
	}
	return r.text("process.exe") == t.text("exe") && r.byProcess(t)
}

// byProcess tells whether r names the process and the user of t, though perhaps
// not the program.
func (r object) byProcess(t object) bool {
	pids := append(t.list("pids"), t.text("pid"))
	return r.text("actor.uid") == t.text("uid") && slices.Contains(pids, r.text("process.pid"))
}

func (r object) whoInstead(t object) string {
	return fmt.Sprintf("the record says %s of pid %s, uid %s, %q by %s %s; it was pid %s, uid %s", r.text("op"), r.text("process.pid"), r.text("actor.uid"), r.text("process.exe"),
		r.text("sensor.hook"), r.text("actor.evidence"), orElse(t.text("pid"), t.text("pids")), t.text("uid"))
}

// list returns the strings of a list.
func (o object) list(key string) []string {
	l, _ := o[key].([]any)
	var all []string
	for _, v := range l {
		all = append(all, fmt.Sprint(v))
	}
	return all
}

// block fills in what became of t in a blocked tree.
func (c *cell) block(t object, p pass) {
	if c.Is == "error" {
		return
	}
	same := p.before[c.Act] == p.after[c.Act]
	told := func(verdict string, about func(object) bool) bool {
		return slices.ContainsFunc(p.records, func(r object) bool { return r.text("verdict") == verdict && about(r) })
	}
	refused := func() bool { return told("blocked", func(r object) bool { return r.tellsRefusal(t) }) }
	switch t.text("effect") {
	case "changed":
		switch {
		case c.Is == "–":
			c.Is, c.Broken = "error", "no effect in an observed tree, and one in a blocked tree"
			return
		case told("restored", func(r object) bool { return r.concerns(t) }):
			if content(p.before[c.Act]) != content(p.after[c.Act]) {
				c.Is, c.Broken = "error", "put back, says the record, and yet the state after a new mount is another"
				return
			}
			if c.Is == "seen" {
				c.Is = "put back"
			}
		}
		c.Lacks = append(c.Lacks, "unblocked")
	case "refused":
		switch {
		case !same:
			c.Is, c.Broken = "error", "refused, and yet the state after a new mount is another"
		case !refused():
			c.Broken = orElse(c.Broken, "refused without a record of it")
		case c.Is == "unseen":
			c.Note = "refused, but not seen where it is not"
		case !c.fails: // else it can do nothing there, whoever refuses it
			c.Is = "blocked"
		}
	case "none":
		switch {
		case strings.HasPrefix(t.text("why"), "untried: "):
			c.Lacks = append(c.Lacks, "unblocked")
		case c.fails:
		case refused() && same: // the kernel, or another program, was refused, and the act was told otherwise or not at all
			c.Is = "blocked"
		case c.Is != "–":
			c.Is, c.Broken = "error", fmt.Sprintf("in a blocked tree: no effect: %s", t.text("why"))
		}
	default:
		c.Is, c.Broken = "error", "in a blocked tree: "+t.text("why")
	}
}

// What a restore need not put back: the number and the generation of an inode, and
// the time of the directory around it.
var unrestored = regexp.MustCompile(`ino \d+ | version \d+|(mode 4\d{4} [^"]*?) mtime [\d.]+`)

// content is a picture without that.
func content(picture string) string { return unrestored.ReplaceAllString(picture, "$1") }

// tellsRefusal tells whether r, a refusal, is about t.
func (r object) tellsRefusal(t object) bool {
	if t["names"] == nil && !slices.Contains(strings.Split(t.text("op"), ","), r.text("op")) {
		return false
	}
	return r.concerns(t) && (r.by(t) || r.text("process.exe") == "unknown" && r.byProcess(t))
}

func orElse(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

func TestCoverageTellsTheTruth(t *testing.T) {
	parse := func(text string) object {
		var o object
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	const did = `{"act":"a","op":"write","names":["/t/a/it"],"pid":7,"uid":0,"exe":"/x","effect":"changed","ok":true,"after":{"hash":"h"}}`
	const refused = `{"act":"a","op":"write","names":["/t/a/it"],"pid":7,"uid":0,"exe":"/x","effect":"refused","errno":"EPERM"}`
	record := func(kind, op, verdict, pid, hash string) string {
		return fmt.Sprintf(`{"kind":%q,"op":%q,"verdict":%q,"path":"/t/a/it","actor":{"uid":0},"process":{"pid":%s,"exe":"/x"},"after":{"hash":%q}}`, kind, op, verdict, pid, hash)
	}
	for _, tt := range []struct {
		name, truth, record     string
		blockTruth, blockRecord string
		after                   string
		is, lacks               string
		broken                  bool
	}{
		{name: "a change without a record is unseen", truth: did, is: "unseen", lacks: "unseen"},
		{name: "a right record is seen", truth: did, record: record("change", "write", "observed", "7", "h"), is: "seen"},
		{name: "another process is not the actor", truth: did, record: record("change", "write", "observed", "8", "h"), is: "seen?", lacks: "unattributed"},
		{name: "another operation with the same effect is seen", truth: did, record: record("change", "truncate", "observed", "7", "h"), is: "seen"},
		{name: "a wrong hash is false", truth: did, record: record("change", "write", "observed", "7", "g"), is: "seen", broken: true},
		{name: "a write put down to nobody is no false content of what its author did before", truth: did, record: record("change", "link", "observed", "7", "g") + "\n" + record("change", "write", "observed", "8", "h"), is: "seen?", lacks: "unattributed"},
		{name: "an exec record is no record of a change", truth: did, record: record("exec", "write", "observed", "7", "h"), is: "unseen", lacks: "unseen"},
		{name: "a refusal that is told and holds is blocked", truth: did, record: record("change", "write", "observed", "7", "h"), blockTruth: refused, blockRecord: record("attempt", "write", "blocked", "7", ""), is: "blocked"},
		{name: "a refusal without a record is not blocked", truth: did, record: record("change", "write", "observed", "7", "h"), blockTruth: refused, is: "seen", broken: true},
		{name: "a refusal after which the state differs is an error", truth: did, record: record("change", "write", "observed", "7", "h"), blockTruth: refused, blockRecord: record("attempt", "write", "blocked", "7", ""), after: "other", is: "error", broken: true},
		{name: "a change of a blocked tree is unblocked", truth: did, record: record("change", "write", "observed", "7", "h"), blockTruth: did, is: "seen", lacks: "unblocked"},
		{name: "an act that could not be told is an error", truth: `{"act":"a","effect":"error","why":"x"}`, is: "error", broken: true},
		{name: "an act that failed in an observed tree is not blocked", truth: `{"act":"a","effect":"error","why":"x"}`, blockTruth: refused, blockRecord: record("attempt", "write", "blocked", "7", ""), is: "error", broken: true},
		{name: "a refusal in an observed tree must be told", truth: refused, is: "error", broken: true},
		{name: "what is refused everywhere is blocked", truth: refused, record: record("attempt", "write", "blocked", "7", ""), is: "blocked"},
		{name: "an act without effect needs no record", truth: `{"act":"a","effect":"none","why":"ENOSYS"}`, is: "–"},
		{name: "what cannot be done there is not blocked", truth: `{"act":"a","effect":"none","errno":"ENOTTY","why":"ENOTTY"}`, blockTruth: refused, blockRecord: record("attempt", "write", "blocked", "7", ""), is: "–"},
		{name: "what is refused before it does nothing is blocked", truth: `{"act":"a","effect":"none","ok":true,"why":"nothing was written"}`, blockTruth: refused, blockRecord: record("attempt", "write", "blocked", "7", ""), is: "blocked"},
		{name: "a change that is undone is put back", truth: did, record: record("change", "write", "observed", "7", "h"), blockTruth: did, blockRecord: record("change", "write", "restored", "7", "h"), is: "put back", lacks: "unblocked"},
		{name: "a restore that is told and did not happen is an error", truth: did, record: record("change", "write", "observed", "7", "h"), blockTruth: did, blockRecord: record("change", "write", "restored", "7", "h"), after: "other", is: "error", broken: true},
		{name: "who did a change that is not refused may be lacking, too", truth: did, record: record("change", "write", "observed", "8", "h"), blockTruth: did, is: "seen?", lacks: "unattributed unblocked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			read := func(truth, record string) pass {
				p := pass{truth: []object{parse(truth)}, before: map[string]string{"a": "state"}, after: map[string]string{"a": orElse(tt.after, "state")}}
				for line := range strings.Lines(record) {
					p.records = append(p.records, parse(line))
				}
				return p
			}
			var blocked *pass
			if tt.blockTruth != "" {
				p := read(tt.blockTruth, tt.blockRecord)
				blocked = &p
			}
			c := cover(place{"6.1", "lsm", "ext4"}, "6.1.0", read(tt.truth, tt.record), blocked)[0]
			if c.Is != tt.is || strings.Join(c.Lacks, " ") != tt.lacks || (c.Broken != "") != tt.broken {
				t.Errorf("is %q, lacks %q, broken %q; want %q, %q, %v", c.Is, c.Lacks, c.Broken, tt.is, tt.lacks, tt.broken)
			}
		})
	}
}

func TestWhatIsPutBackNeedNotBeTheSameInode(t *testing.T) {
	const was = `{".":"ino 1 mode 40755 owner 0:0 links 2 size 4096 mtime 5.0 rdev 0 xattrs [] flags 0 version 9 xflags 0","it":"ino 2 mode 100644 owner 0:0 links 1 size 3 mtime 5.0 rdev 0 xattrs [] flags 0 version 8 xflags 0 content aa"}`
	put := strings.NewReplacer("ino 2", "ino 7", "version 8", "version 6", "4096 mtime 5.0", "4096 mtime 6.5").Replace(was)
	if content(put) != content(was) {
		t.Errorf("%s\nis not\n%s", content(put), content(was))
	}
	for _, change := range [][2]string{{"content aa", "content ab"}, {"size 3 mtime 5.0", "size 3 mtime 6.0"}, {"mode 40755", "mode 40775"}, {"0:0 links 1", "1:0 links 1"}} {
		if content(strings.Replace(was, change[0], change[1], 1)) == content(was) {
			t.Errorf("%s for %s is no difference", change[1], change[0])
		}
	}
}
