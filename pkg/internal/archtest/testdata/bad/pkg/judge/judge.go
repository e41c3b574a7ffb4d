// Package judge is a stage.
package judge

// Judge judges.
func Judge() {}
