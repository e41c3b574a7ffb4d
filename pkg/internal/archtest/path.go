package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// pathInStep compares the numbered list of pkg/README.md with the folders and
// with the order in which pipeline.go calls the stages 2 to 8.
func pathInStep(m *Module, report func(token.Pos, string)) {
	readme, err := os.ReadFile(filepath.Join(m.Root, "pkg", "README.md"))
	if err != nil {
		report(token.NoPos, "pkg/README.md: "+err.Error())
		return
	}
	listed := listedStages(string(readme))
	if !slices.Equal(listed, stages()) {
		report(token.NoPos, fmt.Sprintf("pkg/README.md lists the stages %v, the path is %v", listed, stages()))
	}
	for _, s := range stages() {
		if !slices.ContainsFunc(m.Packages, func(p *Package) bool { return p.Dir == "pkg/"+s && p.Name == s }) {
			report(token.NoPos, fmt.Sprintf("stage %s has no folder pkg/%s", s, s))
		}
	}
	file := pipelineFile(m)
	if file == nil {
		report(token.NoPos, "there is no pkg/pipeline/pipeline.go")
		return
	}
	want := stages()[1:8]
	best, at := []string(nil), file.Package
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		if got := calledStages(fn.Body); len(got) > len(best) {
			best, at = got, fn.Pos()
		}
	}
	if !slices.Equal(best, want) {
		report(at, fmt.Sprintf("the function that calls most stages calls %v, the path is %v", best, want))
	}
}

var numbered = regexp.MustCompile("(?m)^[|\\s]*([1-9])[.)]?[|\\s]+[*`\\[]*([a-z]+)")

// listedStages reads a numbered list or a table: "1. `sense` …" or "| 1 | `sense` |".
func listedStages(text string) []string {
	var out []string
	for _, g := range numbered.FindAllStringSubmatch(text, -1) {
		if g[1] == fmt.Sprint(len(out)+1) {
			out = append(out, g[2])
		}
	}
	return out
}

func pipelineFile(m *Module) *ast.File {
	for _, p := range m.Packages {
		for _, f := range p.Files {
			if f.Name == "pkg/pipeline/pipeline.go" {
				return f.AST
			}
		}
	}
	return nil
}

// calledStages lists the stages whose name is part of a called function's name,
// such as p.judge(…), o.Judge.Judge(…) or judge.Decide(…), in the order of their
// first call.
func calledStages(body *ast.BlockStmt) []string {
	var out []string
	ast.Inspect(body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		for _, word := range words(call.Fun) {
			s := strings.ToLower(word)
			if slices.Contains(stages(), s) && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
		return true
	})
	return out
}

// words returns the identifiers of a selector, the leftmost first.
func words(e ast.Expr) []string {
	switch e := e.(type) {
	case *ast.Ident:
		return []string{e.Name}
	case *ast.SelectorExpr:
		return append(words(e.X), e.Sel.Name)
	}
	return nil
}
