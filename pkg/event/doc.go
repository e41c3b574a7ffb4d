// Package event holds the vocabulary of Holdfast: the types that one stage
// hands to the next and that a journal entry is made of.
//
// The words mean one thing each, everywhere:
//
//	attempt   what a hook saw before the kernel did it
//	change    a difference of state that was verified afterwards
//	event     one message of the kernel side, decoded (Event)
//	state     what a path was at one moment: type, content hash, metadata (State)
//	actor     a person with credentials, session and origin (Actor)
//	process   an executable running under a pid and an exec id (Process)
//	record    one entry of the journal (Record)
//	gap       a declared loss
//
// The package owns no resource, starts no goroutine and imports nothing of
// Holdfast. Every stage may import it; it promises that record field names, once
// released, are never renamed.
package event
