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
	known bool        // Caps are; UserNS is 0 if it is not
	every bool        // told by a hook that every change goes through, executions' too
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
			t.n.lost.Add(maxComing)
			clear(t.coming)
		}
		t.coming[p] = coming{ev.Key.Execs, ev.CredHow, ev.Before, ev.After}
		return
	}
	n, _ := t.ensure(ev)
	n = t.setSession(n, ev)
	defer t.done(n)
	b := t.may(n)
	if ev.CredHow == event.CredCommit {
		was := b.ids.UserNS
		b = powers{ids: ev.Before, known: true}
		if was != 0 { // clone(2) enters another one without a word
			b.ids.UserNS = was
		}
	}
	after := powers{ids: ev.After, known: true, every: ev.CredHow == event.CredCommit}
	t.became(n, ev, b, after, howCalled(n.image, &b, &ev.After))
}

// may is what n may do now.
func (t *Table) may(n *node) powers {
	if n.now != nil {
		return *n.now
	}
	i := n.ids
	return powers{ids: event.IDs{Creds: event.Creds{UID: i.uid, EUID: i.euid, SUID: i.suid, FSUID: i.euid, GID: i.gid, EGID: i.egid, SGID: i.sgid, FSGID: i.egid}}}
}

// inherit gives a process that was forked what its parent had.
func (t *Table) inherit(n, parent *node, ev *event.Event) {
	if parent == nil || parent.is(flagStub) {
		return
	}
	if n.now = parent.now; n.now != nil && n.now.ids.Creds != ev.Creds {
		n.now = &powers{ids: event.IDs{Creds: ev.Creds, UserNS: parent.now.ids.UserNS}}
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
	b := t.may(old)
	// An execution can take capabilities away: where not every change is told, what is
	// left of them is not known.
	after := powers{ids: event.IDs{Creds: ev.Creds, UserNS: b.ids.UserNS}}
	if b.every && b.ids.Creds == ev.Creds {
		after = b
	}
	if ok {
		after = powers{ids: c.after, known: true, every: c.how == event.CredCommit}
		if after.every {
			b = powers{ids: c.before, known: true}
		}
	}
	b.had = nil // of another program
	how := howExecuted(n.image, &b.ids, &after.ids)
	if b.ids.UID != after.ids.UID || b.ids.GID != after.ids.GID { // no execution sets these: the program before it did, unseen
		how = howCalled(old.image, &b, &after.ids)
	}
	t.became(n, ev, b, after, how)
}

// became notes what n may do from now on, and tells of it if it is news.
func (t *Table) became(n *node, ev *event.Event, b, after powers, how string) {
	if !t.minds(n) {
		return
	}
	had := b.had
	if n.now != nil && ev.Kind != event.KindExec {
		had = n.now.had
	}
	news := b.ids.Creds != after.ids.Creds || b.ids.UserNS != 0 && b.ids.UserNS != after.ids.UserNS || b.known && after.known && b.ids != after.ids ||
		// who was never told to have a privilege executed a file that gives some
		!b.known && after.known && ev.Kind == event.KindExec && after.ids.EUID != 0 && after.ids.Caps != 0
	told := slices.Contains(had, after.ids)
	if news && !told {
		had = append(slices.Clone(had), b.ids, after.ids)
		had = had[max(0, len(had)-maxHad):]
	}
	after.had = had
	n.now = &after
	switch {
	case !news:
		return
	case told:
		t.n.folded.Add(1)
		return
	}
	r := t.credentialRecord(n, ev, &after.ids)
	r.Credential = &event.Credential{How: how, Before: idsText(b.ids, b.known), After: idsText(after.ids, after.known)}
	r.Reason = t.becameText(r.Credential)
	t.tell(r)
}

// credentialRecord begins a record by n, whose credentials are ids.
func (t *Table) credentialRecord(n *node, ev *event.Event, ids *event.IDs) *event.Record {
	e := *ev
	e.Creds = ids.Creds
	c := t.known(n)
	a := t.actor(&e, n, n.sess, c)
	p := t.process(&e, n, c, false)
	bare(&p)
	return &event.Record{Kind: event.RecCredential, Time: t.wall(ev.Time), Actor: &a, Process: &p}
}

// howExecuted names how executing i led from the ids b to a.
func howExecuted(i *image, b, a *event.IDs) string {
	pre, now := idsOf(&b.Creds), idsOf(&a.Creds)
	if b.Creds == a.Creds {
		if a.Caps&^b.Caps != 0 {
			return "filecaps:" + exeText(i)
		}
		return event.HowExec
	}
	if way := wayOf(i, pre, now); way != "" {
		return way
	}
	if pre.gained(now) {
		return event.Unknown
	}
	return event.HowExec
}

// howCalled names how the program i came from what it could, b, to the ids a without
// executing anything. That it took ids that it was not entitled to is not explained so.
func howCalled(i *image, b *powers, a *event.IDs) string {
	switch {
	case b.ids.UserNS != 0 && b.ids.UserNS != a.UserNS:
		return event.HowUserNS
	case idsOf(&b.ids.Creds).gained(idsOf(&a.Creds)) && (!b.known || b.ids.Caps>>capSetuid&1 == 0):
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
	}
	if i.UserNS != 0 {
		out.UserNS = fmt.Sprintf("user:[%d]", i.UserNS)
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
			after = t.may(m).ids
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
	r := t.credentialRecord(n, ev, &event.IDs{Creds: ev.Creds})
	r.Op, r.Target = ev.Op.String(), target
	r.Credential = &event.Credential{How: event.HowPtrace, Before: idsText(ev.Before, true), After: idsText(after, known)}
	r.Reason = fmt.Sprintf("attached to %s[%d] of %s, or to its memory", exeBase(target.Exe), target.PID, t.user(target.UID))
	t.tell(r)
}
