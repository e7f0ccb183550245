//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// settings say what is measured.
type settings struct {
	streams    int
	idle       int // streams of a further memory measurement; 0 for none
	runs       int
	only       string // a door's key or "post"; empty for everything
	payload    int    // bytes
	publishers int    // HTTP connections
	rate       float64
	p99        time.Duration
	fixed      time.Duration // length of the step at the fixed rate
	try        time.Duration // length of a step of the search
	settle     time.Duration // before memory is read
	limit      time.Duration // for everything
}

// bench holds the results as they come.
type bench struct {
	settings
	program string // the gateway's
	dir     string
	cores   cores
	note    func(format string, args ...any) // progress, for people

	doors []*doorResult
	posts []step
	large []*doorResult // idle only
}

// doorResult is what the runs of one door found, an entry for each run.
type doorResult struct {
	name     string
	streams  int
	memory   []float64 // KiB for each idle stream
	fixed    []step
	capacity []step
}

// gatewayRuns measures publishing over HTTP, then every door in turn, and that
// again for each run: the machine drifts, and so it does for all alike.
func (b *bench) gatewayRuns(ctx context.Context) error {
	if b.wants("post") {
		if err := b.posting(ctx); err != nil {
			return fmt.Errorf("HTTP publishing: %w", err)
		}
	}
	for _, d := range doors {
		if b.wants(d.key) {
			b.doors = append(b.doors, &doorResult{name: d.name, streams: b.streams})
		}
	}
	if err := b.largeIdle(ctx); err != nil || len(b.doors) == 0 {
		return err
	}
	for run := range b.runs {
		began := time.Now()
		if err := b.round(ctx); run > 0 && errors.Is(context.Cause(ctx), errTimeUp) {
			b.note("the time is up in run %d of %d", run+1, b.runs)
			return nil // the others are enough for the tables
		} else if err != nil {
			return err
		}
		// The first round searches longer than the others.
		if next := time.Since(began) * 3 / 4; run < b.runs-1 && timeLeft(ctx) < next {
			b.note("the time is short: %d of %d runs", run+1, b.runs)
			return nil
		}
	}
	return nil
}

func (b *bench) wants(key string) bool { return b.only == "" || b.only == key }

func timeLeft(ctx context.Context) time.Duration {
	end, limited := ctx.Deadline()
	if !limited {
		return time.Hour
	}
	return time.Until(end)
}

