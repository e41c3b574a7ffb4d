// Package index keeps an SQLite file behind the journal, so that questions about
// records are answered without reading all of them.
//
// It owns that file and nothing else. The file holds for each record the columns
// that filters ask for and the place of the record in the journal; the record itself is read
// from there. It is derived and disposable: a file that is missing, damaged, of
// another schema, or that does not belong to this journal is put aside (of another schema: removed) and built
// anew, and the only loss is time.
//
// The daemon calls Open and Run (one writer); the command line calls OpenRead, beside the
// daemon or without it. A store from OpenRead is never behind: what is not indexed yet is read from
// the journal, and without a usable index everything is.
//
// What is not promised: that a record which was tampered with in the journal is
// found. Records that cannot be read are left out of answers, counted, and named in Lag.Note;
// verify says which they are. Nothing here checks signatures.
//
// Writes go in transactions of many records with synchronous=NORMAL: a power cut
// may take the last ones back, which are then indexed again.
package index
