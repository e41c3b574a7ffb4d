// Package policy is the language in which people say what Holdfast watches: it
// parses rules, checks them against a machine, says which rule holds for a path,
// and explains why.
//
// A policy file is YAML, one list of rules:
//
//	rules:
//	  - name: etc                     # unique; records carry it
//	    paths: [/etc, /usr/local/bin] # files or whole trees, absolute
//	    except: [mtab, /etc/cups, "*.swp", "ssl/*.tmp"]
//	    mode: restore                 # observe, restore or block
//	    allow: [/usr/bin/dpkg]        # executables whose changes are expected
//	    held: report                  # report, freeze or kill who had a file open before
//
// A path names itself and everything below it, compared by component: /etc/ssh
// does not hold for /etc/ssh_config. Where several rules hold, the one with the
// deepest path wins. An except takes a path out of its own rule only; a rule
// with a shallower path may still hold for it. Excepts are absolute, or relative
// to each path of their rule; * ? [ ] are allowed in the last component, and a
// pattern without a slash holds at any depth below the rule's paths. Mode block
// allows no patterns: the kernel decides by inode and cannot match names. held
// says what is done about a process that can change a file by a descriptor or a
// mapping which was there before the file was watched, beyond the record that names
// it; freeze (SIGSTOP) and kill (SIGKILL) need mode restore or block. Bytes
// that are no UTF-8 are written \xNN, as in records.
//
// The package promises that a Policy made by New, Parse or Load is well formed:
// absolute clean paths, known modes, unique names, no path in two rules, nothing
// below /proc or /sys. Match and Explain are pure; only Check looks at a machine,
// through its Env. config and the daemon load policies, judge matches with
// them, sense writes them into the kernel, the CLI checks and explains.
//
// It does not resolve symbolic links in rule paths (Check points them out and
// Canonical rewrites them) and does not know what a tier can do.
package policy
