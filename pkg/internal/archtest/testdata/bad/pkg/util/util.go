// Package util has no place and no name.
package util // want names layers
