package daemon

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/sense"
	"github.com/holdfast/holdfast/pkg/window"
)

func windowFile(state string) string { return filepath.Join(state, "windows") }

func windowOptions(state, boot string, ns uint32, vouch func(*window.Window) error) window.Options {
	return window.Options{
		File: windowFile(state), Boot: boot, Now: func() int64 { return int64(newClock().Boot()) }, Wall: now,
		MntNS: fmt.Sprintf("mnt:[%d]", ns), Vouch: vouch,
	}
}

// openWindows opens the windows. One of which the log does not tell is not in force.
func (s *state) openWindows() error {
	ns, err := mountNS()
	if err != nil {
		return err
	}
	s.windows, s.windowsErr = window.Open(windowOptions(s.cfg.State, s.boot, ns, s.vouch))
	return nil
}

// vouch looks for the record of a window's opening.
func (s *state) vouch(w *window.Window) error {
	seq, err := strconv.ParseUint(w.Record[strings.LastIndexByte(w.Record, '/')+1:], 10, 64)
	if err != nil {
		return fmt.Errorf("the record of its opening: %w", err)
	}
	r, err := journal.OpenReader(s.cfg.JournalDir())
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.Seek(seq); err != nil {
		return err
	}
	e, err := r.Next(context.Background())
	if err != nil {
		return fmt.Errorf("the record of its opening: %w", err)
	}
	rec, err := journal.Decode(e.Bytes)
	if err != nil {
		return err
	}
	if !w.Vouched(rec) {
		return fmt.Errorf("no record tells of its opening: record %d is another one", seq)
	}
	return nil
}

// Window implements control.Handler.
func (o ops) Window(ctx context.Context, r control.WindowRequest) (control.Outcome, error) {
	o.windowing.Lock()
	defer o.windowing.Unlock()
	if err := o.endWindows(ctx); err != nil {
		return control.Outcome{}, err
	}
	if r.Close != 0 || r.CloseTicket != "" {
		return o.closeWindows(ctx, r)
	}
	return o.openWindow(ctx, r)
}

func (o ops) openWindow(ctx context.Context, r control.WindowRequest) (control.Outcome, error) {
	var out control.Outcome
	if h := r.Host; h != "" && h != o.host && h != o.hostID && h != event.Machine(o.hostID) {
		return out, fmt.Errorf("open window for host %q: this is %s (%s), and windows are opened on the host: %w", h, o.host, o.hostID, control.ErrInvalid)
	}
	asked := o.asker(ctx)
	ask := window.Window{Ticket: r.Ticket, Path: string(r.Path), User: r.User, Exe: string(r.Exe), By: nameOf(asked)}
	notes := resolveScope(&ask)
	w, err := o.windows.New(ask, time.Duration(r.ForNS))
	if errors.Is(err, window.ErrFull) {
		return out, fmt.Errorf("open window: %w", err)
	}
	if err != nil {
		return out, fmt.Errorf("open window: %w: %w", control.ErrInvalid, err)
	}
	rec := answer(asked, window.ActionOpen, w.At(), w.Name()+": "+w.Scope()+" is expected until "+w.Until.String())
	rec.Response.Outcome, rec.Detail = "intended", w.Detail()
	if _, err := o.journal.AppendDurable(ctx, rec); err != nil {
		return out, fmt.Errorf("record the window: %w", err)
	}
	w.Record = rec.ID
	err = o.windows.Add(w)
	if err := o.done(ctx, asked, window.ActionOpen, &w, rec.Reason, err); err != nil {
		return out, err
	}
	p := o.policy()
	shown := o.shown(p, &w)
	out.Windows = []control.Window{shown}
	out.Notes = append(notes, scopeNotes(p, &w)...)
	if o.windowsErr != nil {
		out.Notes = append(out.Notes, "not in force: "+o.windowsErr.Error())
	}
	for _, b := range shown.Unopened {
		out.Notes = append(out.Notes, fmt.Sprintf("rule %s blocks: the kernel refuses changes there as before, where it can: only a window of a person (--user) opens it", b))
	}
	for _, b := range shown.LetsThrough {
		out.Notes = append(out.Notes, fmt.Sprintf("rule %s blocks: while this window is open, the kernel lets who logged in as %s through all of it; what the window does not cover is put back", b, w.User))
	}
	if err := o.letIn(); err != nil {
		out.Notes = append(out.Notes, "what blocks goes on to: "+err.Error())
	}
	return out, nil
}

