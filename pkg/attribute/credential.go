package attribute

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// powers are what a program may do, as far as that was told. They are shared by the
// programs that have the same, and never changed.
type powers struct {
	ids   event.IDs
	known bool        // Caps and UserNS are
	had   []event.IDs // of the same program, told already
}

// maxHad is how many different credentials of one program are told once each. Of one
// that takes more in turn, as a service for many users does, each change is told.
const maxHad = 16

const capSetuid = 7 // linux include/uapi/linux/capability.h

// coming are the credentials that a program which is being executed will have, told
// before it.
type coming struct {
	execs  uint32
	how    uint32
	before event.IDs
	after  event.IDs
}

// maxComing bounds executions that were announced and not told of: those are lost.
const maxComing = 1024

// minds reports whether changes of the credentials of n's process are recorded.
func (t *Table) minds(n *node) bool { return n.sess != nil || t.o.Processes == ProcessesAll }

// credential takes in a change of credentials.
func (t *Table) credential(ev *event.Event) {
	if ev.CredHow == event.CredReach {
		t.reach(ev)
		return
	}
	if cur := t.current(ev.Key); cur != nil && cur.key.Execs < ev.Key.Execs {
		p := procOf(ev.Key)
		c, ok := t.coming[p]
		if ok && c.execs == ev.Key.Execs && c.how == event.CredCommit {
			return // told already, with what was before
		}
		if !ok && len(t.coming) >= maxComing {
			clear(t.coming)
		}
		t.coming[p] = coming{ev.Key.Execs, ev.CredHow, ev.Before, ev.After}
		return
	}
	n, _ := t.ensure(ev)
	n = t.setSession(n, ev)
	defer t.done(n)
	before, known := t.may(n)
	if ev.CredHow == event.CredCommit {
		before, known = ev.Before, true
	}
	t.became(n, ev, before, known, ev.After, true, func(b, a event.IDs) string { return howCalled(n.image, b, a, known) })
}

// may is what n may do now, and whether that includes its capabilities.
func (t *Table) may(n *node) (event.IDs, bool) {
	if n.now != nil {
		return n.now.ids, n.now.known
	}
	i := n.ids
	return event.IDs{Creds: event.Creds{UID: i.uid, EUID: i.euid, SUID: i.suid, FSUID: i.euid, GID: i.gid, EGID: i.egid, SGID: i.sgid, FSGID: i.egid}}, false
}

// inherit gives a process that was forked what its parent had.
func (t *Table) inherit(n, parent *node, ev *event.Event) {
	if parent == nil || parent.is(flagStub) {
		return
	}
	if n.now = parent.now; n.now != nil && n.now.ids.Creds != ev.Creds {
		n.now = &powers{ids: event.IDs{Creds: ev.Creds}}
	}
}

// executed tells what executing n, which came after old, did to the credentials.
func (t *Table) executed(n, old *node, ev *event.Event) {
	p := procOf(n.key)
	c, ok := t.coming[p]
	if ok {
		delete(t.coming, p)
		ok = c.execs == n.key.Execs
	}
	if !t.minds(n) || old == nil {
		return
	}
	before, known := t.may(old)
	after, knows := event.IDs{Creds: ev.Creds, Caps: before.Caps, UserNS: before.UserNS}, known && ev.Creds == before.Creds
	if ok {
		after, knows = c.after, true
		if c.how == event.CredCommit {
			before, known = c.before, true
		}
	}
	t.became(n, ev, before, known, after, knows, func(b, a event.IDs) string {
		if b.UID != a.UID || b.GID != a.GID { // no execution sets these: the program before it did, unseen
			return howCalled(old.image, b, a, known)
		}
		return howExecuted(n.image, b, a)
	})
}

// became notes what n may do from now on, and tells of it if it is news.
func (t *Table) became(n *node, ev *event.Event, before event.IDs, known bool, after event.IDs, knows bool, how func(b, a event.IDs) string) {
	var had []event.IDs
	if n.now != nil && ev.Kind != event.KindExec {
		had = n.now.had
	}
	same := before.Creds == after.Creds && (before == after || !known || !knows)
	if same && !known && knows && ev.Kind == event.KindExec && after.EUID != 0 && after.Caps != 0 {
		same = false // an executable that gave capabilities to who was told to have no privilege
	}
	if same || !t.minds(n) {
		if !t.minds(n) && n.now == nil {
			return
		}
		n.now = &powers{ids: after, known: knows, had: had}
		return
	}
	told := slices.Contains(had, after)
	if !told {
		had = append(slices.Clone(had), before, after)
		had = had[max(0, len(had)-maxHad):]
	}
	n.now = &powers{ids: after, known: knows, had: had}
	if told {
		t.n.folded.Add(1)
		return
	}
	r := t.credentialRecord(n, ev, after)
	r.Credential = &event.Credential{How: how(before, after), Before: idsText(before, known), After: idsText(after, knows)}
	r.Reason = t.becameText(r.Credential)
	t.tell(r)
}

