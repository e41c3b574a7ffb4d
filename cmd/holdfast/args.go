package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder moves flags before arguments and global flags before the verb, so that
// "holdfast restore /etc/hosts --dry-run" means what it says. The flag parser
// stops at the first argument, and would take --dry-run for a path. What follows
// "--" is never a flag.
func reorder(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	var global, verbs, flags, rest []string
	known, commands := app.Flags, app.Commands
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			if c := find(commands, arg); c != nil && len(rest) == 0 {
				verbs, known, commands = append(verbs, arg), c.Flags, c.Subcommands
				continue
			}
			rest = append(rest, arg)
			continue
		}
		name, _, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		to := &flags
		f := flag(known, name)
		if g := flag(app.Flags, name); g != nil {
			f, to = g, &global
		}
		*to = append(*to, arg)
		if f != nil && !inline && takesValue(f) && i+1 < len(args) {
			i++
			*to = append(*to, args[i])
		}
	}
	out := slices.Concat(args[:1], global, verbs, flags)
	if len(rest) > 0 {
		if len(verbs) > 0 && len(commands) == 0 { // a verb's arguments; "--" would hide an unknown verb
			out = append(out, "--")
		}
		out = append(out, rest...)
	}
	return out
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func flag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
