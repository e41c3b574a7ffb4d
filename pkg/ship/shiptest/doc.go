// Package shiptest holds what tests of shipping need: the conformance suite that a
// ship.Sink must pass, a sink and a journal in memory, and ways to make them fail.
// The sink in memory passes the suite as the real one does.
package shiptest
