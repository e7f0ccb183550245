//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
)

// settings say how it is measured.
type settings struct {
	runs     int
	fixed    time.Duration // length of the step at the fixed rate
	try      time.Duration // length of a step of the search
	settle   time.Duration // before memory is read
	steps    string        // "fixed" or "capacity" for only that; empty for both
	quiet    float64       // share of the machine that others may take before a step is repeated
	rate     float64       // instead of the scenario's; 0 for none
	bisect   int           // bisections of the first search
	stallFor time.Duration // for how long streams do not read before the others are measured
}

// bench measures and keeps the records as they come.
type bench struct {
	settings
	env
	loads []load
	lanes []lane
	note  func(format string, args ...any) // progress, for people
	write func(record) error               // a record that is done
	found map[string]step                  // by scenario and lane: the first capacity

	records []record
}

// all measures every scenario: run for run, and in each run every lane in turn,
// since the machine drifts, and so it does for all alike. A lane that fails is
// told, and the others go on.
func (b *bench) all(ctx context.Context) error {
	var failed []error
	for _, l := range b.loads {
		for run := range b.runs {
			for _, n := range b.lanes {
				if !n.measures(l) {
					continue
				}
				if err := b.one(ctx, l, n, run+1); err != nil {
					err = fmt.Errorf("%s, %s: %w", l.name, n.name, err)
					b.note("%v", err)
					failed = append(failed, err)
				}
				if ctx.Err() != nil {
					return errors.Join(append(failed, context.Cause(ctx))...)
				}
			}
		}
	}
	return errors.Join(failed...)
}

// one measures a scenario at a fresh server, so that runs do not share a heap.
func (b *bench) one(ctx context.Context, l load, n lane, run int) (err error) {
	e := b.env
	if e.dir, err = os.MkdirTemp(b.dir, "run"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(e.dir) }()
	s, err := n.start(ctx, e, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.target.validate(); err != nil {
		return err
	}
	r := &rig{server: s, load: l, patience: stallTime}
	defer r.close()
	t := task{bench: b, rig: r, lane: n, run: run}
	switch l.kind {
	case kindIdle, kindConnect:
		return t.opening(ctx)
	case kindPublish:
		return t.publishing(ctx)
	case kindStall:
		return t.stalling(ctx)
	}
	return t.fanOut(ctx)
}

// task is one lane's part of one run of a scenario.
type task struct {
	*bench
	*rig
	lane lane
	run  int
}

// done completes and keeps a record.
func (t task) done(r record) error {
	l := t.load
	r.At, r.Scenario, r.Target, r.Run = time.Now().UTC(), l.name, t.lane.name, t.run
	r.Streams, r.Topics, r.Payload = l.streams, l.topics, l.payload
	if r.Memory == 0 {
		r.Memory = memoryKB(t.server.pids()) / 1024
	}
	t.records = append(t.records, r)
	t.note("%s", r.line())
	return t.write(r)
}

// name is for files of this task.
func (t task) name() string {
	return fmt.Sprintf("%s-%s-%d", t.load.name, t.lane.name, t.run)
}

// fanOut measures the fixed rate and the capacity.
func (t task) fanOut(ctx context.Context) error {
	if err := t.open(ctx); err != nil {
		return err
	}
	if err := t.warm(ctx); err != nil {
		return err
	}
	if t.steps != "capacity" {
		profiled := t.profiles.during(ctx, t.server, t.name(), t.fixed)
		s, err := t.quietest(ctx, t.load.rate)
		if err = errors.Join(err, profiled(), t.profiles.after(ctx, t.server, t.name())); err != nil {
			return err
		}
		if err := t.done(s.record("fixed")); err != nil {
			return err
		}
	}
	if t.steps == "fixed" {
		return nil
	}
	s, err := t.capacity(ctx)
	if err != nil {
		return err
	}
	return t.done(s.record("capacity"))
}

// quietest takes a step at the fixed rate and takes it again, up to twice, when it
// was bad or others took too much of the machine; the least disturbed good one
// counts. With a CPU profile it is taken once.
func (t task) quietest(ctx context.Context, rate float64) (best step, err error) {
	for try := range 3 {
		hush(ctx, t.quiet)
		s, err := t.measure(ctx, rate, t.fixed)
		if err != nil {
			return s, err
		}
		t.tell(s)
		if better := s.others < best.others; try == 0 || (s.bad == "") != (best.bad == "") && s.bad == "" || better && s.bad == best.bad {
			best = s
		}
		if s.bad == "" && (t.quiet == 0 || best.others <= t.quiet) || t.profiles.cpu != "" {
			break
		}
		if err := t.recover(ctx); err != nil {
			return best, err
		}
	}
	return best, nil
}

func (t task) tell(s step) {
	t.note("  %9.0f/s: p99 %6.1f ms, %5.2f µs, client %2.0f%%, others %2.0f%% %s",
		s.asked, ms(s.p99), s.cpu*1e6/max(1, float64(s.tally.delivered)), 100*s.client, 100*s.others, s.bad)
}

// try takes one step of the search, and the same again when it is bad: once, for
// one hiccup of the machine is no limit of the server, or twice while others
// disturb.
func (t task) try(ctx context.Context, rate float64) (s step, err error) {
	for try := 0; try < 2 || try < 3 && s.others > max(t.quiet, disturbed); try++ {
		hush(ctx, t.quiet)
		if s, err = t.measure(ctx, rate, t.bench.try); err != nil {
			return s, err
		}
		t.tell(s)
		if s.bad == "" {
			return s, nil
		}
		if err := t.recover(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

const (
	// disturbed is the share of the machine beyond which others are blamed for a
	// bad step, and hushTime how long a step waits for them to rest.
	disturbed = 0.2
	hushTime  = 3 * time.Second
)

// hush waits for a machine that rests: others take less than the share.
func hush(ctx context.Context, share float64) {
	const look = 100 * time.Millisecond
	for end := time.Now().Add(hushTime); share > 0 && time.Now().Before(end) && ctx.Err() == nil; {
		before, err1 := machineCPU()
		time.Sleep(look)
		after, err2 := machineCPU()
		if err1 != nil || err2 != nil || after-before <= share*look.Seconds()*float64(runtime.NumCPU()) {
			return
		}
	}
}

// capacity searches the highest good rate: by doubling from the fixed rate, or
// in small steps around what the first run found.
func (t task) capacity(ctx context.Context) (best step, err error) {
	start, factor, bisections := t.load.rate*2, 2.0, t.bisect
	key := t.load.name + " " + t.lane.name
	if first := t.found[key]; first.asked > 0 {
		start, factor, bisections = first.asked, 1.2, 1
	}
	found, err := search(start, factor, bisections, func(rate float64) (bool, error) {
		s, err := t.try(ctx, rate)
		if err == nil && s.bad == "" && s.asked > best.asked {
			best = s
		}
		return s.bad == "", err
	})
	if err == nil && found == 0 {
		best.bad = "no rate was good"
	}
	if t.found[key].asked == 0 {
		t.found[key] = best
	}
	return best, err
}

// publishing measures HTTP publishes, each sent when the last one on its
// connection was answered, and counted at one stream.
func (t task) publishing(ctx context.Context) error {
	if err := t.open(ctx); err != nil {
		return err
	}
	if err := t.warm(ctx); err != nil {
		return err
	}
	profiled := t.profiles.during(ctx, t.server, t.name(), t.fixed)
	s, err := t.quietest(ctx, 0)
	if err = errors.Join(err, profiled(), t.profiles.after(ctx, t.server, t.name())); err != nil {
		return err
	}
	return t.done(s.requests("closed loop"))
}
