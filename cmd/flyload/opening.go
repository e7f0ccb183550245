//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

// opening measures what it costs to open streams, and what they hold while nothing
// happens.
func (t task) opening(ctx context.Context) error {
	hush(ctx, t.quiet)
	kb := memoryKB(t.server.pids())
	r, err := t.openAll(ctx)
	if err != nil {
		return err
	}
	if t.load.kind == kindIdle {
		select {
		case <-time.After(t.settle):
		case <-ctx.Done():
			return ctx.Err()
		}
		now := memoryKB(t.server.pids())
		r.PerStream, r.Memory = (now-kb)/float64(t.load.streams), now/1024
		if err := t.profiles.after(ctx, t.server, t.name()); err != nil {
			return err
		}
	}
	// Streams that do not work cost little.
	if err := t.warm(ctx); err != nil {
		r.Bad = err.Error()
	} else if tally, _ := t.streams.reader.totals(); tally.lost > 0 {
		r.Bad = fmt.Sprintf("%d streams ended", tally.lost)
	}
	return t.done(r)
}

// openAll opens the streams and says what each cost.
func (t task) openAll(ctx context.Context) (record, error) {
	count, err := t.server.countMallocs(ctx)
	if err != nil {
		return record{}, err
	}
	profiled := t.profiles.during(ctx, t.server, t.name(), t.fixed)
	before, err := readUsage(t.server.pids(), t.server.helperPids())
	if err != nil {
		return record{}, err
	}
	if err := t.open(ctx); err != nil {
		return record{}, err
	}
	after, err := readUsage(t.server.pids(), t.server.helperPids())
	if err != nil {
		return record{}, err
	}
	mallocs, err := count()
	if err != nil {
		return record{}, err
	}
	var s step
	took := after.at.Sub(before.at)
	s.fill(t.rig, before, after, took)
	each := float64(t.load.streams)
	r := record{Step: "open", PerSecond: each / took.Seconds(), CPU: (after.server - before.server) * 1e6 / each,
		Allocs: -1, Client: s.client, Others: s.others}
	if mallocs >= 0 {
		r.Allocs = mallocs / each
	}
	return r, profiled()
}
