package pipelinetest

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
)

// Journal keeps records in memory.
type Journal struct {
	mu      sync.Mutex // guards all below
	records []event.Record
	durable int
	refuse  int
}

var _ pipeline.Journal = (*Journal)(nil)

// ErrFull is what a journal says that was told to refuse.
var ErrFull = errors.New("journal queue is full")

// Refuse makes the next n appends fail.
func (j *Journal) Refuse(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.refuse = n
}

// Append implements pipeline.Journal.
func (j *Journal) Append(r *event.Record) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.refuse > 0 {
		j.refuse--
		return 0, ErrFull
	}
	r.Seq = uint64(len(j.records) + 1)
	r.ID = "host/boot/" + strconv.FormatUint(r.Seq, 10)
	j.records = append(j.records, *r)
	return r.Seq, nil
}

// AppendDurable implements pipeline.Journal.
func (j *Journal) AppendDurable(ctx context.Context, r *event.Record) (uint64, error) {
	n, err := j.Append(r)
	if err == nil {
		j.mu.Lock()
		j.durable = int(n)
		j.mu.Unlock()
	}
	return n, err
}

// Records returns what was appended, and how many of it are durable.
func (j *Journal) Records() (records []event.Record, durable int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]event.Record(nil), j.records...), j.durable
}
