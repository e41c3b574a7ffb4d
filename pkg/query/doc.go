// Package query is the one question interface over records: what a filter means,
// what a store must answer, and the questions that every store answers alike
// because they are built from filters (Who, Get, Sessions, Follow).
//
// The index (SQLite behind the local journal) and ClickHouse implement Store;
// both pass the conformance suite in querytest, whose truth is Filter.Match over the plain list of
// records. The command line asks; nothing here writes.
//
// The package promises that the same records give the same answer whichever store is
// asked. It does not promise how fresh the answer is: Lag tells that.
package query
