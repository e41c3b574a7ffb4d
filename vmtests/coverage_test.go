package vmtests

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
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

// The words of a cell, the best last. A check compares by this order.
var words = []string{"error", "unseen", "seen?", "seen", "put back", "blocked", "–"}

// What a cell can lack.
var lacks = []string{"unseen", "unattributed", "unblocked"}

// limit is a row of acts/limits.txt: something that is known to be lacking.
type limit struct {
	act, lacks, kernel, tier, fs string // patterns of path.Match
	why                          string
}

func readLimits(file string) ([]limit, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []limit
	for n, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) < 6 {
			return nil, fmt.Errorf("%s:%d: want VECTOR unseen|unattributed|unblocked|* KERNEL TIER FS WHY", file, n+1)
		}
		for lack := range strings.SplitSeq(f[1], ",") {
			if lack != "*" && !slices.Contains(lacks, lack) {
				return nil, fmt.Errorf("%s:%d: %q is no lack", file, n+1, lack)
			}
		}
		all = append(all, limit{f[0], f[1], f[2], f[3], f[4], strings.Join(f[5:], " ")})
	}
	return all, nil
}

// explains tells whether l says why c lacks that.
func (l limit) explains(c cell, lack string) bool {
	for _, m := range [][2]string{{l.act, c.Act}, {l.lacks, lack}, {l.kernel, c.Kernel}, {l.tier, c.Tier}, {l.fs, c.FS}} {
		if !slices.ContainsFunc(strings.Split(m[0], ","), func(p string) bool { ok, err := path.Match(p, m[1]); return ok && err == nil }) {
			return false
		}
	}
	return true
}

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
	var best object
	rank := 0
	var contents []string // that records of it tell: of a file that is made, its beginning, too
	for _, r := range records {
		n := r.seenAs(t)
		if n > rank {
			best, rank = r, n
		}
		if h := r.text("after.hash"); n > 0 && h != "" && (n == rank || r.by(t)) {
			contents = append(contents, h)
		}
	}
	switch {
	case rank == 0:
		c.Is, c.Lacks = "unseen", []string{"unseen"}
	case rank < 3:
		c.Is, c.Lacks, c.Note = "seen?", []string{"unattributed"}, best.whoInstead(t)
	default:
		c.Is = "seen"
	}
	if want := t.text("after.hash"); want != "" && len(contents) > 0 && !slices.Contains(contents, want) {
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

// failures are what a run may not leave unexplained.
func failures(cells []cell, limits []limit) []error {
	var errs []error
	for _, c := range cells {
		if c.Broken != "" {
			errs = append(errs, fmt.Errorf("%s: %s: %s", c.at(), c.Act, c.Broken))
		}
		for _, lack := range c.Lacks {
			if !slices.ContainsFunc(limits, func(l limit) bool { return l.explains(c, lack) }) {
				errs = append(errs, fmt.Errorf("%s: %s: %s, and acts/limits.txt does not say why: %s", c.at(), c.Act, lack, c.Note))
			}
		}
	}
	return errs
}

func (c cell) at() place { return place{c.Kernel, c.Tier, c.FS} }

// worse compares cells with what docs/coverage.md says of the same place.
func worse(cells []cell, document string) []error {
	var errs []error
	for _, c := range cells {
		was, ok := documented(document, c.at(), c.Act)
		if !ok {
			errs = append(errs, fmt.Errorf("docs/coverage.md says nothing of %s on %s: run make coverage", c.Act, c.at()))
			continue
		}
		if slices.Index(words, c.Is) < slices.Index(words, was) || was == "–" != (c.Is == "–") {
			errs = append(errs, fmt.Errorf("%s on %s: was %s, is %s: %s%s", c.Act, c.at(), was, c.Is, c.Broken, c.Note))
		}
	}
	return errs
}

// documented looks up one cell of the document's table.
func documented(document string, at place, act string) (string, bool) {
	column := -1
	for line := range strings.Lines(document) {
		f := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		if f[0] == "vector" {
			column = slices.Index(f, at.String())
		}
		if column > 0 && f[0] == act && column < len(f) {
			return f[column], true
		}
	}
	return "", false
}

// readCells reads the results of every run in dir.
func readCells(dir string) ([]cell, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	if err != nil {
		return nil, err
	}
	var all []cell
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		sc := bufio.NewScanner(bytes.NewReader(b))
		for sc.Scan() {
			var c cell
			if err := json.Unmarshal(sc.Bytes(), &c); err != nil {
				return nil, fmt.Errorf("read %s: %w", f, err)
			}
			all = append(all, c)
		}
	}
	return all, nil
}

