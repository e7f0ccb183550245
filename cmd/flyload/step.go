//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"time"
)

const (
	// stallTime is the usual patience of a rig.
	stallTime = time.Second
	drainTime = 10 * time.Second
	// behindTime is how far deliveries may fall behind before a step is given up.
	behindTime = 0.6 // seconds of the asked rate
	warmTries  = 20
	warmRate   = 2000 // messages a second
	warmTime   = 20 * time.Second
)

// rig is a server with streams and publishers on it.
type rig struct {
	server     *server
	load       load
	streams    *streams
	publishers *publishers
	// patience is the time without a delivery after which what is missing will not
	// come.
	patience time.Duration
	stalled  int // streams that do not read any more, whose deliveries do not count
}

// step is what one measurement found.
type step struct {
	asked     float64 // deliveries a second
	rate      float64 // deliveries a second that came
	published uint64
	tally     tally
	p50       time.Duration
	p99       time.Duration
	p999      time.Duration
	answers   histogram // of HTTP publishes
	answered  float64   // publishes a second
	cpu       float64   // seconds of the server
	mallocs   float64   // allocations of the server; below 0 when it does not tell
	client    float64   // share of one core that this process took: near 1 it is the limit
	others    float64   // share of the machine that neither server nor client took
	bad       string    // "" when everything arrived, once and in order, in time
}

// open opens the streams, then the publishers.
func (r *rig) open(ctx context.Context) (err error) {
	if r.streams, err = openStreams(ctx, r.server.target, r.load); err != nil {
		return err
	}
	r.publishers, err = openPublishers(ctx, r.server.target, r.load)
	return err
}

// perMessage is how many deliveries a message asks for.
func (r *rig) perMessage() float64 {
	return float64(r.load.streams-r.stalled) / float64(r.load.topics)
}

func (r *rig) close() {
	if r.publishers != nil {
		r.publishers.close()
	}
	if r.streams != nil {
		r.streams.close()
	}
}

// warm publishes until every stream has had a message from every publisher: only
// then must none be missing.
func (r *rig) warm(ctx context.Context) error {
	for range warmTries {
		if _, _, err := r.publishers.run(ctx, plan{rate: warmRate, duration: warmTime, count: r.publishers.round()}); err != nil {
			return err
		}
		r.calm(ctx)
		if r.streams.unbegun() == 0 {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%d of %d streams got no message", r.streams.unbegun(), len(r.streams.all))
}

// calm waits until nothing arrives any more.
func (r *rig) calm(ctx context.Context) {
	for end := time.Now().Add(drainTime); time.Now().Before(end) && ctx.Err() == nil; {
		before := r.streams.reader.delivered.Load()
		time.Sleep(200 * time.Millisecond)
		if r.streams.reader.delivered.Load() == before {
			return
		}
	}
}

// measure publishes for duration so that rate deliveries a second are due; with a
// rate of 0 each publisher sends when its last message was answered. Everything
// published is waited for.
func (r *rig) measure(ctx context.Context, rate float64, duration time.Duration) (step, error) {
	reader, n := r.streams.reader, r.perMessage()
	count, err := r.server.countMallocs(ctx)
	if err != nil {
		return step{}, err
	}
	reader.mark()
	delivered, published := reader.delivered.Load(), r.publishers.published.Load()
	missing := func() float64 {
		return float64(r.publishers.published.Load()-published)*n - float64(reader.delivered.Load()-delivered)
	}
	pl := plan{rate: rate / n, duration: duration}
	if rate > 0 {
		pl.stop = func() bool { return missing() > behindTime*rate+2*n*float64(r.load.topics) }
	}
	before, err := readUsage(r.server.pids(), r.server.helperPids())
	if err != nil {
		return step{}, err
	}
	took, answers, err := r.publishers.run(ctx, pl)
	if err != nil {
		return step{}, err
	}
	r.drain(ctx, missing)
	after, err := readUsage(r.server.pids(), r.server.helperPids())
	if err != nil {
		return step{}, err
	}
	s := step{asked: rate, published: r.publishers.published.Load() - published, answers: answers, cpu: after.server - before.server}
	s.answered = float64(s.published) / took.Seconds()
	s.fill(r, before, after, max(took, time.Unix(0, reader.lastAt.Load()).Sub(before.at)))
	s.judge(n, duration, r.load.p99)
	if s.mallocs, err = count(); err != nil {
		return step{}, err
	}
	return s, ctx.Err()
}

func (r *rig) drain(ctx context.Context, missing func() float64) {
	least, since := math.Inf(1), time.Now()
	for end := time.Now().Add(drainTime); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		switch left := missing(); {
		case left <= 0:
			return
		case left < least:
			least, since = left, time.Now()
		case time.Since(since) > r.patience:
			return
		}
	}
}

func (s *step) fill(r *rig, before, after usage, span time.Duration) {
	var latency histogram
	s.tally, latency = r.streams.reader.totals()
	s.rate = float64(s.tally.delivered) / span.Seconds()
	s.p50, s.p99, s.p999 = latency.quantile(0.5), latency.quantile(0.99), latency.quantile(0.999)
	s.client = (after.own - before.own) / after.at.Sub(before.at).Seconds()
	others := (after.machine - before.machine) - (after.server - before.server) - (after.own - before.own) - (after.helpers - before.helpers)
	s.others = max(0, others) / after.at.Sub(before.at).Seconds() / float64(runtime.NumCPU())
}

func (s *step) judge(perMessage float64, duration, p99 time.Duration) {
	expected := float64(s.published) * perMessage
	missing := expected - float64(s.tally.delivered)
	switch {
	case s.published == 0:
		s.bad = "nothing was published"
	case s.tally.lost > 0:
		s.bad = fmt.Sprintf("%d streams ended", s.tally.lost)
	case missing > 0:
		s.bad = fmt.Sprintf("%.0f of %.0f deliveries missing", missing, expected)
	case s.tally.late > 0 || s.tally.strange > 0:
		s.bad = fmt.Sprintf("%d deliveries repeated or out of order, %d strange", s.tally.late, s.tally.strange)
	case missing < 0:
		s.bad = "more deliveries than were published"
	case expected < 0.97*s.asked*duration.Seconds():
		s.bad = "deliveries fell behind"
	case s.asked > 0 && s.p99 > p99:
		s.bad = fmt.Sprintf("p99 %v", s.p99.Round(time.Millisecond))
	}
}

// recover makes the streams ready for another step after a bad one.
func (r *rig) recover(ctx context.Context) error {
	r.calm(ctx)
	if _, err := r.streams.repair(ctx); err != nil {
		return err
	}
	return r.warm(ctx)
}
