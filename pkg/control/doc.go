// Package control is how the command line and a running daemon talk: JSON over
// HTTP on a unix socket that only root may use.
//
// The daemon implements Handler and gives it to a Server; the command line calls
// a Client, which is a Handler too, so that the same verb works on a running
// daemon and, with the daemon's offline operations, without one.
//
// The package promises: the socket is created with mode 0600 and every
// connection's peer credentials are checked by the kernel's word (SO_PEERCRED);
// the handler learns who asks through PeerFrom; the kinds of error (ErrNotFound,
// ErrInvalid, ErrBusy) survive the way through the socket; a socket left behind
// by a crash is replaced, one that is answered is not.
//
// It does not queue or order requests: that is the handler's business.
package control
