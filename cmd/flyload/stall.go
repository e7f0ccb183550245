//go:build linux

package main

import (
	"context"
	"fmt"
)

// stalledQueue is how many messages a gateway may keep for a stream in the stall
// scenario: few, so that the queues of those that do not read run over while the
// others are measured.
const stalledQueue = 100

// baseline is the step before streams stop reading.
const baseline = "baseline"

// stalling measures whether streams that do not read any more harm the others: a
// baseline, then a tenth stops reading, then, when they are full, the same step
// for the others.
func (t task) stalling(ctx context.Context) error {
	if err := t.open(ctx); err != nil {
		return err
	}
	if err := t.warm(ctx); err != nil {
		return err
	}
	base, err := t.quietest(ctx, t.load.rate)
	if err != nil {
		return err
	}
	if err := t.done(base.record(baseline)); err != nil {
		return err
	}
	dropped, err := t.droppedBy(ctx)
	if err != nil {
		return err
	}
	if err := t.stall(); err != nil {
		return err
	}
	share := 1 - float64(t.load.stalled)/float64(t.load.streams) // of the streams that read
	// The step is the same for the server, although fewer deliveries count.
	if s, err := t.measure(ctx, t.load.rate*share, t.stallFor); err != nil {
		return err
	} else if t.tell(s); s.bad != "" {
		t.note("  while they fill up: %s", s.bad)
	}
	s, err := t.quietest(ctx, t.load.rate*share)
	if err != nil {
		return err
	}
	r := s.record(fmt.Sprintf("%d stalled", t.load.stalled))
	after, err := t.droppedBy(ctx)
	if err != nil {
		return err
	}
	if r.Dropped = after - dropped; t.server.page != "" {
		if r.Ended, err = t.endedBy(ctx); err != nil {
			return err
		}
		if r.Dropped == 0 && r.Ended == 0 && r.Bad == "" {
			r.Bad = "the queues of the stalled streams have not run over"
		}
	}
	return t.done(r)
}

// endedBy is how many streams a gateway has ended.
func (t task) endedBy(ctx context.Context) (float64, error) {
	open, err := t.server.metric(ctx, "flyscreen_stream_open")
	return float64(t.load.streams) - open, err
}

// stall stops reading the first streams.
func (t task) stall() error {
	for _, c := range t.streams.all[:t.load.stalled] {
		if err := t.streams.reader.stall(c); err != nil {
			return err
		}
	}
	t.stalled = t.load.stalled
	return nil
}

// droppedBy is how many messages a gateway has left out so far.
func (t task) droppedBy(ctx context.Context) (float64, error) {
	if t.server.page == "" {
		return 0, nil
	}
	return t.server.metric(ctx, "flyscreen_stream_dropped_messages_total")
}
