// Package archtest holds the rules of the source tree and executes them: who
// may import whom, where each third-party module is at home, what no package
// may hold, and that the numbered path in pkg/README.md, the folders and the
// pipeline agree.
//
// Load parses a module; Check returns every breach of every rule, each with its
// place and the reason for the rule. The package's own test runs the rules over
// the repository and over a bad module in testdata in which every rule must find
// what is marked there, so that no rule passes by looking at nothing.
//
// It reads source only: what cgo, build tags or reflection do is not seen. Files
// for all build tags are parsed.
package archtest
