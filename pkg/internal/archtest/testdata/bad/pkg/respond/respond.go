// Package respond is a stage.
package respond
