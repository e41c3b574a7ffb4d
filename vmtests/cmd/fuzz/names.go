package main

import (
	"fmt"
	"strings"
)

// The names are few, so that processes meet; some are unusual.
const (
	dirNames  = 4
	fileNames = 14
	maxDepth  = 5
)

func (f *fuzzer) dirName() string {
	n := f.r.IntN(dirNames + 1)
	if n == dirNames {
		return "dir with \"blanks\" \xff\xfe and\nlines"
	}
	return fmt.Sprintf("d%d", n)
}

func (f *fuzzer) fileName() string {
	switch n := f.r.IntN(fileNames + 4); n {
	case fileNames:
		return strings.Repeat("long", 63) + "end"
	case fileNames + 1:
		return "no\x80utf\xc3\x28"
	case fileNames + 2:
		return `back\x41slash`
	case fileNames + 3:
		return "\u00e4 \u65e5\u672c\t"
	default:
		return fmt.Sprintf("f%d", n)
	}
}

// dir is the path of a directory that may exist.
func (f *fuzzer) dir() string {
	p := f.tree
	for range f.r.IntN(maxDepth) {
		if f.r.IntN(3) == 0 {
			break
		}
		p += "/" + f.dirName()
	}
	return p
}

// subdir is one that is not the tree itself.
func (f *fuzzer) subdir() string { return f.dir() + "/" + f.dirName() }

// file is the path of a file that may exist.
func (f *fuzzer) file() string { return f.dir() + "/" + f.fileName() }

// any is one of both.
func (f *fuzzer) any() string {
	if f.r.IntN(4) == 0 {
		return f.subdir()
	}
	return f.file()
}

// out is a name outside the tree.
func (f *fuzzer) out() string { return fmt.Sprintf("%s/o%d", f.outside, f.r.IntN(8)) }

// bytes are random content of a random size, most of it small.
func (f *fuzzer) bytes() []byte {
	n := f.r.IntN(200)
	switch f.r.IntN(12) {
	case 0:
		n = f.r.IntN(70000)
	case 1:
		n = 0
	case 2:
		n = 4096
	}
	b := make([]byte, n)
	x := byte(f.r.Uint32())
	for i := range b {
		b[i] = x + byte(i*7)
	}
	return b
}

// about notes what the operation is about, for the trace.
func (f *fuzzer) about(paths ...string) {
	var o []string
	for _, p := range paths {
		o = append(o, fmt.Sprintf("%q", strings.TrimPrefix(p, f.tree+"/")))
	}
	f.note += strings.Join(o, " ")
}
