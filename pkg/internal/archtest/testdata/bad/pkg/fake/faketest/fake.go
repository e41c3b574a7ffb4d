// Package faketest may import testing and anything of ours.
package faketest

import (
	"testing"

	"example.com/bad/pkg/pipeline"
)

var t testing.T
