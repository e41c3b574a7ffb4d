// Package attribute is a stage that looks at another one.
package attribute

import (
	"example.com/bad/pkg/event"
	_ "example.com/bad/pkg/fake/faketest"          // want helpers
	"example.com/bad/pkg/judge"                    // want layers
	_ "github.com/nobody/nothing"                  // want homes
	_ "github.com/rogpeppe/go-internal/testscript" // want homes
	_ "github.com/zeebo/blake3"                    // want homes
	_ "golang.org/x/sys/unix"
)

var _ = event.ErrGone
var _ = judge.Judge
