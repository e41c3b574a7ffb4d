// Package vmtests checks Holdfast from outside, by its command line, against the
// truth that acting programs print.
//
// Each file of scripts/ is a txtar archive: a comment that says what it shows,
// run.sh (runs as root in the guest), expect (what must hold of the files that it
// left in /out) and files for the guest. lib.sh is beside every script. The test
// boots a kernel for each script when built with the tag vm; with the tag live
// the tests use the running kernel instead. Without a tag only the readers of the
// expectations are tested.
//
// It owns no product code and nothing imports it.
package vmtests
