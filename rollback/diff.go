package rollback

import (
	"bytes"
	"fmt"
	"io"
)

// DiffOptions are the choices of DiffText.
type DiffOptions struct {
	OldName, NewName string // in the header; default "old" and "new"
	Context          int    // equal lines around a difference; default 3
	Max              int64  // contents longer than that are only summed up; default 4 MiB
}

// maxEdits bounds the work for two texts that have little in common: beyond it
// the part that differs is shown as replaced as a whole.
const maxEdits = 1500

// DiffText writes how two contents differ: as unified text, such as diff -u
// prints and patch takes, or in one line if one of them is binary or long. It
// reports whether they differ.
func DiffText(w io.Writer, old, new io.Reader, o DiffOptions) (differ bool, err error) {
	if o.Context == 0 {
		o.Context = 3
	}
	if o.Max == 0 {
		o.Max = 4 << 20
	}
	if o.OldName == "" {
		o.OldName = "old"
	}
	if o.NewName == "" {
		o.NewName = "new"
	}
	a, aLong, err := readUpTo(old, o.Max)
	if err != nil {
		return false, fmt.Errorf("diff %s: %w", o.OldName, err)
	}
	b, bLong, err := readUpTo(new, o.Max)
	if err != nil {
		return false, fmt.Errorf("diff %s: %w", o.NewName, err)
	}
	if !aLong && !bLong && bytes.Equal(a, b) {
		return false, nil
	}
	switch {
	case aLong || bLong:
		_, err = fmt.Fprintf(w, "Contents %s and %s differ or are longer than %d bytes\n", o.OldName, o.NewName, o.Max)
	case bytes.IndexByte(a, 0) >= 0 || bytes.IndexByte(b, 0) >= 0:
		_, err = fmt.Fprintf(w, "Binary contents %s (%d bytes) and %s (%d bytes) differ\n", o.OldName, len(a), o.NewName, len(b))
	default:
		var out bytes.Buffer
		fmt.Fprintf(&out, "--- %s\n+++ %s\n", o.OldName, o.NewName)
		writeHunks(&out, edits(lines(a), lines(b)), o.Context)
		_, err = out.WriteTo(w)
	}
	return true, err
}

func readUpTo(r io.Reader, max int64) (b []byte, long bool, err error) {
	b, err = io.ReadAll(io.LimitReader(r, max+1))
	return b, int64(len(b)) > max, err
}

// lines splits after each newline; the last line may lack it.
func lines(b []byte) []string {
	var out []string
	for len(b) > 0 {
		n := bytes.IndexByte(b, '\n') + 1
		if n == 0 {
			n = len(b)
		}
		out = append(out, string(b[:n]))
		b = b[n:]
	}
	return out
}

// edit is one line of the result: ' ' in both, '-' only in the old, '+' only in the new.
type edit struct {
	kind byte
	line string
}

// edits is a shortest way from a to b (Myers, "An O(ND) Difference Algorithm"),
// around what both begin and end with.
func edits(a, b []string) []edit {
	var out []edit
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		out = append(out, edit{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	same := 0
	for same < len(a) && same < len(b) && a[len(a)-1-same] == b[len(b)-1-same] {
		same++
	}
	tail := a[len(a)-same:]
	a, b = a[:len(a)-same], b[:len(b)-same]
	out = append(out, middle(a, b)...)
	for _, l := range tail {
		out = append(out, edit{' ', l})
	}
	return out
}

func middle(a, b []string) []edit {
	n, m := len(a), len(b)
	limit := min(n+m, maxEdits)
	// reach[k+limit] is how far along a the best path on diagonal k = x-y comes.
	reach := make([]int, 2*limit+2)
	var trace [][]int
	for d := 0; d <= limit; d++ {
		trace = append(trace, append([]int(nil), reach[limit-d:limit+d+1]...))
		for k := -d; k <= d; k += 2 {
			x := 0
			if k == -d || k != d && reach[limit+k-1] < reach[limit+k+1] {
				x = reach[limit+k+1]
			} else {
				x = reach[limit+k-1] + 1
			}
			for x < n && x-k < m && a[x] == b[x-k] {
				x++
			}
			reach[limit+k] = x
			if x >= n && x-k >= m {
				return walkBack(a, b, trace)
			}
		}
	}
	var out []edit
	for _, l := range a {
		out = append(out, edit{'-', l})
	}
	for _, l := range b {
		out = append(out, edit{'+', l})
	}
	return out
}

// walkBack reads the way from the end. trace[d] holds the reach before step d on
// diagonals -d to d.
func walkBack(a, b []string, trace [][]int) []edit {
	var rev []edit
	x, y := len(a), len(b)
	for d := len(trace) - 1; d > 0; d-- {
		v := func(k int) int { return trace[d][k+d] }
		k := x - y
		prev := k - 1
		if k == -d || k != d && v(k-1) < v(k+1) {
			prev = k + 1
		}
		px := v(prev)
		py := px - prev
		for x > px && y > py {
			x, y = x-1, y-1
			rev = append(rev, edit{' ', a[x]})
		}
		if x == px {
			y--
			rev = append(rev, edit{'+', b[y]})
		} else {
			x--
			rev = append(rev, edit{'-', a[x]})
		}
	}
	for x > 0 {
		x--
		rev = append(rev, edit{' ', a[x]})
	}
	out := make([]edit, 0, len(rev))
	for i := len(rev) - 1; i >= 0; i-- {
		out = append(out, rev[i])
	}
	return out
}

// writeHunks groups the edits with their context.
func writeHunks(w *bytes.Buffer, es []edit, context int) {
	oldLine, newLine := 1, 1 // of es[i]
	for i := 0; i < len(es); {
		if es[i].kind == ' ' {
			i, oldLine, newLine = i+1, oldLine+1, newLine+1
			continue
		}
		start := max(0, i-context)
		end, quiet := i, 0
		for end < len(es) && quiet <= 2*context {
			if es[end].kind == ' ' {
				quiet++
			} else {
				quiet = 0
			}
			end++
		}
		end -= max(0, quiet-context)
		oldStart, newStart := oldLine-(i-start), newLine-(i-start)
		var olds, news int
		for _, e := range es[start:end] {
			if e.kind != '+' {
				olds++
			}
			if e.kind != '-' {
				news++
			}
		}
		fmt.Fprintf(w, "@@ -%s +%s @@\n", span(oldStart, olds), span(newStart, news))
		for _, e := range es[start:end] {
			w.WriteByte(e.kind)
			w.WriteString(e.line)
			if e.line[len(e.line)-1] != '\n' {
				w.WriteString("\n\\ No newline at end of file\n")
			}
		}
		oldLine, newLine, i = oldStart+olds, newStart+news, end
	}
}

func span(start, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", start-1)
	case 1:
		return fmt.Sprint(start)
	}
	return fmt.Sprintf("%d,%d", start, n)
}