// credentialRecord begins a record by n, whose credentials are ids.
func (t *Table) credentialRecord(n *node, ev *event.Event, ids event.IDs) *event.Record {
	e := *ev
	e.Creds = ids.Creds
	c := t.known(n)
	a := t.actor(&e, n, n.sess, c)
	p := t.process(&e, n, c, false)
	bare(&p)
	return &event.Record{Kind: event.RecCredential, Time: t.wall(ev.Time), Actor: &a, Process: &p}
}

// howExecuted names how executing i led from the ids b to a.
func howExecuted(i *image, b, a event.IDs) string {
	pre, now := idsOf(&b.Creds), idsOf(&a.Creds)
	switch way := wayOf(i, pre, now); {
	case b.Creds == a.Creds && a.Caps&^b.Caps != 0:
		return "filecaps:" + exeText(i)
	case way != "" && b.Creds != a.Creds:
		return way
	case pre.gained(now):
		return event.Unknown
	}
	return event.HowExec
}

// howCalled names how the program i came from the ids b to a without executing
// anything. One that takes ids that it was not entitled to is not explained by that.
func howCalled(i *image, b, a event.IDs, known bool) string {
	pre, now := idsOf(&b.Creds), idsOf(&a.Creds)
	switch {
	case known && b.UserNS != a.UserNS && a.UserNS != 0 && b.UserNS != 0:
		return event.HowUserNS
	case pre.gained(now) && (!known || b.Caps>>capSetuid&1 == 0):
		return event.Unknown
	}
	if e := escalator(i.exe); e != "" {
		return e
	}
	return event.HowCall
}

func idsText(i event.IDs, known bool) event.Ids {
	out := event.Ids{UID: i.UID, EUID: i.EUID, SUID: i.SUID, FSUID: i.FSUID, GID: i.GID, EGID: i.EGID, SGID: i.SGID, FSGID: i.FSGID, Caps: event.Unknown}
	if known {
		out.Caps = event.CapsNames(i.Caps)
		if i.UserNS != 0 {
			out.UserNS = fmt.Sprintf("user:[%d]", i.UserNS)
		}
	}
	return out
}

// becameText says a change of credentials in a few words.
func (t *Table) becameText(c *event.Credential) string {
	b, a := &c.Before, &c.After
	var what []string
	set := func(name string, from, to uint32, show func(uint32) string) {
		if from != to {
			what = append(what, name+" "+show(from)+" to "+show(to))
		}
	}
	number := func(n uint32) string { return fmt.Sprint(n) }
	set("user", b.UID, a.UID, t.user)
	if b.EUID != a.EUID && (b.UID != b.EUID || a.UID != a.EUID) {
		set("effective user", b.EUID, a.EUID, t.user)
	}
	set("group", b.GID, a.GID, number)
	if b.EGID != a.EGID && (b.GID != b.EGID || a.GID != a.EGID) {
		set("effective group", b.EGID, a.EGID, number)
	}
	if b.UserNS != a.UserNS && b.UserNS != "" && a.UserNS != "" {
		what = append(what, "into the user namespace "+a.UserNS)
	}
	if len(what) == 0 && b.Caps != a.Caps {
		what = append(what, "capabilities "+b.Caps+" to "+a.Caps)
	}
	if len(what) == 0 {
		what = append(what, "other saved or file system ids")
	}
	return strings.Join(what, ", ") + ", by " + c.How
}

// reach tells that a process reaches into another one.
func (t *Table) reach(ev *event.Event) {
	n, _ := t.ensure(ev)
	n = t.setSession(n, ev)
	defer t.done(n)
	after, known := ev.After, ev.Target.Start != 0
	target := &event.Target{PID: ev.Target.PID, Exe: event.Unknown, User: event.Unknown, UID: after.UID}
	m := t.find(ev.Target)
	if m == nil && ev.Target.Start == 0 && ev.Target.PID != 0 {
		m = t.pids[ev.Target.PID]
	}
	if m == nil {
		m = t.current(ev.Target)
	}
	if m != nil && !m.is(flagStub) {
		if !known {
			after, _ = t.may(m)
			target.UID = after.UID
		}
		t.fill(m)
		target.ExecID, target.Exe = ExecID(m.key), exeText(m.image)
		if s := m.sess; s != nil {
			target.User, target.Session = t.user(s.login), loginSession(s.id)
		} else {
			target.Session = serviceSession(t.root(t.chain(m)))
		}
	} else if !known {
		none := event.Unset
		after = event.IDs{Creds: event.Creds{UID: none, EUID: none, SUID: none, FSUID: none, GID: none, EGID: none, SGID: none, FSGID: none}}
		target.UID = none
	}
	r := t.credentialRecord(n, ev, event.IDs{Creds: ev.Creds})
	r.Op, r.Target = ev.Op.String(), target
	r.Credential = &event.Credential{How: event.HowPtrace, Before: idsText(ev.Before, true), After: idsText(after, known)}
	r.Reason = fmt.Sprintf("attached to %s[%d] of %s, or to its memory", exeBase(target.Exe), target.PID, t.user(target.UID))
	t.tell(r)
}
