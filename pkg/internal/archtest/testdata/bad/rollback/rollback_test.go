package rollback

import (
	_ "example.com/bad/pkg/journal"
	_ "github.com/rogpeppe/go-internal/testscript"
)

var state int

func init() { state++ }
