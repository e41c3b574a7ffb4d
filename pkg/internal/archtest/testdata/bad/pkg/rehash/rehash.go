// Package rehash is a stage.
package rehash
