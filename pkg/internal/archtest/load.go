package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is a parsed Go module.
type Module struct {
	Root     string
	Path     string // from go.mod
	Packages []*Package
	fset     *token.FileSet
}

// Package is one folder with Go files.
type Package struct {
	Dir   string // below Root, with slashes; "" is the root
	Name  string
	Files []*File
}

// File is one Go file.
type File struct {
	Name    string // below Root
	Test    bool   // ends in _test.go
	AST     *ast.File
	Imports []Import
}

// Import is one import of a file.
type Import struct {
	Path string
	Pos  token.Pos
}

// Load parses all Go files below root, which holds a go.mod. Folders that the go
// tool ignores are left out.
func Load(root string) (*Module, error) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, fmt.Errorf("load module: %w", err)
	}
	m := &Module{Root: root, fset: token.NewFileSet()}
	for line := range strings.Lines(string(mod)) {
		if p, ok := strings.CutPrefix(line, "module "); ok {
			m.Path = strings.TrimSpace(p)
		}
	}
	if m.Path == "" {
		return nil, fmt.Errorf("load module %s: go.mod names no module", root)
	}
	dirs := make(map[string]*Package)
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, "_") || strings.HasPrefix(name, ".") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		return m.add(dirs, filepath.ToSlash(rel))
	})
	if err != nil {
		return nil, fmt.Errorf("load module: %w", err)
	}
	for _, p := range dirs {
		m.Packages = append(m.Packages, p)
	}
	slices.SortFunc(m.Packages, func(a, b *Package) int { return strings.Compare(a.Dir, b.Dir) })
	return m, nil
}

func (m *Module) add(dirs map[string]*Package, rel string) error {
	f, err := parser.ParseFile(m.fset, filepath.Join(m.Root, filepath.FromSlash(rel)), nil, parser.ParseComments)
	if err != nil {
		return err
	}
	dir := path.Dir(rel)
	if dir == "." {
		dir = ""
	}
	p := dirs[dir]
	if p == nil {
		p = &Package{Dir: dir}
		dirs[dir] = p
	}
	file := &File{Name: rel, Test: strings.HasSuffix(rel, "_test.go"), AST: f}
	if !file.Test {
		p.Name = f.Name.Name
	}
	for _, im := range f.Imports {
		ip, err := strconv.Unquote(im.Path.Value)
		if err != nil {
			return fmt.Errorf("%s: import %s: %w", rel, im.Path.Value, err)
		}
		file.Imports = append(file.Imports, Import{Path: ip, Pos: im.Pos()})
	}
	p.Files = append(p.Files, file)
	return nil
}

// own returns the folder of an import of this module.
func (m *Module) own(importPath string) (string, bool) {
	if importPath == m.Path {
		return "", true
	}
	return strings.CutPrefix(importPath, m.Path+"/")
}

// helper reports whether dir is a package for tests: its name ends in "test", or
// it lies in one, or it belongs to the VM tests.
func helper(dir string) bool {
	return slices.ContainsFunc(strings.Split(dir, "/"), func(s string) bool { return strings.HasSuffix(s, "test") || s == "vmtests" })
}
