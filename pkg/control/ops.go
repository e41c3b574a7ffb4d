package control

import (
	"context"
	"encoding/json"

	"github.com/holdfast/holdfast/pkg/event"
)

// Handler is what can be asked of the daemon. Errors wrap ErrNotFound,
// ErrInvalid or ErrBusy where these say what went wrong.
type Handler interface {
	Status(context.Context) (Status, error)
	Restore(context.Context, RestoreRequest) (Outcome, error)
	Undo(context.Context, UndoRequest) (Outcome, error)
	Trust(context.Context, TrustRequest) (Outcome, error)
	// Hold puts paths under a hold, or releases one.
	Hold(context.Context, HoldRequest) (Outcome, error)
	// Prune destroys the versions that no rule keeps.
	Prune(context.Context, PruneRequest) (Outcome, error)
	// Window opens an approved change window, or closes some.
	Window(context.Context, WindowRequest) (Outcome, error)
	// Stop ends the daemon after its answer.
	Stop(context.Context, StopRequest) (Outcome, error)
	// Reindex has the index built anew from the journal, behind its answer.
	Reindex(context.Context, ReindexRequest) (Outcome, error)
}

// Path is a path in raw bytes; in JSON it is written as event.Text.
type Path string

// MarshalJSON implements json.Marshaler.
func (p Path) MarshalJSON() ([]byte, error) { return json.Marshal(event.Text([]byte(p))) }

// UnmarshalJSON implements json.Unmarshaler.
func (p *Path) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*p = Path(event.Untext(s))
	return nil
}

// RestoreRequest asks to bring paths back, directories with all below them. At
// most one of Version and At is set; with neither, the trusted version is meant.
type RestoreRequest struct {
	Paths   []Path     `json:"paths"`
	Version uint64     `json:"version,omitempty"`
	At      event.Time `json:"at,omitzero"`
	Into    Path       `json:"into,omitempty"` // write below this directory instead
	DryRun  bool       `json:"dry_run,omitempty"`
}

// UndoRequest asks to take back what a cause changed. At least one of Session,
// User, Source, Exec and Record is set; those that are set must all hold.
type UndoRequest struct {
	Session string     `json:"session,omitempty"`
	User    string     `json:"user,omitempty"`
	Source  string     `json:"source,omitempty"`
	Exec    string     `json:"exec,omitempty"`
	Record  string     `json:"record,omitempty"`
	Since   event.Time `json:"since,omitzero"`
	Until   event.Time `json:"until,omitzero"`
	Path    Path       `json:"path,omitempty"`
	DryRun  bool       `json:"dry_run,omitempty"`
	Force   bool       `json:"force,omitempty"` // also where others changed the path since
}

// TrustRequest asks to make the present state of paths the trusted one,
// directories with all below them.
type TrustRequest struct {
	Paths  []Path `json:"paths"`
	Reason string `json:"reason"`
}

// HoldRequest asks to keep all versions of paths, and of what is below them, from
// being destroyed, or to release the hold of that number.
type HoldRequest struct {
	Paths   []Path `json:"paths,omitempty"`
	Release uint64 `json:"release,omitempty"`
	Reason  string `json:"reason"`
}

// WindowRequest asks to open a change window, or to close those that Close or
// CloseTicket names. What is not given of Path, User and Exe matches all.
type WindowRequest struct {
	Close       uint64 `json:"close,omitempty"` // number of a window
	CloseTicket string `json:"close_ticket,omitempty"`

	Ticket string `json:"ticket,omitempty"`
	ForNS  int64  `json:"for_ns,omitempty"`
	Path   Path   `json:"path,omitempty"` // covers itself and all below it; * ? [ ] match within a component
	User   string `json:"user,omitempty"` // the person who logged in
	Exe    Path   `json:"exe,omitempty"`
	Host   string `json:"host,omitempty"` // must be this one
}

// Window is an approved change window.
type Window struct {
	Number uint64     `json:"number"`
	Ticket string     `json:"ticket"`
	Path   Path       `json:"path,omitempty"`
	User   string     `json:"user,omitempty"`
	Exe    Path       `json:"exe,omitempty"`
	Opened event.Time `json:"opened"`
	Until  event.Time `json:"until"`   // by the clock at its opening
	LeftNS int64      `json:"left_ns"` // until it ends, whatever was done to the clock since
	By     string     `json:"by"`      // who opened it
	Record string     `json:"record"`  // of its opening
	// LetsThrough are the rules that block where it reaches, if it is of a person: the
	// kernel does not refuse changes there to her, and what it does not cover is put
	// back. Unopened are they if it is of nobody: there it lets nothing through.
	LetsThrough []string `json:"lets_through,omitempty"`
	Unopened    []string `json:"unopened,omitempty"`
}

// PruneRequest asks to destroy the versions that no rule keeps any more.
type PruneRequest struct {
	DryRun bool `json:"dry_run,omitempty"`
}

// StopRequest asks the daemon to end.
type StopRequest struct {
	Reason string `json:"reason"` // required: the record keeps it
}

// The outcomes of a step.
const (
	StepPlanned = "planned" // dry run: nothing was done
	StepDone    = "done"
	StepFailed  = "failed"
	StepSkipped = "skipped"
)

// Step is one path of a plan and, unless it was a dry run, what came of it.
type Step struct {
	Path     Path         `json:"path"`
	Action   string       `json:"action"` // write, meta, remove, mkdir, rmdir, link, …; promote, hold, release, destroy
	Version  uint64       `json:"version,omitempty"`
	Want     *event.State `json:"want,omitempty"`
	Have     *event.State `json:"have,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	Meaning  []string     `json:"meaning,omitempty"` // what it does to a file of accounts
	Outcome  string       `json:"outcome"`
	Evidence string       `json:"evidence,omitempty"` // where the displaced file was kept
	Record   string       `json:"record,omitempty"`   // the record of the outcome
	TookNS   uint64       `json:"took_ns,omitempty"`
	Error    string       `json:"error,omitempty"`
}

// Conflict is a path that was left for a person to decide.
type Conflict struct {
	Path   Path   `json:"path"`
	Reason string `json:"reason"`
	Record string `json:"record,omitempty"` // the later change that stands in the way
}

// ReindexRequest asks to build the index anew.
type ReindexRequest struct{}

// Outcome answers what changes something.
type Outcome struct {
	DryRun  bool `json:"dry_run"`
	Matched int  `json:"matched"` // undo: records of the cause
	// Record is what undo takes to take all of this back, "" if nothing was done.
	Record    string     `json:"record,omitempty"`
	Steps     []Step     `json:"steps"`
	Conflicts []Conflict `json:"conflicts"`
	Windows   []Window   `json:"windows,omitempty"` // that were opened or closed
	Notes     []string   `json:"notes,omitempty"`   // what a person should know of it
}

// Count returns how many steps have the outcome.
func (o *Outcome) Count(outcome string) int {
	n := 0
	for i := range o.Steps {
		if o.Steps[i].Outcome == outcome {
			n++
		}
	}
	return n
}
