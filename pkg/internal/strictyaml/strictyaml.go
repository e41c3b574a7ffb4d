// Package strictyaml decodes the YAML files of Holdfast so that nothing in them
// is ignored: an unknown key, a key given twice, a second document and a value
// of the wrong kind are errors that name file and line. It is the one home of
// the YAML module.
//
// Packages config and policy call it. It promises that a decoded value came
// from exactly one document of at most MaxBytes, and that every error is an
// *Error. It does not check what values mean; Document.Line lets the caller do
// that with positions.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// MaxBytes is the largest file that is read: far more than any policy needs,
// and a bound on what a wrong path given by mistake can cost.
const MaxBytes = 4 << 20

// Error is a complaint about one place of a file.
type Error struct {
	File    string
	Line    int // 0 if the place is not known
	Message string
	Hint    string // what to do, "" if the message says it
}

func (e *Error) Error() string { return Pos(e.File, e.Line) + ": " + e.Message }

// Hints returns what to do about the error.
func (e *Error) Hints() []string {
	if e.Hint == "" {
		return nil
	}
	return []string{e.Hint}
}

// Pos writes a place as file:line.
func Pos(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// Document is a decoded file, kept to look up where its values stand.
type Document struct {
	file string
	body ast.Node
}

// Decode reads the one document of data into v, a pointer to a struct. An empty
// file leaves v as it is.
func Decode(file string, data []byte, v any) (*Document, error) {
	if len(data) > MaxBytes {
		return nil, &Error{File: file, Message: fmt.Sprintf("%d bytes are too many", len(data)), Hint: fmt.Sprintf("a file may have %d", MaxBytes)}
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return nil, &Error{File: file, Line: 1 + bytes.Count(data[:i], []byte("\n")), Message: "a NUL byte: this is not YAML text"}
	}
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, convert(file, nil, v, err)
	}
	d := &Document{file: file}
	for _, doc := range f.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if d.body != nil {
			return nil, &Error{File: file, Line: line(doc.Body), Message: "a second document", Hint: "put everything into one document: remove the line ---"}
		}
		d.body = doc.Body
	}
	if d.body == nil {
		return d, nil
	}
	if n := firstExotic(d.body); n != nil {
		return nil, &Error{File: file, Line: line(n), Message: "anchors, aliases and tags are not supported", Hint: "write the plain value where it is used; quote text that begins with & * or !"}
	}
	dec := yaml.NewDecoder(strings.NewReader(""), yaml.Strict())
	if err := dec.DecodeFromNode(d.body, v); err != nil && !errors.Is(err, io.EOF) {
		return nil, convert(file, d.body, v, err)
	}
	return d, nil
}

// Line returns the line of the value at path, for example "$.rules[0].mode", of
// the nearest enclosing value if it is not there, or 0.
func (d *Document) Line(path string) int {
	for d.body != nil && path != "" {
		p, err := yaml.PathString(path)
		if err != nil {
			return 0
		}
		if n, err := p.FilterNode(d.body); err == nil && n != nil {
			return line(n)
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

// Pos returns the place of the value at path as file:line.
func (d *Document) Pos(path string) string { return Pos(d.file, d.Line(path)) }

// line is where a node begins. The token of a mapping is its first colon, so
// that of its first key is asked.
func line(n ast.Node) int {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		n = m.Values[0].Key
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		n = m.Key
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

func convert(file string, body ast.Node, v any, err error) *Error {
	e := &Error{File: file, Message: err.Error()}
	var ye yaml.Error
	if !errors.As(err, &ye) {
		return e
	}
	e.Message = ye.GetMessage()
	t := ye.GetToken()
	if t != nil && t.Position != nil {
		e.Line = t.Position.Line
	}
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) && t != nil {
		e.Message = fmt.Sprintf("unknown key %q", t.Value)
		if body != nil {
			e.Hint = knownKeys(body, t.Position.Offset, v)
		}
	}
	var te *yaml.TypeError
	if errors.As(err, &te) && t != nil {
		e.Message = fmt.Sprintf("%q is not %s", t.Value, kindName(te.DstType))
	}
	var node *yaml.UnexpectedNodeTypeError
	if errors.As(err, &node) && t != nil {
		e.Message = fmt.Sprintf("%q is not %s", t.Value, nodeName(node.Expected))
	}
	return e
}

func nodeName(t ast.NodeType) string {
	switch t {
	case ast.SequenceType:
		return "a list"
	case ast.MappingType:
		return "a group of keys"
	default:
		return t.YAMLName()
	}
}

// kindName says in words which kind of value t is.
func kindName(t reflect.Type) string {
	if t == nil {
		return "a value of the right kind"
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a group of keys"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Pointer:
		return kindName(t.Elem())
	default:
		return "a number"
	}
}

// knownKeys names the keys that v's type has at the place of the key that
// stands at offset.
func knownKeys(body ast.Node, offset int, v any) string {
	var f finder
	f.offset = offset
	ast.Walk(&f, body)
	t := reflect.TypeOf(v)
	for _, part := range strings.FieldsFunc(f.path, func(r rune) bool { return r == '.' || r == '[' }) {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch {
		case part == "$":
		case strings.HasSuffix(part, "]") && t.Kind() == reflect.Slice:
			t = t.Elem()
		case t.Kind() == reflect.Struct:
			next, ok := field(t, part)
			if !ok { // the unknown key itself
				return "keys known here: " + strings.Join(keys(t), ", ")
			}
			t = next
		default:
			return ""
		}
	}
	return ""
}

type finder struct {
	offset int
	path   string
}

// Visit implements ast.Visitor.
func (f *finder) Visit(n ast.Node) ast.Visitor {
	if m, ok := n.(*ast.MappingValueNode); ok {
		if t := m.Key.GetToken(); t != nil && t.Position.Offset == f.offset {
			f.path = m.Key.GetPath()
		}
	}
	return f
}

func field(t reflect.Type, key string) (reflect.Type, bool) {
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name == key {
			return f.Type, true
		}
	}
	return nil, false
}

func keys(t reflect.Type) []string {
	var k []string
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && name != "-" {
			k = append(k, name)
		}
	}
	sort.Strings(k)
	return k
}

type exoticFinder struct{ found ast.Node }

// Visit implements ast.Visitor.
func (f *exoticFinder) Visit(n ast.Node) ast.Visitor {
	switch n.Type() {
	case ast.AliasType, ast.AnchorType, ast.MergeKeyType, ast.TagType:
		if f.found == nil {
			f.found = n
		}
	}
	return f
}

// firstExotic finds anchors, aliases and merge keys, which make a small file
// large and hide which line a value came from, and tags, which choose a Go type.
func firstExotic(n ast.Node) ast.Node {
	var f exoticFinder
	ast.Walk(&f, n)
	return f.found
}
