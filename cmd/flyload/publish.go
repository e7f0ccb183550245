//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// answerTime bounds one write or answer.
	answerTime = 10 * time.Second
	// burstMessages bounds what a publisher that is late writes at once.
	burstMessages = 32
)

// publishers publish marked messages, a connection each. One topic is published to
// by all of them; of many topics publisher p has p, p+n, p+2n and so on.
type publishers struct {
	target    target
	all       []*publisher
	published atomic.Uint64 // messages
}

// publisher is one connection. Only the goroutine of the present run uses it.
type publisher struct {
	conn     net.Conn
	answers  *bufio.Reader
	messages []*message // one for each topic, in turn
	next     int
	index    uint16
	batch    []byte
	latency  histogram // of the answers
}

// message is a whole request or packet, to be marked.
type message struct {
	bytes  []byte
	at     int // where the marker stands
	topic  uint16
	number uint32 // of the last one sent
}

// openPublishers connects the publishers of l.
func openPublishers(ctx context.Context, t target, l load) (*publishers, error) {
	p := &publishers{target: t}
	for i := range l.publishers {
		one := &publisher{index: uint16(i)}
		if l.topics == 1 {
			one.add(t, 0, l.payload)
		}
		for k := i; l.topics > 1 && k < l.topics; k += l.publishers {
			one.add(t, k, l.payload)
		}
		p.all = append(p.all, one)
		if err := one.open(ctx, t); err != nil {
			p.close()
			return nil, fmt.Errorf("publisher %d: %w", i+1, err)
		}
	}
	return p, nil
}

// add gives p the topic with that index.
func (p *publisher) add(t target, topic, size int) {
	payload, at := markedPayload(size)
	m := &message{topic: uint16(topic)} //nolint:gosec // there are at most 15,000
	if t.Publish == "http" {
		u, _ := url.Parse(t.fill(t.PublishURL, 0, topic)) // validate has parsed it
		m.bytes = httpRequest("POST", u, t.PublishHeaders, payload)
	} else {
		m.bytes = mqttPublish(t.topic(topic), payload)
	}
	m.at = len(m.bytes) - len(payload) + at
	p.messages = append(p.messages, m)
}

func (p *publisher) open(ctx context.Context, t target) error {
	u, err := url.Parse(t.fill(t.PublishURL, 0, 0))
	if err != nil {
		return err
	}
	d := net.Dialer{Timeout: answerTime}
	if p.conn, err = d.DialContext(ctx, "tcp", u.Host); err != nil {
		return err
	}
	p.answers = bufio.NewReaderSize(p.conn, 16<<10)
	if t.Publish == "http" {
		return nil
	}
	_ = p.conn.SetDeadline(time.Now().Add(answerTime)) // fails only if closed: the next call says so
	if _, err := p.conn.Write(mqttConnect(fmt.Sprintf("flyload-pub-%d", p.index))); err != nil {
		return err
	}
	return readConnack(p.answers)
}

// plan says what to publish.
type plan struct {
	rate     float64 // messages a second in all; 0 for each as soon as the last is answered (http)
	duration time.Duration
	count    uint64 // 0, or how many messages each publisher sends at most
	// stop ends the run early when it reports true; may be nil.
	stop func() bool
}

// run publishes by the plan and returns how long that took and how long the
// answers took (http). The error is the first publisher's that failed.
func (p *publishers) run(ctx context.Context, pl plan) (took time.Duration, answers histogram, err error) {
	var wg sync.WaitGroup
	failed := make([]error, len(p.all))
	start := time.Now()
	for i, one := range p.all {
		wg.Go(func() {
			one.latency = histogram{}
			if err := p.publish(ctx, one, pl, start); err != nil {
				failed[i] = fmt.Errorf("publisher %d: %w", i+1, err)
			}
		})
	}
	wg.Wait()
	took = time.Since(start)
	for i, one := range p.all {
		answers.merge(&one.latency)
		if err == nil {
			err = failed[i]
		}
	}
	return took, answers, err
}

// publish sends p's share: with a rate, message k is due at start plus k gaps, and
// what is due before the end is sent, however late.
func (p *publishers) publish(ctx context.Context, one *publisher, pl plan, start time.Time) error {
	end := start.Add(pl.duration)
	gap := time.Duration(0)
	if pl.rate > 0 {
		gap = time.Duration(float64(len(p.all)) / pl.rate * float64(time.Second))
		start = start.Add(gap * time.Duration(one.index) / time.Duration(len(p.all)))
	}
	if err := one.conn.SetDeadline(end.Add(2 * answerTime)); err != nil {
		return err
	}
	for sent := uint64(0); pl.count == 0 || sent < pl.count; {
		now := time.Now()
		due := now
		if gap > 0 {
			due = start.Add(gap * time.Duration(sent))
		}
		switch {
		case !due.Before(end), now.After(end.Add(answerTime)), ctx.Err() != nil, pl.stop != nil && pl.stop():
			return ctx.Err()
		case due.After(now):
			pause(min(due.Sub(now), 10*time.Millisecond)) // not longer, for stop's sake
			continue
		}
		if p.target.Publish == "http" {
			if err := one.post(due); err != nil {
				return err
			}
			sent++
			p.published.Add(1)
			continue
		}
		n, err := one.burst(due, now, gap, end)
		if err != nil {
			return err
		}
		sent += n
		p.published.Add(n)
	}
	return nil
}

// stamp marks p's next message and returns its bytes.
func (p *publisher) stamp(due time.Time) []byte {
	m := p.messages[p.next]
	p.next = (p.next + 1) % len(p.messages)
	m.number++
	marker{due: due.UnixNano(), publisher: p.index, number: m.number, topic: m.topic}.put(m.bytes[m.at:])
	return m.bytes
}

func (p *publisher) post(due time.Time) error {
	if _, err := p.conn.Write(p.stamp(due)); err != nil {
		return err
	}
	status, err := readAnswer(p.answers)
	if err != nil {
		return err
	}
	if status < 200 || status > 299 {
		return fmt.Errorf("a publish was answered with status %d", status)
	}
	p.latency.add(time.Since(due))
	return nil
}

// burst writes all that is due by now in one call, as a client library that is
// behind would.
func (p *publisher) burst(due, now time.Time, gap time.Duration, end time.Time) (n uint64, err error) {
	p.batch = p.batch[:0]
	for n < burstMessages && !due.After(now) && due.Before(end) {
		p.batch = append(p.batch, p.stamp(due)...)
		n++
		due = due.Add(gap)
	}
	_, err = p.conn.Write(p.batch)
	return n, err
}

// round is how many messages each publisher sends to reach all its topics.
func (p *publishers) round() (n uint64) {
	for _, one := range p.all {
		n = max(n, uint64(len(one.messages)))
	}
	return n
}

func (p *publishers) close() {
	for _, one := range p.all {
		if one.conn != nil {
			_ = one.conn.Close()
		}
	}
}

// pause sleeps in the kernel: Go's timers are a millisecond coarse when nothing
// else runs.
func pause(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&ts, nil) // cut short by a signal does no harm
}
