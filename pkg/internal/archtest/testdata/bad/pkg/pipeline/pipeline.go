// Package pipeline calls the stages in a wrong order.
package pipeline

import (
	"example.com/bad/pkg/attribute"
	"example.com/bad/pkg/decode"
)

func run() { // want path
	attribute.Who()
	decode.Decode()
}
