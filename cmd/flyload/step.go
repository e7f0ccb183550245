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
)

// rig is a server with streams and publishers on it.
type rig struct {
	pids       []int
	streams    *streams
	publishers *publishers
	p99        time.Duration // bound of a step that is good
	// patience is the time without a delivery after which what is missing will not
	// come.
	patience time.Duration
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
	client    float64   // share of one core that this process took: near 1 it is the limit
	others    float64   // share of the machine that neither server nor client took
	bad       string    // "" when everything arrived, once and in order, in time
}

// open opens n streams, then the publishers.
func (r *rig) open(ctx context.Context, t target, n, publishers, size int) (err error) {
	if r.streams, err = openStreams(ctx, t, n, publishers); err != nil {
		return err
	}
	if r.publishers, err = openPublishers(ctx, t, publishers, size); err != nil {
		return err
	}
	return nil
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
		if _, _, err := r.publishers.run(ctx, plan{rate: 1000, duration: time.Second, count: 1}); err != nil {
			return err
		}
		r.quiet(ctx)
		if r.streams.unbegun() == 0 {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%d of %d streams got no message", r.streams.unbegun(), len(r.streams.all))
}

// quiet waits until nothing arrives any more.
func (r *rig) quiet(ctx context.Context) {
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
	reader, n := r.streams.reader, float64(len(r.streams.all))
	reader.mark()
	delivered, published := reader.delivered.Load(), r.publishers.published.Load()
	missing := func() float64 {
		return float64(r.publishers.published.Load()-published)*n - float64(reader.delivered.Load()-delivered)
	}
	pl := plan{rate: rate / n, duration: duration}
	if rate > 0 {
		pl.stop = func() bool { return missing() > behindTime*rate+2*n }
	}
	before, err := readUsage(r.pids)
	if err != nil {
		return step{}, err
	}
	took, answers, err := r.publishers.run(ctx, pl)
	if err != nil {
		return step{}, err
	}
	r.drain(ctx, missing)
	after, err := readUsage(r.pids)
	if err != nil {
		return step{}, err
	}
	s := step{asked: rate, published: r.publishers.published.Load() - published, answers: answers, cpu: after.server - before.server}
	s.answered = float64(s.published) / took.Seconds()
	s.fill(r, before, after, max(took, time.Unix(0, reader.lastAt.Load()).Sub(before.at)))
	s.judge(n, duration, r.p99)
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
	others := (after.machine - before.machine) - (after.server - before.server) - (after.own - before.own)
	s.others = max(0, others) / after.at.Sub(before.at).Seconds() / float64(runtime.NumCPU())
}

func (s *step) judge(streams float64, duration, p99 time.Duration) {
	expected := float64(s.published) * streams
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
		s.bad = "deliveries of an earlier step"
	case expected < 0.97*s.asked*duration.Seconds():
		s.bad = "deliveries fell behind"
	case s.asked > 0 && s.p99 > p99:
		s.bad = fmt.Sprintf("p99 %v", s.p99.Round(time.Millisecond))
	}
}

// recover makes the streams ready for another step after a bad one.
func (r *rig) recover(ctx context.Context) error {
	r.quiet(ctx)
	if _, err := r.streams.repair(ctx); err != nil {
		return err
	}
	return r.warm(ctx)
}

// perDelivery is the server's CPU time in microseconds for each delivery.
func (s *step) perDelivery() float64 { return s.cpu * 1e6 / max(1, float64(s.tally.delivered)) }

// perPublish is the server's CPU time in microseconds for each publish.
func (s *step) perPublish() float64 { return s.cpu * 1e6 / max(1, float64(s.published)) }

// perRead is how many deliveries one read call brought.
func (s *step) perRead() float64 {
	return float64(s.tally.delivered) / max(1, float64(s.tally.reads))
}
