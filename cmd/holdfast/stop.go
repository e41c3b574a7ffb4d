package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/control"
)

func (a *app) stopCommand() *cli.Command {
	return &cli.Command{
		Name:  "stop",
		Usage: "end the daemon, and with it the guard over its own files; recorded with who and why",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "why, for the record: `TEXT` (required)"},
			boolFlag("wait", "return when the daemon has ended"),
			&cli.DurationFlag{Name: "timeout", Value: time.Minute, Usage: "give up waiting after `TIME`"},
		},
		Action: a.stop,
	}
}

func (a *app) stop(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	reason := strings.TrimSpace(c.String("reason"))
	if reason == "" {
		return hint(usagef("stop needs --reason"), "say why nothing is to be watched from now on; the record keeps it")
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	client := control.NewClient(cfg.Socket)
	st, err := client.Status(c.Context)
	if err != nil {
		return daemonError(err)
	}
	// A descriptor of the process, while it cannot be another one's pid yet.
	fd, pidErr := unix.PidfdOpen(st.PID, 0)
	if pidErr == nil {
		defer unix.Close(fd)
	}
	if _, err := client.Stop(c.Context, control.StopRequest{Reason: reason}); err != nil {
		return daemonError(err)
	}
	if !c.Bool("wait") {
		a.linef("the daemon is stopping; start it again with systemctl start holdfast")
		return nil
	}
	if pidErr != nil {
		return fmt.Errorf("wait for pid %d: %w", st.PID, pidErr)
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	if err := ended(ctx, fd); err != nil {
		return fmt.Errorf("wait for pid %d to end: %w", st.PID, err)
	}
	a.linef("the daemon has ended; start it again with systemctl start holdfast")
	return nil
}

// ended waits until the process behind a descriptor has ended (pidfd_open(2)).
func ended(ctx context.Context, fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case n > 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}
