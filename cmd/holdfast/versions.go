package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback"
)

func (a *app) versionsCommand() *cli.Command {
	return &cli.Command{
		Name:      "versions",
		Usage:     "list the kept versions of a path, oldest first",
		ArgsUsage: "PATH",
		Flags:     []cli.Flag{jsonFlag()},
		Action:    a.versions,
	}
}

func (a *app) versions(c *cli.Context) (err error) {
	vault, path, err := a.vaultPath(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vault.Close()) }()
	list := vault.Versions(path)
	if len(list) == 0 {
		return noVersions(vault, path)
	}
	t := &table{}
	t.add("VERSION", "TIME", "TRUSTED", "SIZE", "MODE", "OWNER", "CONTENT", "WHY")
	for i := range list {
		v := &list[i]
		if c.Bool("json") {
			shown := *v
			shown.Path = event.Text([]byte(v.Path))
			if err := a.json(shown); err != nil {
				return err
			}
			continue
		}
		trusted := ""
		if v.Trusted {
			trusted = "trusted"
		}
		size, mode, own, content := "-", "-", "-", "nothing there"
		if s := &v.State; s.Exists {
			size, mode, own, content = bytesText(s.Size), s.Mode.String(), owner(s), contentText(s)
		}
		t.add(fmt.Sprint(v.ID), when(v.Since()), trusted, size, mode, own, content, printableText(v.Reason))
		if v.Trusted {
			t.paint(2, green)
		}
	}
	if !c.Bool("json") {
		a.print(t)
	}
	return nil
}

// contentText names the content of a state in a few characters.
func contentText(s *event.State) string {
	switch {
	case s.Type == event.TypeSymlink:
		return "→ " + shellQuote(string(s.Target))
	case !s.Hash.IsZero():
		return s.Hash.Hex()[:16]
	}
	return s.Type
}

// noVersions explains an empty answer: a directory has none of its own kind.
func noVersions(vault *rollback.Store, path string) error {
	err := fmt.Errorf("%s: %w: no version is kept", shellQuote(path), errNotFound)
	if below := vault.Paths(path); len(below) > 0 {
		return hint(err, fmt.Sprintf("%s below it: holdfast versions %s", plural(uint64(len(below)), "path"), shellQuote(below[0])))
	}
	return hint(err, "versions are kept of watched files: holdfast policy explain "+shellQuote(path))
}

// vaultPath is what verbs about the versions of one PATH begin with.
func (a *app) vaultPath(c *cli.Context) (vault *rollback.Store, path string, err error) {
	if err := someArgs(c, "PATH", 1, 1); err != nil {
		return nil, "", err
	}
	if path, err = absolute(c.Args().First()); err != nil {
		return nil, "", err
	}
	cfg, err := a.settings(c)
	if err != nil {
		return nil, "", err
	}
	vault, err = a.openVault(cfg)
	return vault, path, err
}
