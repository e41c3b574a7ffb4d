// Package querytest is the conformance suite of query.Store: the same records in,
// the same answers out. Its truth is Filter.Match over the plain list of records,
// and for the questions built from filters a walk over that list written here.
//
// The tests of index and of clickhouse call Run; a store that passes can be asked by the command line.
package querytest
