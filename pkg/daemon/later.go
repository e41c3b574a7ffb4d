package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/regular"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/policy"
)

// A tree with more than one of these is enrolled in the background, when all is
// watched.
const (
	largePaths = 5000
	largeBytes = 256 << 20
)

// errLarge ends a walk that has seen enough.
var errLarge = errors.New("large")

// pace returns what bounds reading to so many bytes a second: it is called with
// what was read and returns when more may be. It may be called from several
// goroutines.
func pace(rate uint64) func(ctx context.Context, bytes uint64) {
	var mu sync.Mutex
	free := time.Now() // when all that was read is paid for
	return func(ctx context.Context, bytes uint64) {
		mu.Lock()
		now := time.Now()
		if free.Before(now) {
			free = now
		}
		free = free.Add(time.Duration(float64(bytes) / float64(rate) * float64(time.Second)))
		ahead := free.Sub(now)
		mu.Unlock()
		if ahead < 10*time.Millisecond {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(ahead):
		}
	}
}

// postpone chooses, the first time, the large trees whose content is taken into the
// vault in the background: those that no run has enrolled, or whose enrolment was cut
// off. They are surveyed and watched with the rest. A tree in the tree of another rule
// is never one of them: it is enrolled with what is around it.
func (d *Daemon) postpone(ctx context.Context) error {
	all := d.rules.paths()
	for _, p := range all {
		marks, err := readSurvey(d.cfg.State, p)
		if err != nil { // who could damage it could remove it as well: that must not end the protection
			to, aerr := regular.Aside(surveyFile(d.cfg.State, p))
			if aerr != nil {
				return errors.Join(err, aerr)
			}
			d.log.Error("what was surveyed cannot be read: the tree is surveyed anew", "path", to, "error", err)
			marks = nil
		}
		nested := slices.ContainsFunc(all, func(q string) bool { return q != p && policy.Within(q, p) })
		if _, known := d.vault.Latest(p); marks != nil || !known && !nested && large(ctx, p) {
			d.mu.Lock()
			d.later = append(d.later, p)
			if marks != nil {
				d.begun[p] = marks
			}
			d.mu.Unlock()
			d.rules.setEnrolling(p, true)
		}
	}
	return ctx.Err()
}

// isLater reports whether a tree is enrolled in the background, and not to its end yet.
func (d *Daemon) isLater(root string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.later, root)
}

// survey takes note of what is in a large tree, so that it can be watched at once; again
// says that an earlier run has done so.
func (d *Daemon) survey(ctx context.Context, root string) (again bool, err error) {
	d.mu.Lock()
	_, done := d.surveyed[root]
	earlier := d.begun[root]
	d.mu.Unlock()
	if done {
		return false, nil
	}
	marks, err := d.pipe.Survey(ctx, root, earlier)
	if err == nil && earlier == nil {
		err = writeSurvey(d.cfg.State, root, marks)
	}
	if err != nil {
		return false, err
	}
	d.mu.Lock()
	d.surveyed[root] = marks
	delete(d.begun, root)
	d.mu.Unlock()
	return earlier != nil, nil
}

// large reports whether a tree has much to enrol.
func large(ctx context.Context, root string) bool {
	paths, bytes := 0, int64(0)
	err := filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile, or unreadable
		}
		paths++
		if e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				bytes += info.Size()
			}
		}
		if paths > largePaths || bytes > largeBytes {
			return errLarge
		}
		return ctx.Err()
	})
	return errors.Is(err, errLarge)
}

// enrolLater takes the content of the large trees into the vault, one after the other,
// at the rate that is configured.
func (d *Daemon) enrolLater(ctx context.Context) error {
	slowly := pace(uint64(d.cfg.Vault.Rate))
	for {
		d.mu.Lock()
		if len(d.later) == 0 {
			d.mu.Unlock()
			return nil
		}
		root := d.later[0]
		marks := d.surveyed[root]
		d.mu.Unlock()
		start := time.Now()
		e, err := d.pipe.EnrolSurveyed(ctx, root, marks, slowly)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = os.Remove(surveyFile(d.cfg.State, root))
		}
		if err != nil {
			d.degrade("enrol "+root, fmt.Sprintf("%s is watched, but could not be enrolled: %v", event.Text([]byte(root)), err))
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Minute):
			}
			continue
		}
		d.noteEnrolled(root, e)
		d.rules.setEnrolling(root, false)
		_, err = d.journal.Append(&event.Record{
			Time: now(), Kind: event.RecAgent, Reason: "enrolled in the background: what changes from here on can be put back", Sensor: &event.Sensor{Tier: d.tier},
			Detail: map[string]string{
				event.Text([]byte(root)): fmt.Sprintf("%d paths, %d of them cannot be put back, %d had changed before", e.Paths, len(e.Errors), len(e.Changed)),
				"seconds":                strconv.Itoa(int(time.Since(start).Seconds())),
			},
		})
		if err != nil {
			return fmt.Errorf("record an enrolment: %w", err)
		}
		d.mu.Lock()
		d.later = d.later[1:]
		delete(d.surveyed, root)
		d.mu.Unlock()
	}
}

// untrusted lists the paths of an enrolment that changed before they were enrolled, as
// far as nobody has trusted them since.
func (d *Daemon) untrusted(e *pipeline.Enrolled) []string {
	var out []string
	for _, p := range e.Changed {
		if v, ok := d.vault.Latest(p); ok && v.State.Exists {
			if _, trusted := d.vault.Trusted(p); !trusted {
				out = append(out, p)
			}
		}
	}
	return out
}

// unenrolled are the reasons to look at the trees in which such paths are.
func (d *Daemon) unenrolled() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for root, e := range d.enrolled {
		if list := d.untrusted(&e); len(list) > 0 {
			out = append(out, fmt.Sprintf("%d paths below %s changed after they were watched and before a version was kept: they are not put back until a person trusts them; one is %s",
				len(list), event.Text([]byte(root)), event.Text([]byte(list[0]))))
		}
	}
	slices.Sort(out)
	return out
}
