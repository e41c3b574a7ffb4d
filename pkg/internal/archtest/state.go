package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

func noInit(m *Module, report func(token.Pos, string)) {
	m.product(func(_ *Package, f *File) {
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				report(fn.Pos(), "func init")
			}
		}
	})
}

// noState finds package-level variables that are not constant in all but name:
// error sentinels, compiled expressions and tables that nothing assigns to,
// embedded files and interface checks.
func noState(m *Module, report func(token.Pos, string)) {
	for _, p := range m.Packages {
		if helper(p.Dir) {
			continue
		}
		for _, f := range p.Files {
			if f.Test {
				continue
			}
			for _, d := range f.AST.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, s := range g.Specs {
					checkVar(p, g, s.(*ast.ValueSpec), report)
				}
			}
		}
	}
}

func checkVar(p *Package, g *ast.GenDecl, v *ast.ValueSpec, report func(token.Pos, string)) {
	embedded := strings.Contains(comments(g.Doc), "//go:embed") || strings.Contains(comments(v.Doc), "//go:embed")
	for i, name := range v.Names {
		if name.Name == "_" || embedded {
			continue
		}
		var value ast.Expr
		if i < len(v.Values) {
			value = v.Values[i]
		}
		if !constant(name.Name, value) {
			report(name.Pos(), fmt.Sprintf("package-level variable %s", name.Name))
			continue
		}
		for _, f := range p.Files {
			if f.Test {
				continue
			}
			if pos := changed(f.AST, v, name.Name); pos.IsValid() {
				report(pos, fmt.Sprintf("package-level table %s is changed", name.Name))
			}
		}
	}
}

func comments(c *ast.CommentGroup) string {
	var s string
	if c != nil {
		for _, l := range c.List { // Text drops directives
			s += l.Text + "\n"
		}
	}
	return s
}

// constant reports whether a variable of this name and value may stand at
// package level, provided that nothing changes it.
func constant(name string, value ast.Expr) bool {
	sentinel := strings.HasPrefix(name, "Err") || strings.HasPrefix(name, "err")
	switch v := value.(type) {
	case *ast.CompositeLit:
		return true
	case *ast.UnaryExpr:
		_, lit := v.X.(*ast.CompositeLit)
		return v.Op == token.AND && lit && sentinel
	case *ast.SelectorExpr: // an alias of another package's sentinel
		return sentinel
	case *ast.CallExpr:
		fn, ok := v.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := fn.X.(*ast.Ident)
		if !ok {
			return false
		}
		call := pkg.Name + "." + fn.Sel.Name
		if sentinel && (call == "errors.New" || call == "fmt.Errorf") {
			return true
		}
		return slices.Contains([]string{"regexp.MustCompile", "sync.OnceValue", "crc32.MakeTable", "strings.NewReplacer", "netip.MustParsePrefix", "netip.MustParseAddr"}, call)
	}
	return false
}

// changed returns where a file assigns to the variable that spec declares, or
// takes its address. The parser resolves names within a file; a name that it
// could not resolve is one of another file of the package.
func changed(f *ast.File, spec *ast.ValueSpec, name string) token.Pos {
	var at token.Pos
	is := func(e ast.Expr) bool {
		id := root(e)
		return id != nil && id.Name == name && (id.Obj == nil || id.Obj.Decl == spec)
	}
	found := func(e ast.Expr) {
		if is(e) && !at.IsValid() {
			at = e.Pos()
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, l := range n.Lhs {
				if n.Tok != token.DEFINE {
					found(l)
				}
			}
		case *ast.IncDecStmt:
			found(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				found(n.X)
			}
		case *ast.CallExpr:
			if fn, ok := n.Fun.(*ast.Ident); ok && slices.Contains([]string{"delete", "clear", "copy"}, fn.Name) && len(n.Args) > 0 {
				found(n.Args[0])
			}
		}
		return true
	})
	return at
}

// root returns the variable that an expression such as x.f[i] is part of.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		default:
			return nil
		}
	}
}
