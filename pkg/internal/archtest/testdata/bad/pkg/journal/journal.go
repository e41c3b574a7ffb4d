// Package journal is a stage.
package journal
