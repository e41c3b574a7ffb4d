package fleettest

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// Options say which history.
type Options struct {
	Seed  uint64
	Hosts int       // 8 if 0
	Days  int       // 14 if 0
	Until time.Time // where the last day ends; 2026-06-15 00:00 UTC if zero
	Busy  int       // ordinary writes of a service per host and day; 100 if 0, none if negative
}

func (o Options) withDefaults() Options {
	o.Hosts, o.Days, o.Busy = cmp.Or(o.Hosts, 8), cmp.Or(o.Days, 14), cmp.Or(o.Busy, 100)
	if o.Until.IsZero() {
		o.Until = time.Date(2026, 6, 15, 0, 0, 0, 0, time.UTC)
	}
	return o
}

// Start is when the first day begins.
func (o Options) Start() time.Time {
	o = o.withDefaults()
	return o.Until.AddDate(0, 0, -o.Days)
}

// HostIDs returns the ids of the hosts in their order.
func (o Options) HostIDs() []string {
	o = o.withDefaults()
	ids := make([]string, o.Hosts)
	for i := range ids {
		ids[i] = newHost(o, i).id
	}
	return ids
}

// Records calls fn with the records of host number i, by sequence. They are fn's.
func (o Options) Records(i int, fn func(*event.Record) error) error {
	o = o.withDefaults()
	h := newHost(o, i)
	for day := range o.Days {
		h.day = event.TimeOf(o.Until.AddDate(0, 0, day-o.Days))
		h.live(day, o)
		for _, r := range h.settle() {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// All collects the records of all hosts, host by host.
func (o Options) All() []*event.Record {
	o = o.withDefaults()
	var out []*event.Record
	for i := range o.Hosts {
		_ = o.Records(i, func(r *event.Record) error { // never fails: fn does not
			out = append(out, r)
			return nil
		})
	}
	return out
}

const (
	second = event.Time(time.Second)
	minute = 60 * second
	hour   = 60 * minute
)

// host is a host in the making: what it is, and what of it changes.
type host struct {
	r              *rand.Rand
	name, id, role string
	tier           string
	boot           string
	booted         event.Time
	campaign       int    // day of the attack that reaches many hosts, -1: not this host
	intruder       string // where it comes from

	seq     uint64
	pid     uint32
	session uint32
	files   map[string]event.State
	day     event.Time // beginning of the present day
	items   []item     // of the present day, in no order
}

// item is a record, and the one that it answers.
type item struct{ r, of *event.Record }

func roles() []string { return []string{"web", "web", "db", "build", "mail", "web", "bastion", "dns"} }

func newHost(o Options, i int) *host {
	fleet := rand.New(rand.NewPCG(o.Seed, 0)) // what all hosts share
	day, intruder := fleet.IntN(o.Days), fmt.Sprintf("203.0.113.%d", 1+fleet.IntN(250))
	r := rand.New(rand.NewPCG(o.Seed, uint64(i)+1))
	role := roles()[i%len(roles())]
	h := &host{r: r, role: role, name: fmt.Sprintf("%s-%02d.example.net", role, i/len(roles())*3+1+i%3), id: digits(r, 16),
		tier: choose(r, "lsm", "lsm", "lsm", "tracepoint"), campaign: -1, intruder: intruder, pid: 800, files: map[string]event.State{}}
	if i == 0 || r.IntN(3) == 0 {
		h.campaign = day
	}
	return h
}

// settle puts the day in order, numbers it and names what answers refer to.
func (h *host) settle() []*event.Record {
	slices.SortStableFunc(h.items, func(a, b item) int { return cmp.Compare(at(a.r), at(b.r)) })
	out := make([]*event.Record, len(h.items))
	boot := h.boot
	for i, it := range h.items {
		h.seq++
		r := it.r
		r.Host, r.HostID, r.Seq = h.name, h.id, h.seq
		if r.Boot == "" {
			r.Boot = boot
		}
		r.ID = fmt.Sprintf("%s/%s/%d", r.HostID, r.Boot, r.Seq)
		if it.of != nil && r.Response != nil {
			r.Response.Of = it.of.ID
		} else if it.of != nil && r.Gap != nil {
			r.Gap.Of = it.of.ID
		}
		out[i] = r
	}
	h.items = h.items[:0]
	return out
}

// at is when a record was written: a change that was found later is of its window's end.
func at(r *event.Record) event.Time {
	if r.Found != "" || r.Kind == event.RecSession {
		return max(r.Time, r.TimeEnd)
	}
	return r.Time
}

func (h *host) add(r, of *event.Record) *event.Record {
	h.items = append(h.items, item{r, of})
	return r
}

func choose[T any](r *rand.Rand, v ...T) T { return v[r.IntN(len(v))] }

// between is a moment of the day from one hour to another.
func (h *host) between(from, to int) event.Time {
	return h.day + event.Time(from)*hour + event.Time(h.r.Int64N(int64(to-from)*int64(hour)))
}

func digits(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return hex.EncodeToString(b)
}

func (h *host) hash() (x event.Hash) {
	for i := range x {
		x[i] = byte(h.r.Uint32())
	}
	return x
}
