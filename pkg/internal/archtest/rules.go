package archtest

import (
	"fmt"
	"go/token"
	"slices"
	"strings"
)

// Breach is one place that breaks a rule.
type Breach struct {
	Rule string // its name
	Pos  string // file:line below the module's root
	What string
	Why  string // the reason for the rule
}

func (b Breach) String() string {
	return fmt.Sprintf("%s: %s [%s: %s]", b.Pos, b.What, b.Rule, b.Why)
}

// rule finds its breaches in a module.
type rule struct {
	name  string
	why   string
	check func(m *Module, report func(pos token.Pos, what string))
}

func rules() []rule {
	return []rule{
		{"layers", "dependencies point one way: cmd → daemon → pipeline → stages → event; see allowed in layers.go", layers},
		{"homes", "each third-party module has one home, so that it can be replaced in one place; see homes in layers.go", thirdParty},
		{"helpers", "a package for tests stays out of the product", testHelpers},
		{"testing", "package testing registers flags and does not belong into a product", noTesting},
		{"init", "what happens before main is invisible in the path of an event", noInit},
		{"state", "state belongs to a value that someone owns; a package-level variable has no owner", noState},
		{"names", "a package named after nothing collects everything", noVagueNames},
		{"doc", "a package says what it owns, promises and does not guarantee", packageDoc},
		{"path", "pkg/README.md, the folders and the pipeline tell the same path", pathInStep},
	}
}

// RuleNames lists the rules.
func RuleNames() []string {
	var names []string
	for _, r := range rules() {
		names = append(names, r.name)
	}
	return names
}

// Check returns all breaches in the order of the rules and of the source.
func Check(m *Module) []Breach {
	var out []Breach
	for _, r := range rules() {
		r.check(m, func(pos token.Pos, what string) {
			out = append(out, Breach{Rule: r.name, Pos: m.pos(pos), What: what, Why: r.why})
		})
	}
	return out
}

// pos writes a place as file:line below the root.
func (m *Module) pos(p token.Pos) string {
	if !p.IsValid() {
		return "module"
	}
	at := m.fset.Position(p)
	return fmt.Sprintf("%s:%d", strings.TrimPrefix(at.Filename, m.Root+"/"), at.Line)
}

// product calls visit with each file that goes into a program.
func (m *Module) product(visit func(*Package, *File)) {
	for _, p := range m.Packages {
		if helper(p.Dir) {
			continue
		}
		for _, f := range p.Files {
			if !f.Test {
				visit(p, f)
			}
		}
	}
}

func layers(m *Module, report func(token.Pos, string)) {
	m.product(func(p *Package, f *File) {
		may, known := layerOf(p.Dir)
		if !known {
			report(f.AST.Package, fmt.Sprintf("folder %s has no place in the layers", p.Dir))
			return
		}
		for _, im := range f.Imports {
			dir, own := m.own(im.Path)
			if !own || helper(dir) {
				continue // helpers are the business of another rule
			}
			if !slices.ContainsFunc(may, func(a string) bool { return covers(a, dir) }) {
				report(im.Pos, fmt.Sprintf("%s may not import %s", p.Dir, dir))
			}
		}
	})
}

// covers reports whether pattern names dir: the same folder, or with /... all
// below it too.
func covers(pattern, dir string) bool {
	base, deep := strings.CutSuffix(pattern, "/...")
	return dir == base || deep && (base == "" || strings.HasPrefix(dir, base+"/"))
}

func thirdParty(m *Module, report func(token.Pos, string)) {
	for _, p := range m.Packages {
		for _, f := range p.Files {
			for _, im := range f.Imports {
				first, _, _ := strings.Cut(im.Path, "/")
				if _, own := m.own(im.Path); own || !strings.Contains(first, ".") {
					continue
				}
				h, known := homeOf(im.Path)
				switch {
				case !known:
					report(im.Pos, fmt.Sprintf("module of %s has no home", im.Path))
				case h.testsOnly && !f.Test && !helper(p.Dir):
					report(im.Pos, fmt.Sprintf("%s is for tests only", im.Path))
				case !h.testsOnly && !slices.ContainsFunc(h.dirs, func(d string) bool { return covers(d, p.Dir) }):
					report(im.Pos, fmt.Sprintf("%s is at home in %s", im.Path, strings.Join(h.dirs, ", ")))
				}
			}
		}
	}
}

func testHelpers(m *Module, report func(token.Pos, string)) {
	m.product(func(_ *Package, f *File) {
		for _, im := range f.Imports {
			if dir, own := m.own(im.Path); own && helper(dir) {
				report(im.Pos, fmt.Sprintf("product file imports %s", dir))
			}
		}
	})
}

func noTesting(m *Module, report func(token.Pos, string)) {
	m.product(func(_ *Package, f *File) {
		for _, im := range f.Imports {
			if im.Path == "testing" || strings.HasPrefix(im.Path, "testing/") {
				report(im.Pos, "product file imports "+im.Path)
			}
		}
	})
}

func noVagueNames(m *Module, report func(token.Pos, string)) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "managers", "misc", "shared"}
	for _, p := range m.Packages {
		name := p.Dir[strings.LastIndexByte(p.Dir, '/')+1:]
		if slices.Contains(vague, name) || slices.Contains(vague, p.Name) {
			report(p.Files[0].AST.Package, fmt.Sprintf("package %s", name))
		}
	}
}

func packageDoc(m *Module, report func(token.Pos, string)) {
	for _, p := range m.Packages {
		if p.Name == "" {
			continue // tests only
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		documented := slices.ContainsFunc(p.Files, func(f *File) bool { return !f.Test && strings.HasPrefix(f.AST.Doc.Text(), want) })
		if !documented {
			report(p.Files[0].AST.Package, fmt.Sprintf("folder %s has no comment that begins with %q", p.Dir, want))
		}
	}
}
