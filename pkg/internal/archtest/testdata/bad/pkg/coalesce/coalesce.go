// Package coalesce is a stage.
package coalesce
