package daemon

import (
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/publish"
)

// buildPublisher makes the publisher if there is a place to send checkpoints to. It touches neither.
func (d *Daemon) buildPublisher() error {
	var places []publish.Place
	if f := d.cfg.Checkpoints.File; f != "" {
		places = append(places, publish.File{Path: f})
	}
	if s := d.cfg.Checkpoints.Syslog; s != "" {
		to, err := publish.ParseSyslog(s)
		if err != nil {
			return err
		}
		to.Host = d.host
		places = append(places, to)
	}
	if len(places) > 0 {
		d.publisher = publish.New(checkpoints{dir: d.cfg.JournalDir()}, places, publish.Options{Every: d.cfg.Checkpoints.Every, Logger: d.log})
	}
	return nil
}

// checkpoints is the journal as the publisher reads it.
type checkpoints struct{ dir string }

var _ publish.Log = checkpoints{}

// Latest implements publish.Log.
func (c checkpoints) Latest() (publish.Note, bool, error) {
	b, err := journal.LatestCheckpoint(c.dir)
	if err != nil || b == nil {
		return publish.Note{}, false, err
	}
	n, err := noteOf(b)
	return n, err == nil, err
}

// Handovers implements publish.Log.
func (c checkpoints) Handovers() ([]publish.Note, error) {
	all, err := journal.Handovers(c.dir)
	if err != nil {
		return nil, err
	}
	out := make([]publish.Note, 0, len(all))
	for _, b := range all {
		n, err := noteOf(b)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

func noteOf(b []byte) (publish.Note, error) {
	s, err := journal.ReadSigned(b)
	if err != nil {
		return publish.Note{}, err
	}
	return publish.Note{Signed: s.Note, Line: s.Line, Size: s.Size, Time: s.Time.Go()}, nil
}

// publishStatus tells how far the copies of checkpoints are.
func (d *Daemon) publishStatus(s *control.Status) {
	if d.publisher == nil {
		return
	}
	for _, p := range d.publisher.Stats() {
		s.Published = append(s.Published, control.Published{To: p.Name, Sent: p.Sent, Size: p.Size, Errors: p.Errors, LastError: p.LastError})
	}
}
