// Package daemon puts Holdfast together: it opens the state, chooses a tier, arms
// the rules, runs the stages and answers the control socket.
//
// It owns the state directory (one daemon at a time: journal and vault are
// locked), the goroutines it starts (Run waits for all of them) and the order of
// start and stop:
//
//	state open → socket → kernel side → stages run → guarded → enrolled → armed → compared → ready
//	signal, or stop on the record → guard off → kernel side closed → stages drained → journal, vault and socket closed
//
// A tree is enrolled before it is armed, and compared again after it, so that
// what changed in between is found. Whatever makes the daemon do less than it was
// configured to do is one of its degraded reasons: in the log, in status and in
// an agent record.
//
// Offline gives the operations of the control socket on the state of a daemon
// that does not run.
package daemon