// round is one run of every door.
func (b *bench) round(ctx context.Context) error {
	for _, result := range b.doors {
		err := b.withGateway(ctx, b.streams, func(g *gateway) error {
			return b.fanOut(ctx, g.target(result.name), g.pids(), result, true)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", result.name, err)
		}
		b.note("%s: %s", result.name, result.last())
	}
	return nil
}

// withGateway runs use with a fresh gateway, so that runs do not share a heap.
func (b *bench) withGateway(ctx context.Context, streams int, use func(*gateway) error) error {
	dir, err := os.MkdirTemp(b.dir, "run")
	if err != nil {
		return err
	}
	g, err := startGateway(ctx, b.program, filepath.Join(dir, "data"), b.cores.server, streams)
	if err != nil {
		return err
	}
	return errors.Join(use(g), g.stop())
}

func (b *bench) rig(pids []int) *rig { return &rig{pids: pids, p99: b.p99, patience: stallTime} }

// fanOut measures one run of a door: memory at rest (if the server is fresh),
// the fixed rate, and the capacity.
func (b *bench) fanOut(ctx context.Context, t target, pids []int, result *doorResult, fresh bool) error {
	r := b.rig(pids)
	defer r.close()
	if err := b.rest(ctx, r, t, result, fresh); err != nil {
		return err
	}
	if err := r.warm(ctx); err != nil {
		return err
	}
	fixed, err := b.measure(ctx, r, b.rate, b.fixed)
	if err != nil {
		return err
	}
	result.fixed = append(result.fixed, fixed)
	capacity, err := b.capacity(ctx, r, result.capacity)
	if err != nil {
		return err
	}
	result.capacity = append(result.capacity, capacity)
	return nil
}

// rest opens everything and reads what the streams cost while nothing happens.
func (b *bench) rest(ctx context.Context, r *rig, t target, result *doorResult, fresh bool) error {
	before := memoryKB(r.pids)
	if err := r.open(ctx, t, result.streams, 1, b.payload); err != nil {
		return err
	}
	if !fresh {
		return nil
	}
	select {
	case <-time.After(b.settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	result.memory = append(result.memory, (memoryKB(r.pids)-before)/float64(result.streams))
	return nil
}

// Other processes make a step that is good look bad. disturbed is the share of
// the machine beyond which they are blamed, and hushTime how long a step waits for
// them to rest.
const (
	disturbed = 0.2
	hushTime  = 2 * time.Second
)

// measure takes one step, and the same again when it is bad: once, for one hiccup
// of the machine is no limit of the server, or more often while others disturb.
func (b *bench) measure(ctx context.Context, r *rig, rate float64, duration time.Duration) (s step, err error) {
	for try := 0; try < 2 || try < 3 && s.others > disturbed; try++ {
		hush(ctx)
		if s, err = r.measure(ctx, rate, duration); err != nil {
			return s, err
		}
		b.note("  %9.0f/s: p99 %6.1f ms, %5.2f µs, client %2.0f%%, others %2.0f%% %s",
			rate, ms(s.p99), s.perDelivery(), 100*s.client, 100*s.others, s.bad)
		if s.bad == "" {
			return s, nil
		}
		if err := r.recover(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

// hush waits for a machine that rests.
func hush(ctx context.Context) {
	const look = 100 * time.Millisecond
	for end := time.Now().Add(hushTime); time.Now().Before(end) && ctx.Err() == nil; {
		before, err1 := machineCPU()
		time.Sleep(look)
		after, err2 := machineCPU()
		if err1 != nil || err2 != nil || after-before <= disturbed*look.Seconds()*float64(runtime.NumCPU()) {
			return
		}
	}
}

// capacity searches the highest good rate: by doubling from the fixed rate, or
// in small steps around what the first run found.
func (b *bench) capacity(ctx context.Context, r *rig, earlier []step) (best step, err error) {
	start, factor, bisections := b.rate*2, 2.0, 2
	if len(earlier) > 0 && earlier[0].asked > 0 {
		start, factor, bisections = earlier[0].asked, 1.2, 1
	}
	found, err := search(start, factor, bisections, func(rate float64) (bool, error) {
		s, err := b.measure(ctx, r, rate, b.try)
		if err == nil && s.bad == "" && s.asked > best.asked {
			best = s
		}
		return s.bad == "", err
	})
	if err == nil && found == 0 {
		best.bad = "no rate was good"
	}
	return best, err
}

// posting measures publishes over kept-alive HTTP connections, each answered when
// the broker has acknowledged it, and counted at one stream.
func (b *bench) posting(ctx context.Context) error {
	return b.withGateway(ctx, b.streams, func(g *gateway) error {
		r := b.rig(g.pids())
		defer r.close()
		if err := r.open(ctx, g.posting(), 1, b.publishers, b.payload); err != nil {
			return err
		}
		if err := r.warm(ctx); err != nil {
			return err
		}
		for range b.runs {
			s, err := r.measure(ctx, 0, b.fixed)
			if err != nil {
				return err
			}
			b.posts = append(b.posts, s)
			b.note("HTTP POST: %.0f/s, %.1f µs %s", s.answered, s.perPublish(), s.bad)
			if s.bad == "" {
				continue
			}
			if err := r.recover(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// largeIdle measures memory once more with many streams.
func (b *bench) largeIdle(ctx context.Context) error {
	for _, d := range b.doors {
		if b.idle == 0 {
			break
		}
		result := &doorResult{name: d.name, streams: b.idle}
		err := b.withGateway(ctx, b.idle, func(g *gateway) error {
			r := b.rig(g.pids())
			defer r.close()
			return b.rest(ctx, r, g.target(result.name), result, true)
		})
		if err != nil {
			return fmt.Errorf("%d idle streams, %s: %w", b.idle, d.name, err)
		}
		b.large = append(b.large, result)
	}
	return nil
}

// targetRuns measures a server that runs already.
func (b *bench) targetRuns(ctx context.Context, t target, pids []int) error {
	result := &doorResult{name: t.Name, streams: b.streams}
	b.doors = append(b.doors, result)
	for run := range b.runs {
		if err := b.fanOut(ctx, t, pids, result, run == 0); err != nil {
			return fmt.Errorf("%s, run %d: %w", t.Name, run+1, err)
		}
		b.note("%s, run %d: %s", t.Name, run+1, result.last())
	}
	return nil
}
