package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// table collects rows and prints them in columns. A cell may be painted: the
// width is that of the plain text.
type table struct {
	rows  [][]cell
	width []int // of what was printed before
}

type cell struct {
	text  string
	color string
}

func (t *table) add(cells ...string) {
	row := make([]cell, len(cells))
	for i, c := range cells {
		row[i].text = c
	}
	t.rows = append(t.rows, row)
}

// paint colours the cell i of the last row.
func (t *table) paint(i int, color string) { t.rows[len(t.rows)-1][i].color = color }

// print writes the table; the last column is not padded.
func (a *app) print(t *table) {
	width := t.width
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c.text))
		}
	}
	t.width = width
	for _, row := range t.rows {
		var b strings.Builder
		for i, c := range row {
			s := c.text
			if i < len(row)-1 {
				s = pad(s, width[i]+2)
			}
			if c.color != "" {
				s = a.color(c.color, s)
			}
			b.WriteString(s)
		}
		a.line(strings.TrimRight(b.String(), " "))
	}
}

// line prints one line. What cannot be written is told at the end by flush.
func (a *app) line(s string) { fmt.Fprintln(a.buf, s) }

func (a *app) linef(format string, args ...any) { fmt.Fprintf(a.buf, format+"\n", args...) }

// json prints one object on a line of its own.
func (a *app) json(v any) error {
	enc := json.NewEncoder(a.buf)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