// letIn lets those through rules that block whom the open windows name. It is called
// with windowing held.
func (s *state) letIn() error {
	if s.through == nil {
		return nil
	}
	return s.through(s.windows.List())
}

func (d *Daemon) letThrough(ws []window.Window) error {
	var persons []sense.Person
	for _, w := range ws {
		uid, ok := loginuid(w.User)
		if !ok {
			continue
		}
		for _, r := range touching(d.rules.policy, &w) {
			if d.rules.mode[r.Name] == event.ModeBlock {
				persons = append(persons, sense.Person{Rule: d.rules.number[r.Name], Loginuid: uid})
			}
		}
	}
	return d.sensor.LetIn(persons)
}

// loginuid is the number of who logs in with a name, which may be a number.
func loginuid(name string) (uint32, bool) {
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil && name != "" {
		var u *user.User
		if u, err = user.Lookup(name); err == nil {
			n, err = strconv.ParseUint(u.Uid, 10, 32)
		}
	}
	return uint32(n), err == nil && uint32(n) != event.Unset
}

// done records what became of what was intended for a window.
func (o ops) done(ctx context.Context, asked by, action string, w *window.Window, reason string, failed error) error {
	rec := answer(asked, action, w.At(), reason)
	rec.Response.Of, rec.Detail = w.Record, w.Detail()
	if failed != nil {
		rec.Response.Outcome, rec.Response.Error = control.StepFailed, failed.Error()
	}
	_, err := o.journal.AppendDurable(ctx, rec)
	if err != nil {
		err = fmt.Errorf("record what became of %s: %w", w.Name(), err)
	}
	return errors.Join(failed, err)
}

func (o ops) closeWindows(ctx context.Context, r control.WindowRequest) (control.Outcome, error) {
	var out control.Outcome
	asked, p := o.asker(ctx), o.policy()
	for _, w := range o.windows.List() {
		if w.Number != r.Close && (r.CloseTicket == "" || w.Ticket != r.CloseTicket) {
			continue
		}
		reason := w.Name() + " is closed"
		rec := answer(asked, window.ActionClose, w.At(), reason)
		rec.Response.Outcome, rec.Response.Of, rec.Detail = "intended", w.Record, w.Detail()
		if _, err := o.journal.AppendDurable(ctx, rec); err != nil {
			return out, fmt.Errorf("record the end of %s: %w", w.Name(), err)
		}
		if err := o.done(ctx, asked, window.ActionClose, &w, reason, o.windows.Remove(w.Number)); err != nil {
			return out, err
		}
		out.Windows = append(out.Windows, o.shown(p, &w))
	}
	if err := o.letIn(); err != nil {
		return out, fmt.Errorf("close window: %w", err)
	}
	if len(out.Windows) == 0 {
		what := fmt.Sprintf("window %d", r.Close)
		if r.CloseTicket != "" {
			what = "ticket " + r.CloseTicket
		}
		return out, fmt.Errorf("close window: %s: no such window is open: %w", what, control.ErrNotFound)
	}
	return out, nil
}

// endWindows removes the windows that have ended by the clock, each with its record
// before. After a crash one may have two.
func (o ops) endWindows(ctx context.Context) error {
	for _, w := range o.windows.Due() {
		// nobody asks for it: this process is who ends it
		rec := answer(o.asker(context.Background()), window.ActionEnd, w.At(), w.Name()+" has ended: its time is over")
		rec.Response.Of, rec.Detail = w.Record, w.Detail()
		if _, err := o.journal.AppendDurable(ctx, rec); err != nil {
			return fmt.Errorf("record the end of %s: %w", w.Name(), err)
		}
		if err := o.windows.Remove(w.Number); err != nil {
			return err
		}
	}
	return nil
}

// windowsEvery is how often it is looked whether a window has ended. Whether it covers
// a change does not depend on that.
const windowsEvery = time.Second

