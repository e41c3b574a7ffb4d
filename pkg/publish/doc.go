// Package publish sends copies of signed checkpoints to where root on this host
// cannot take them back: a file on other storage, a syslog server. Held against
// them, a log that was rewritten or put back to an older state shows (verify
// --checkpoint).
//
// It owns no state: a place gets the newest checkpoint when Every has passed and there is a new one, and
// before it each change of the signing key since its last success; at a start those of the last day, and at least the last.
// What cannot be sent is tried again with the next; Stats tell how far each place is. Nothing
// waits for it. ClickHouse gets checkpoints from ship.
//
// What is not promised: that a place kept what it took. UDP and datagram sockets do not tell.
package publish
