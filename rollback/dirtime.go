package rollback

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// Each change of a directory's names sets its modification time, ours too. A
// restore gives a directory the time of its trusted version if no name in it came
// or went with leave since: then all that changed the time has been taken back.
// Otherwise the time of the last such change is not known. A restore that only
// exchanged an inode then leaves the time as it found it, any other one leaves its
// own, so that programs which cache a directory by its time look again.

// noteEntry remembers when a trusted change made or removed a name.
func (c *catalog) noteEntry(h *history, v *Version, e *entry) {
	old := h.get(h.trusted)
	switch {
	case old == nil && e.Record == "": // enrolled
	case old != nil && old.State.Exists == v.State.Exists:
	default:
		dir := path.Dir(v.Path)
		c.entries[c.intern(dir)] = max(c.entries[dir], e.Time)
	}
}

// dirTime returns the modification time that belongs to dir; ok is false if that
// is not known.
func (s *Store) dirTime(dir string) (t event.Time, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.catalog.paths[dir]
	if h == nil {
		return 0, false
	}
	v := h.get(h.trusted)
	if v == nil || v.State.Type != event.TypeDir || s.catalog.entries[dir] > v.Time {
		return 0, false
	}
	return v.State.Mtime, true
}

// times plans to give directories that are as their versions say their times
// back.
func (p *planner) times(versions map[string]Version) error {
	for dir, v := range versions {
		t, ok := p.s.dirTime(dir)
		if v.State.Type != event.TypeDir || !ok || t != v.State.Mtime {
			continue
		}
		have, err := digest.StatPath(dir)
		if err != nil || have.Mtime == t || len(diff(&have, &v.State)) > 0 {
			continue // what cannot be looked at is a conflict already, what differs has a step
		}
		want := have
		want.Mtime = t
		p.last = append(p.last, Step{Path: dir, Action: ActionTimes, Want: want, Have: have, Version: v.ID, Reason: "all in it is as it was"})
	}
	return p.ctx.Err()
}

// mendTime sets the modification time of a directory and nothing else.
func (j *job) mendTime() (err error) {
	j.phase = phaseAsIs
	if j.have.Type != event.TypeDir || j.have.Mtime == j.step.Want.Mtime {
		return nil
	}
	j.phase = phaseMended
	i, err := pin(j.s.disk, j.parent, j.base, j.step.Path, &j.have)
	if err != nil {
		return err
	}
	defer i.close()
	off, err := j.s.lift(i, j.step.Path, j.have.Flags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, off.back()) }()
	if err := i.setTimes(&j.have, &j.step.Want, nil); err != nil {
		return err
	}
	return j.s.disk.Fsync(i.read, j.step.Path)
}

// setParentTime gives the parent the modification time that belongs to it. That
// it cannot is no failure of the restore: the result says so.
func (j *job) setParentTime() {
	if !j.swapped {
		return
	}
	j.swapped = false
	t, ok := j.s.dirTime(path.Dir(j.step.Path))
	if !ok {
		if !j.have.Exists || !j.step.Want.Exists || j.grouped || j.parentTime == (unix.Timespec{}) {
			return
		}
		t = event.Time(unix.TimespecToNsec(j.parentTime))
	}
	var st unix.Stat_t
	if err := digest.Again(func() error { return unix.Fstat(j.parent, &st) }); err != nil || event.Time(unix.TimespecToNsec(st.Mtim)) == t {
		return
	}
	err := j.s.disk.Utimes(j.parent, path.Dir(j.step.Path), []unix.Timespec{{Nsec: unix.UTIME_OMIT}, timespec(t)})
	if errors.Is(err, unix.EPERM) {
		err = errors.New("its flags forbid it")
	}
	if err != nil {
		j.note("the time of its directory is not set: " + err.Error())
	}
}