func writeCells(file string, cells []cell) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, c := range cells {
		if err := enc.Encode(c); err != nil {
			return err
		}
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// document is the text of docs/coverage.md.
func document(cells []cell, columns []place, limits []limit) string {
	byPlace := map[place]map[string]cell{}
	release := map[place]string{}
	var acts []string
	for _, c := range cells {
		if byPlace[c.at()] == nil {
			byPlace[c.at()] = map[string]cell{}
		}
		byPlace[c.at()][c.Act], release[c.at()] = c, c.Release
		if !slices.Contains(acts, c.Act) {
			acts = append(acts, c.Act)
		}
	}
	columns = slices.DeleteFunc(slices.Clone(columns), func(p place) bool { return byPlace[p] == nil })
	var b strings.Builder
	b.WriteString(`# Coverage

Generated by ` + "`make coverage`" + ` from runs in virtual machines; do not edit. Each row is a program of ` + "`vmtests/acts`" + ` that makes
one change and says what it did. A column is a kernel, a tier and a file system. Every act was done twice: in an observed
tree and, where the tier can block, in a blocked one, whose content and metadata were read again after a new mount.

- **blocked**: seen (if there is anything to see: *Without effect*), and in a blocked tree refused with EPERM, unchanged, and recorded as refused.
- **put back**: seen, and in a blocked tree undone: content and metadata are again as they were. *Known limits* says why nothing refuses it.
- **seen**: a record names the path, the operation or its effect, the user, the program and the process.
- **seen?**: a record names the path, but not who it was.
- **unseen**: no record that names it. *Known limits* says why, or *Defects* that it should not be.
- **–**: the act can change no watched file there: *Without effect* says why.

`)
	b.WriteString("| column | kernel | blocked | put back | seen | seen? | unseen | – |\n|---|---|---|---|---|---|---|---|\n")
	for _, p := range columns {
		n := map[string]int{}
		for _, c := range byPlace[p] {
			n[c.Is]++
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d |\n", p, release[p], n["blocked"], n["put back"], n["seen"], n["seen?"], n["unseen"]+n["error"], n["–"])
	}
	b.WriteString("\n## Vectors\n\n| vector |")
	for _, p := range columns {
		fmt.Fprintf(&b, " %s |", p)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, a := range acts {
		fmt.Fprintf(&b, "| %s |", a)
		for _, p := range columns {
			fmt.Fprintf(&b, " %s |", orElse(byPlace[p][a].Is, " "))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## Known limits\n\nWhat the acts above lack where they lack it, from `vmtests/acts/limits.txt`. A run that finds another fails.\n\n| vector | lacks | where | because |\n|---|---|---|---|\n")
	for _, l := range limits {
		var at []place
		for _, p := range columns {
			for _, a := range acts {
				c := byPlace[p][a]
				if !slices.Contains(at, p) && slices.ContainsFunc(c.Lacks, func(lack string) bool { return l.explains(c, lack) }) {
					at = append(at, p)
				}
			}
		}
		if len(at) > 0 {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", strings.ReplaceAll(l.act, ",", "`, `"), strings.ReplaceAll(strings.ReplaceAll(l.lacks, ",", ", "), "*", "all"), where(at, columns), l.why)
		}
	}
	unexplained := ""
	for _, p := range columns {
		for _, a := range acts {
			c := byPlace[p][a]
			for _, err := range failures([]cell{c}, limits) {
				what := strings.NewReplacer(c.at().String()+": "+a+": ", "", ", and acts/limits.txt does not say why", "", "\n", " ").Replace(err.Error())
				unexplained += fmt.Sprintf("| %s | %s | %s |\n", a, p, strings.Trim(what, ": "))
			}
		}
	}
	if unexplained != "" {
		b.WriteString("\n## Defects\n\nWhat nothing above explains.\n\n| vector | where | is |\n|---|---|---|\n" + unexplained)
	}
	b.WriteString("\n## Without effect\n\nWhat there is to see where nothing refuses it: nothing, and why. The name of an error is the kernel's answer: ENOSYS and EINVAL from a kernel, ENOTTY and ENOTSUP from a file system that does not know the call.\n\n| vector | why, and where |\n|---|---|\n")
	for _, a := range acts {
		var whys []string
		at := map[string][]place{}
		for _, p := range columns {
			if why := byPlace[p][a].None; why != "" {
				if at[why] == nil {
					whys = append(whys, why)
				}
				at[why] = append(at[why], p)
			}
		}
		for i, w := range whys {
			whys[i] = fmt.Sprintf("%s (%s)", w, where(at[w], columns))
		}
		if len(whys) > 0 {
			fmt.Fprintf(&b, "| %s | %s |\n", a, strings.Join(whys, "; "))
		}
	}
	return b.String()
}

// where names the places of at, which are some of all.
func where(at, all []place) string {
	if len(at) == len(all) {
		return "everywhere"
	}
	var names []string
	for _, p := range at {
		names = append(names, p.String())
	}
	return strings.Join(names, ", ")
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
				if record != "" {
					p.records = append(p.records, parse(record))
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

func TestCoverageIsReadBackFromItsDocument(t *testing.T) {
	at, other := place{"6.1", "lsm", "ext4"}, place{"6.12", "lsm", "ext4"}
	cells := []cell{
		{Act: "a", Kernel: "6.1", Tier: "lsm", FS: "ext4", Is: "blocked"},
		{Act: "b", Kernel: "6.1", Tier: "lsm", FS: "ext4", Is: "unseen", Lacks: []string{"unseen"}},
		{Act: "c", Kernel: "6.1", Tier: "lsm", FS: "ext4", Is: "–", None: "ENOSYS"},
		{Act: "a", Kernel: "6.12", Tier: "lsm", FS: "ext4", Is: "seen", Lacks: []string{"unblocked"}},
	}
	limits := []limit{{"b", "unseen", "6.1", "*", "*", "nobody tells"}, {"a", "unblocked", "6.12", "lsm,modify_return", "*", "no hook refuses"}}
	text := document(cells, []place{at, other}, limits)
	for _, c := range cells {
		if got, ok := documented(text, c.at(), c.Act); !ok || got != c.Is {
			t.Errorf("%s of %s reads back as %q, want %q", c.Act, c.at(), got, c.Is)
		}
	}
	for _, want := range []string{"nobody tells", "no hook refuses", "ENOSYS (6.1 lsm ext4)"} {
		if !strings.Contains(text, want) {
			t.Errorf("the document does not say %q", want)
		}
	}
	if strings.Contains(text, "## Defects") {
		t.Error("what a limit explains is told as a defect")
	}
	if text := document(cells, []place{at, other}, limits[1:]); !strings.Contains(text, "| b | 6.1 lsm ext4 | unseen") {
		t.Error("what no limit explains is not told as a defect")
	}
	if errs := append(worse(cells, text), failures(cells, limits)...); len(errs) > 0 {
		t.Errorf("a run that is as documented fails: %v", errs)
	}
	if errs := failures(cells, nil); len(errs) != 2 {
		t.Errorf("without known limits there are %d failures, want 2: %v", len(errs), errs)
	}
	fallen := []cell{cells[0], {Act: "c", Kernel: "6.1", Tier: "lsm", FS: "ext4", Is: "seen"}, {Act: "new", Kernel: "6.1", Tier: "lsm", FS: "ext4", Is: "seen"}}
	fallen[0].Is = "seen"
	if errs := worse(fallen, text); len(errs) != 3 {
		t.Errorf("%d of 3 cells that are not as documented are told: %v", len(errs), errs)
	}
}

func TestKnownLimitsAreReadable(t *testing.T) {
	if _, err := readLimits("acts/limits.txt"); err != nil {
		t.Error(err)
	}
}
