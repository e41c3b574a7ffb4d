package control

import "errors"

// The kinds of error that callers tell apart.
var (
	// ErrNotFound: no such path, version, session or record.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the request makes no sense as it stands.
	ErrInvalid = errors.New("invalid request")
	// ErrBusy: another operation holds what this one needs; it may be tried again.
	ErrBusy = errors.New("busy")
	// ErrNotRunning: nobody listens on the socket.
	ErrNotRunning = errors.New("the daemon is not running")
	// ErrForbidden: the caller may not use the socket.
	ErrForbidden = errors.New("only root may ask the daemon")
	// ErrInUse: another daemon answers on the socket.
	ErrInUse = errors.New("another daemon answers on this socket")
)

// kinds are the errors that cross the socket, by name.
func kinds() map[string]error {
	return map[string]error{"not_found": ErrNotFound, "invalid": ErrInvalid, "busy": ErrBusy, "forbidden": ErrForbidden}
}

// fault is an error on its way through the socket.
type fault struct {
	Kind    string   `json:"kind"` // one of kinds, or "failed"
	Message string   `json:"message"`
	Hint    []string `json:"hints,omitempty"`
}

// Error is an error that the daemon answered with.
type Error struct {
	kind    error
	message string
	hints   []string
}

func (e *Error) Error() string { return e.message }

// Unwrap gives the kind of error, for errors.Is.
func (e *Error) Unwrap() error { return e.kind }

// Hints returns what to do about it.
func (e *Error) Hints() []string { return e.hints }

func faultOf(err error) fault {
	f := fault{Kind: "failed", Message: err.Error()}
	for name, kind := range kinds() {
		if errors.Is(err, kind) {
			f.Kind = name
		}
	}
	var h interface{ Hints() []string }
	if errors.As(err, &h) {
		f.Hint = h.Hints()
	}
	return f
}

func (f fault) err() error {
	return &Error{kind: kinds()[f.Kind], message: f.Message, hints: f.Hint}
}
