package daemon

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/accounts"
	"github.com/holdfast/holdfast/pkg/attribute"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
)

func now() event.Time { return event.TimeOf(time.Now()) }

// recordStart writes what everything after it has to be read with: that the
// daemon started, what a crash cut off the journal, the tier and the policy.
func (d *Daemon) recordStart(ctx context.Context) error {
	recs := []*event.Record{{
		Time: now(), Kind: event.RecAgent, Reason: "started", Sensor: &event.Sensor{Tier: d.tier},
		Detail: map[string]string{
			"version": d.o.Version, "kernel": d.report.Release, "tier": d.tier, "tier_wanted": d.cfg.Tier, "pid": strconv.Itoa(os.Getpid()),
		},
	}}
	maps.Copy(recs[0].Detail, d.describeSelf(ctx))
	o := d.journal.Opened()
	if o.Recovered > 0 {
		recs[0].Detail["recovered"] = fmt.Sprintf("%d records that no checkpoint covered", o.Recovered)
	}
	if o.HashesRebuilt {
		recs[0].Detail["hashes"] = "rebuilt from the records; they give the signed root"
	}
	for _, p := range o.Tampered {
		d.degrade("journal "+p.Text, "the journal was tampered with: "+p.Text+": run holdfast verify, and keep a copy")
	}
	if o.TornBytes > 0 {
		t := now()
		recs = append(recs, &event.Record{
			Time: t, Kind: event.RecGap, Reason: fmt.Sprintf("the end of the journal was torn: %d bytes were cut off and kept as %s", o.TornBytes, o.TornFile),
			Gap: &event.Gap{Lost: uint64(o.TornRecords), From: d.before.from, To: t, Causes: []string{event.CauseJournal}, Trees: d.rules.trees(), Rescan: event.RescanPending},
		})
	}
	recs = append(recs, &event.Record{Time: now(), Kind: event.RecPolicy, Reason: "policy loaded", Detail: d.rules.describe()})
	for _, r := range d.reasons() {
		recs = append(recs, &event.Record{Time: now(), Kind: event.RecAgent, Reason: "degraded: " + r, Sensor: &event.Sensor{Tier: d.tier}})
	}
	for _, r := range recs {
		if _, err := d.journal.Append(r); err != nil {
			return fmt.Errorf("record the start: %w", err)
		}
		if r.Kind == event.RecGap {
			d.before.open = append(d.before.open, pipeline.Prior{ID: r.ID, Gap: *r.Gap})
		}
	}
	return d.journal.Sync(ctx)
}

// recordArmed writes what is watched from here on.
func (d *Daemon) recordArmed(ctx context.Context) error {
	detail := make(map[string]string)
	d.mu.Lock()
	for p, e := range d.enrolled {
		detail[event.Text([]byte(p))] = fmt.Sprintf("%d paths, %d of them cannot be put back", e.Paths, len(e.Errors))
	}
	for _, u := range d.unarmed {
		if u.Err == nil {
			detail[event.Text([]byte(u.Path))] = "does not exist: armed when it appears"
		}
	}
	d.mu.Unlock()
	_, err := d.journal.AppendDurable(ctx, &event.Record{
		Time: now(), Kind: event.RecAgent, Reason: "armed", Sensor: &event.Sensor{Tier: d.tier}, Detail: detail,
	})
	return err
}

// by is who asked for something: the actor and the process of a record.
type by struct {
	actor   *event.Actor
	process *event.Process
}

// asker is who is behind a request on the control socket, as fully as behind a
// change where the stages know the process; this process where there is no request.
func (o ops) asker(ctx context.Context) by {
	asked := o.whoAsks(ctx)
	r := event.Record{Process: asked.process}
	accounts.Scrub(&r) // of who asks and those above nothing more is told than of others
	return by{asked.actor, r.Process}
}

func (o ops) whoAsks(ctx context.Context) by {
	p, ok := control.PeerFrom(ctx)
	if !ok {
		self := uint32(os.Geteuid())
		group := uint32(os.Getegid())
		return shownInProc(uint32(os.Getpid()), event.Actor{
			UID: uint32(os.Getuid()), EUID: self, SUID: self, FSUID: self, GID: uint32(os.Getgid()), EGID: group, FSGID: group,
		})
	}
	wait, cancel := context.WithTimeout(ctx, askerLimit)
	defer cancel()
	for o.who != nil && wait.Err() == nil {
		if a, proc, ok := o.who(wait, uint32(p.PID)); ok {
			return by{&a, &proc}
		}
		select { // the exec of the caller is on its way through the ring
		case <-wait.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	return shownInProc(uint32(p.PID), event.Actor{UID: p.UID, EUID: p.UID, SUID: p.UID, FSUID: p.UID, GID: p.GID, EGID: p.GID, FSGID: p.GID})
}

// askerLimit is how long a caller that the stages do not know is waited for.
const askerLimit = time.Second

// shownInProc fills in what /proc tells at a glance.
func shownInProc(pid uint32, a event.Actor) by {
	a.Loginuid, a.User, a.Evidence, a.Origin = event.Unset, event.Unknown, event.EvidenceNone, event.OriginUnknown
	dir := fmt.Sprintf("/proc/%d/", pid)
	if s, err := readLine(dir + "loginuid"); err == nil {
		if n, err := strconv.ParseUint(s, 10, 32); err == nil && uint32(n) != event.Unset {
			a.Loginuid, a.Evidence = uint32(n), event.EvidenceProcScan
			if name := attribute.NewSystem(0).User(a.Loginuid); name != "" {
				a.User = name
			}
		}
	}
	p := &event.Process{PID: pid}
	if exe, err := os.Readlink(dir + "exe"); err == nil {
		p.Exe = event.Text([]byte(exe))
	}
	if argv, err := os.ReadFile(dir + "cmdline"); err == nil && len(argv) > 0 {
		for _, arg := range strings.Split(strings.TrimSuffix(string(argv), "\x00"), "\x00") {
			p.Argv = append(p.Argv, event.Text([]byte(arg)))
		}
	}
	return by{&a, p}
}

// notify tells systemd a state (sd_notify(3)); without a socket it does nothing.
func notify(state string) error {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return nil
	}
	if addr[0] == '@' {
		addr = "\x00" + addr[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}

// mountNS is the inode number of this process's mount namespace, the way events
// name it.
func mountNS() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &st); err != nil {
		return 0, fmt.Errorf("mount namespace: %w", err)
	}
	return uint32(st.Ino), nil
}
