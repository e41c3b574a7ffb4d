package window

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
)

// Bounds of windows. What is longer or more is refused.
const (
	MaxOpen = 64
	MaxFor  = 7 * 24 * time.Hour
	MinFor  = time.Second
	// MaxTicket is in bytes, and that of a user's name.
	MaxTicket = 256
)

// Window is one approved window. Paths and programs are raw bytes; a field that is
// empty matches all.
type Window struct {
	Number uint64
	Ticket string
	Path   string // covers itself and all below it; * ? [ ] match within a component
	User   string // the person who logged in: a name, or the number of the login
	Exe    string // the program that makes the change, or the script that it interprets

	Opened event.Time // by the wall clock of then
	Until  event.Time // the same
	Boot   string     // id of the boot in which it was opened
	From   int64      // ns since that boot
	Record string     // id of the record of its opening
	By     string     // who opened it, for people
}

// Change is what is asked about. Its times are ns since boot: between them lies all
// that was done, as far as is known.
type Change struct {
	Paths       []string
	Actor       *event.Actor
	Process     *event.Process // nil: not known
	First, Last int64
	Person      bool // only a window of a person covers it
}

// Check reports what is wrong with a window, and makes its paths clean.
func (w *Window) Check() error {
	if err := words("ticket", w.Ticket); err != nil {
		return err
	}
	if w.Ticket == "" {
		return fmt.Errorf("a window needs a ticket: the records name it")
	}
	if err := words("user", w.User); err != nil {
		return err
	}
	if w.User == event.Unknown {
		return fmt.Errorf("user %q is nobody: leave the user out to match all, or name a program", w.User)
	}
	for what, p := range map[string]*string{"path": &w.Path, "executable": &w.Exe} {
		if *p == "" {
			continue
		}
		clean, msg, hint := policy.Pattern(*p)
		if msg == "" && what == "executable" && (strings.ContainsAny(*p, "*?") || clean == "/") {
			msg, hint = "names no file", "name the one program"
		}
		if msg != "" {
			return fmt.Errorf("%s %q %s: %s", what, event.Text([]byte(*p)), msg, hint)
		}
		*p = clean
	}
	if d := time.Duration(w.Until - w.Opened); d < MinFor || d > MaxFor {
		return fmt.Errorf("a window is open for at least %s and at most %s, not %s", MinFor, MaxFor, d)
	}
	return nil
}

// words checks a text that people read.
func words(what, s string) error {
	switch {
	case len(s) > MaxTicket:
		return fmt.Errorf("a %s of %d bytes: %d are allowed", what, len(s), MaxTicket)
	case !utf8.ValidString(s), strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }), strings.TrimSpace(s) != s:
		return fmt.Errorf("%s %q has characters that do not print, or begins or ends with a space", what, s)
	}
	return nil
}

// Name is what reasons call the window.
func (w *Window) Name() string { return fmt.Sprintf("window %d, ticket %s", w.Number, w.Ticket) }

// Scope says what the window covers, for people.
func (w *Window) Scope() string {
	parts := []string{"any path"}
	if w.Path != "" {
		parts[0] = event.Text([]byte(w.Path))
	}
	if w.User != "" {
		parts = append(parts, "by "+w.User)
	}
	if w.Exe != "" {
		parts = append(parts, "with "+event.Text([]byte(w.Exe)))
	}
	return strings.Join(parts, " ")
}

// At is the path that the records of the window are of: "" for any, and for a pattern.
func (w *Window) At() string {
	if strings.ContainsAny(w.Path, "*?[") {
		return ""
	}
	return w.Path
}

// Mark is what the record of a change keeps of the window that covers it.
func (w *Window) Mark() map[string]string {
	return map[string]string{"window": strconv.FormatUint(w.Number, 10), "ticket": w.Ticket, "window_record": w.Record}
}

// Detail is what the records of a window's opening and end keep. The first of them
// vouches for the file: see Vouched.
func (w *Window) Detail() map[string]string {
	d := map[string]string{
		"window": strconv.FormatUint(w.Number, 10), "ticket": w.Ticket, "opened": w.Opened.String(), "until": w.Until.String(),
		"boot_ns": strconv.FormatInt(w.From, 10),
	}
	for key, v := range map[string]string{"user": w.User, "path": event.Text([]byte(w.Path)), "exe": event.Text([]byte(w.Exe))} {
		if v != "" {
			d[key] = v
		}
	}
	return d
}

// Vouched reports whether r is the record of the opening of w, as it is.
func (w *Window) Vouched(r *event.Record) bool {
	return r.ID == w.Record && r.Boot == w.Boot && r.Response != nil && r.Response.Action == ActionOpen && maps.Equal(r.Detail, w.Detail())
}

// The actions of the records of windows.
const (
	ActionOpen  = "window_open"
	ActionClose = "window_close"
	ActionEnd   = "window_end" // by the clock
)

// CoversPath reports whether the window covers a path.
func (w *Window) CoversPath(p string) bool { return w.Path == "" || policy.Covers(w.Path, p) }

// covers is all but the time.
func (w *Window) covers(c *Change, mntNS string) bool {
	if c.Person && w.User == "" {
		return false
	}
	if w.User != "" && (c.Actor == nil || c.Actor.Loginuid == event.Unset ||
		c.Actor.User != w.User && strconv.FormatUint(uint64(c.Actor.Loginuid), 10) != w.User) {
		return false
	}
	if w.Exe != "" {
		// A path in another mount namespace may be another program.
		if c.Process == nil || c.Process.MntNS != mntNS {
			return false
		}
		if exe := event.Text([]byte(w.Exe)); c.Process.Exe != exe && c.Process.Script != exe {
			return false
		}
	}
	for _, p := range c.Paths {
		if !w.CoversPath(p) {
			return false
		}
	}
	return len(c.Paths) > 0
}
