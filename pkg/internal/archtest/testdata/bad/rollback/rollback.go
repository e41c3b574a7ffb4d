// Package rollback reaches up.
package rollback

import (
	_ "example.com/bad/pkg/event"
	_ "example.com/bad/pkg/journal" // want layers
)
