package querytest

import (
	"cmp"
	"context"
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// List is the plainest store: a walk over records that lie host by host, each by sequence.
type List []*event.Record

var _ query.Store = List(nil)

// Records implements query.Store.
func (l List) Records(ctx context.Context, f query.Filter, fn func(*event.Record) error) error {
	for _, r := range answer(l, f) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// answer is what f selects, in the order that query.Store promises.
func answer(records []*event.Record, f query.Filter) []*event.Record {
	var out []*event.Record
	hosts := map[string]bool{}
	for _, r := range records {
		if f.Host == "" || f.Host == r.Host || f.Host == r.HostID || f.Host == event.Machine(r.HostID) {
			hosts[r.HostID] = true
		}
		if f.Match(r) {
			out = append(out, r)
		}
	}
	if len(hosts) > 1 {
		slices.SortFunc(out, func(a, b *event.Record) int {
			return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.HostID, b.HostID), cmp.Compare(a.Seq, b.Seq))
		})
	}
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[len(out)-f.Limit:]
	}
	return out
}

// Lag implements query.Store.
func (l List) Lag(context.Context) (query.Lag, error) {
	if len(l) == 0 {
		return query.Lag{}, nil
	}
	return query.Lag{Newest: l[len(l)-1].Seq}, nil
}

// Close implements query.Store.
func (l List) Close() error { return nil }
