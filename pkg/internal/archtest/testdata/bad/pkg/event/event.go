// Package event holds words and, here, state that it must not hold.
package event

import (
	"errors"
	"regexp"
	"testing" // want testing
)

// What may stand at package level.
var (
	ErrGone = errors.New("gone")
	names   = []string{"a", "b"}
	word    = regexp.MustCompile("a+")
	_       = word
)

//go:embed event.go
var source []byte

var counter int // want state

var cache = make(map[string]int) // want state

var hook = func() {} // want state

var late = map[string]int{"a": 1}

var flagged = struct{ on bool }{}

func init() { // want init
	counter++
}

// T uses what the file imports.
func T(_ *testing.T) ([]string, error) {
	names := append(names, "c") // another variable of the same name
	names[0] = "z"
	delete(late, "a") // want state
	return names, ErrGone
}
