// Package sense is a stage.
package sense
