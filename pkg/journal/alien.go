package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/regular"
)

// vacant moves aside what somebody put where the next segment is to be. With an error that is still there, and the
// segment in use, if there is one, has to do for longer than its size.
func (w *writer) vacant(first uint64) error {
	name := filepath.Join(w.dir, segmentName(first))
	st, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	to := ""
	if err == nil {
		to, err = regular.Aside(name)
	}
	if err != nil {
		if w.stuck != name {
			w.o.Logger.Error("something is where the next segment is to be and stays there", "path", name, "err", err)
		}
		w.stuck = name
		return err
	}
	w.o.Logger.Error("something was where the next segment is to be and was moved aside", "path", to)
	w.alien = append(w.alien, alien{at: name, to: to, mode: st.Mode(), size: st.Size(), changed: st.ModTime()})
	return nil
}

// alien is what was in our place.
type alien struct {
	at, to  string
	mode    fs.FileMode
	size    int64
	changed time.Time
}

// record tells of a.
func (a *alien) record(now time.Time) *event.Record {
	return &event.Record{
		Time: event.TimeOf(now), Kind: event.RecAgent, Path: event.Text([]byte(a.at)), PathTo: event.Text([]byte(a.to)),
		Reason: "something was where the next segment of the log is to be, and was moved aside",
		Detail: map[string]string{"strange": a.mode.String(), "bytes": strconv.FormatInt(a.size, 10), "changed": event.TimeOf(a.changed).String()},
	}
}

// tell appends the records of what was moved aside. Where there is no room for one it waits.
func (j *Journal) tell(w *writer) {
	for len(w.alien) > 0 {
		if _, err := j.append(w.alien[0].record(w.o.Now()), true); err != nil {
			return
		}
		w.alien = w.alien[1:]
	}
}
