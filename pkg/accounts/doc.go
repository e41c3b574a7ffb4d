// Package accounts reads the files that say who may do what on a host: passwd,
// shadow, group, gshadow, subuid, subgid, sudoers, authorized_keys, PAM, cron and
// systemd units.
//
// Meaning tells in sentences what a change of such a file did: "user `eve` added
// with uid 0". Redact takes the secrets out of two contents that are shown beside
// each other, and Scrub out of a record. Merge merges three contents record by record.
//
// It is pure: bytes in, bytes and sentences out. It opens nothing, and it knows only
// what stands in the one file: who is in the group that sudoers names, or what an
// included file holds, it does not tell.
//
// Files are known by the end of their path (etc/passwd), so that those of a container
// or of another root are read too. What a sentence never holds: a password hash, the
// material of a key, or the value of a variable of a cron table or unit. What looks
// like a password in a command line is left out too, but cannot always be known as one.
//
// The pipeline, the daemon and the command line call it.
package accounts
