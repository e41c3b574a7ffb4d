// Command holdfast may not name a stage.
package main

import (
	_ "example.com/bad/pkg/journal"
	_ "example.com/bad/pkg/sense" // want layers
)
