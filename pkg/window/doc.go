// Package window holds the approved change windows: for some time, what a person or a
// program changes somewhere is expected, becomes the trusted state, and is not put back.
//
// It owns the file of the open windows, and answers whether one of them covers a
// change. It promises: a window counts by CLOCK_BOOTTIME, which goes on while the
// machine sleeps and which setting the clock does not move; a change is covered by when
// it was done, from its first operation to its last, not by when it is looked at, so
// that a window which has ended goes on covering what was done in it until Forget; a
// change of several names is covered if one window covers all of them; what is not
// known, a person, a program or a time, is never covered by a window that asks for it.
// The file is replaced whole and durably: a crash leaves it old or new.
//
// After a reboot, for which no other clock counts, a window goes on to its end by the
// wall clock. If that stands before the window was opened, the window has ended.
//
// It writes no record and asks nobody: who may open a window, and that it is on the
// record, is the business of pkg/daemon, which also ends windows (Due). A program is
// known by its path as the process saw it, in the mount namespace that Options names.
//
// Called by pkg/daemon, and by pkg/pipeline through an interface of its own.
package window