// watchWindows ends windows, and forgets them when all that was done in them is judged.
func (d *Daemon) watchWindows(ctx context.Context) error {
	t := time.NewTicker(windowsEvery)
	defer t.Stop()
	for {
		d.windowing.Lock()
		err := d.endWindows(ctx)
		let := d.letIn()
		d.windowing.Unlock()
		if let != nil {
			d.degrade("windows kernel", "who is let through rules that block is not as the windows say: "+let.Error())
		} else {
			d.recover("windows kernel")
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			d.degrade("windows end", "the end of a window cannot be written: "+err.Error())
		default:
			d.recover("windows end")
		}
		d.windows.Forget(int64(d.pipe.Settled()))
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// resolveScope makes a path what records call it, and says so.
func resolveScope(w *window.Window) (notes []string) {
	for _, p := range []*string{&w.Path, &w.Exe} {
		if *p == "" {
			continue
		}
		resolve := resolveParent
		if p == &w.Exe {
			resolve = filepath.EvalSymlinks
		}
		if c, err := resolve(*p); err == nil && c != filepath.Clean(*p) {
			notes = append(notes, fmt.Sprintf("%s is %s", event.Text([]byte(*p)), event.Text([]byte(c))))
			*p = c
		}
	}
	return notes
}

// scopeNotes says of what will never match as far as this host knows now.
func scopeNotes(p *policy.Policy, w *window.Window) (notes []string) {
	if p != nil && w.Path != "" && len(touching(p, w)) == 0 {
		notes = append(notes, "no rule watches anything there: nothing is covered")
	}
	if _, ok := loginuid(w.User); w.User != "" && !ok {
		notes = append(notes, "no user "+w.User+" is known here: nothing is covered until there is one")
	}
	if w.Exe != "" && !exists(w.Exe) {
		notes = append(notes, "there is no "+event.Text([]byte(w.Exe))+": nothing is covered until there is one")
	}
	return notes
}

// policy is the rules as they are configured, nil if they cannot be understood.
func (s *state) policy() *policy.Policy {
	p, err := s.cfg.Policy()
	if err != nil {
		return nil
	}
	if c, err := p.Canonical(filepath.EvalSymlinks); err == nil {
		p = c
	}
	return p
}

// touching lists the rules that hold for something that a window covers.
func touching(p *policy.Policy, w *window.Window) (out []*policy.Rule) {
	fixed := w.Path // the part without a pattern
	if i := strings.IndexAny(fixed, "*?["); i >= 0 {
		fixed = filepath.Dir(fixed[:i] + "x")
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		below := func(root string) bool { return w.Path == "" || policy.Within(fixed, root) }
		m, ok := p.Match(fixed)
		if ok && m.Rule.Name == r.Name || slices.ContainsFunc(r.Paths, below) {
			out = append(out, r)
		}
	}
	return out
}

// blocking lists the rules that block where a window reaches.
func (s *state) blocking(p *policy.Policy, w *window.Window) []string {
	if p == nil {
		return nil
	}
	var out []string
	for _, r := range touching(p, w) {
		if r.Mode == event.ModeBlock && (s.tier == "" || sense.CanBlock(s.tier)) {
			out = append(out, r.Name)
		}
	}
	return out
}

// openWindowsShown lists the windows that are open as people see them.
func (s *state) openWindowsShown() (out []control.Window) {
	all := s.windows.List()
	if len(all) == 0 {
		return nil
	}
	p := s.policy()
	for i := range all {
		out = append(out, s.shown(p, &all[i]))
	}
	return out
}

// shown is a window as people see it, by these rules.
func (s *state) shown(p *policy.Policy, w *window.Window) control.Window {
	c := shownWindow(w)
	if w.User == "" {
		c.Unopened = s.blocking(p, w)
	} else {
		c.LetsThrough = s.blocking(p, w)
	}
	c.LeftNS = int64(s.windows.Left(w))
	return c
}

func shownWindow(w *window.Window) control.Window {
	return control.Window{
		Number: w.Number, Ticket: w.Ticket, Path: control.Path(w.Path), User: w.User, Exe: control.Path(w.Exe),
		Opened: w.Opened, Until: w.Until, By: w.By, Record: w.Record,
	}
}

// Windows lists the windows that are open by the file of a state directory, without
// asking a daemon or the log.
func Windows(cfg config.Config) ([]control.Window, error) {
	boot, err := readLine("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("boot id: %w", err)
	}
	set, err := window.Open(windowOptions(cfg.State, boot, 0, func(*window.Window) error { return nil }))
	if err != nil {
		return nil, err
	}
	s := &state{cfg: cfg, windows: set}
	return s.openWindowsShown(), nil
}

// nameOf is who asked, in a word.
func nameOf(asked by) string {
	switch {
	case asked.actor == nil:
		return event.Unknown
	case asked.actor.User != "" && asked.actor.User != event.Unknown:
		return asked.actor.User
	}
	name := fmt.Sprintf("uid %d", asked.actor.UID)
	if asked.actor.UID == 0 {
		name = "root"
	}
	return name + " outside any login"
}
