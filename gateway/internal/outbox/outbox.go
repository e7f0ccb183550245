// Package outbox keeps on disk what cannot be delivered to the broker now. It
// stands between the publish desk and the broker: while the connection is up and
// nothing of a topic is kept, messages pass by it; otherwise they are written to a
// file, answered as queued once that is durable, and delivered in the order of each
// topic when the broker is back, also after a crash.
//
// A message is kept at least once and delivered at least once: what an ended
// connection left unanswered is sent again. A message for which the broker ends the
// connection is tried alone and put into quarantine, so that it stops nobody else.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"

	"github.com/prometheus/client_golang/prometheus"
)

// Broker is what messages are delivered to, over one or more lines.
type Broker interface {
	// Publish sends one message and waits.
	Publish(ctx context.Context, m mqtt.Message) (mqtt.Delivery, error)
	// Send hands m over; completed is called once, unless there is an error, and must
	// not block. Messages of one line that an ended connection leaves unanswered
	// complete in their order, before the line is told to be down.
	Send(m mqtt.Message, completed func(mqtt.Delivery, error)) error
	Lines() int
	Line(topic mqtt.Topic) int
}

// Options are what New needs.
type Options struct {
	Broker Broker
	Dir    string // holds outbox.db; made if need be
	// MaxBytes bounds the records in the file, quarantine included (default 256 MiB);
	// beyond it messages are refused. The file is somewhat larger and does not shrink
	// before a restart.
	MaxBytes int
	// MaxAge is how long a message may wait (default 24 h); then it goes to quarantine.
	MaxAge time.Duration
	// KeepAnswers is how long the answer to a key is kept (default 10 min).
	KeepAnswers time.Duration
	Logger      *slog.Logger
	Metrics     prometheus.Registerer // may be nil
}

// Outbox is one file and what is under way from it. Its methods are safe for
// concurrent use.
type Outbox struct {
	options Options
	broker  Broker
	log     *slog.Logger
	metrics *metrics
	commits *committer
	lines   []*line

	bytes  atomic.Int64 // of records
	kept   atomic.Int64 // messages
	poison atomic.Int64 // messages in quarantine

	mu     sync.Mutex // guards the following
	broken error      // why the file cannot be written at present
	warned time.Time
	muted  int
}

// New makes an outbox; Open reads its file.
func New(o Options) *Outbox {
	if o.MaxBytes == 0 {
		o.MaxBytes = 256 << 20
	}
	if o.MaxAge == 0 {
		o.MaxAge = 24 * time.Hour
	}
	if o.KeepAnswers == 0 {
		o.KeepAnswers = 10 * time.Minute
	}
	b := &Outbox{options: o, broker: o.Broker, log: o.Logger.With("room", "outbox")}
	b.commits = &committer{o: b, wake: make(chan struct{}, 1)}
	for n := range o.Broker.Lines() {
		b.lines = append(b.lines, newLine(b, n))
	}
	b.metrics = newMetrics(o.Metrics, b)
	return b
}

// Open opens the file. An error means that it cannot be used now; it is tried again
// as long as Run runs, and until then nothing is accepted that cannot go directly.
func (o *Outbox) Open() error {
	o.commits.tried = time.Now()
	if err := o.load(); err != nil {
		o.failing(err)
		return err
	}
	return nil
}

// load opens the file and takes up what is in it.
func (o *Outbox) load() error {
	began := time.Now()
	s, moved, cause, err := openStore(o.options.Dir)
	if moved != "" {
		o.log.Error("the file was damaged and has been moved aside; what is readable in it was taken over", "damaged", moved, "err", cause)
		o.metrics.damaged.Inc()
	}
	if err != nil {
		return err
	}
	last, err := o.count(s)
	if err != nil {
		s.close()
		return err
	}
	o.commits.mu.Lock()
	o.commits.seq = max(o.commits.seq, last)
	o.commits.mu.Unlock()
	o.commits.store.Store(s)
	o.recovered()
	for _, l := range o.lines {
		l.poke()
	}
	o.log.Info("opened", "messages", o.kept.Load(), "quarantined", o.poison.Load(), "bytes", o.bytes.Load(), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// count takes up the numbers of what is in the file; last is the highest sequence
// number. Without a file the outbox had accepted nothing.
func (o *Outbox) count(s *store) (last uint64, err error) {
	bytes, kept, poison := 0, 0, 0
	err = s.eachMessage(0, func(r *message) bool {
		l := o.lines[o.broker.Line(r.m.Topic)]
		l.mu.Lock()
		l.slots[slotOf(r.m.Topic)].kept++
		l.more = true
		l.noteLowLocked()
		l.mu.Unlock()
		bytes += r.size()
		kept++
		last = max(last, r.seq)
		return true
	})
	if err != nil {
		return 0, err
	}
	err = s.eachPoison(func(r *message) bool {
		bytes += r.size()
		poison++
		last = max(last, r.seq)
		return true
	})
	o.bytes.Add(int64(bytes))
	o.kept.Add(int64(kept))
	o.poison.Add(int64(poison))
	return last, err
}

// Run delivers what is kept until ctx is done. It is to outlive the broker's side,
// which may have messages under way that have to be kept at its end.
func (o *Outbox) Run(ctx context.Context) error {
	var lines, commits sync.WaitGroup
	committing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	commits.Go(func() { o.commits.run(committing) })
	for _, l := range o.lines {
		lines.Go(func() { l.run(ctx) })
	}
	lines.Go(func() { o.sweep(ctx) })
	lines.Wait()
	stop()
	commits.Wait()
	if s := o.commits.store.Swap(nil); s != nil {
		return s.db.Close()
	}
	return nil
}

// PublishLink tells of a line's connection, as upstream does.
func (o *Outbox) PublishLink(line int, up, survived bool) { o.lines[line].link(up, survived) }

// Publish delivers m, or keeps it. The delivery is Acknowledged, Sent or Queued; an
// error says whether the message may have reached the broker all the same.
func (o *Outbox) Publish(ctx context.Context, m mqtt.Message) (mqtt.Delivery, error) {
	return o.publish(ctx, m, nil)
}

func (o *Outbox) publish(ctx context.Context, m mqtt.Message, key *answer) (mqtt.Delivery, error) {
	l := o.lines[o.broker.Line(m.Topic)]
	if m.QoS == 0 { // never kept
		if err := l.quiet(ctx); err != nil {
			return "", err
		}
		return o.broker.Publish(ctx, m)
	}
	e := &entry{message: message{m: m, accepted: time.Now()}, key: key, result: make(chan outcome, 1)}
	l.accept(e)
	select { // nearly always there soon: no timer for those
	case r := <-e.result:
		return r.delivery, r.err
	default:
	}
	patience := time.NewTimer(brokerPatience(ctx))
	defer patience.Stop()
	select {
	case r := <-e.result:
		return r.delivery, r.err
	case <-patience.C:
	case <-ctx.Done():
	}
	l.giveUp(e, ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded))
	select {
	case r := <-e.result:
		return r.delivery, r.err
	case <-ctx.Done():
		return "", fault.New(fault.UpstreamTimeout, "the broker did not answer; whether it has the message is unknown").Because(ctx.Err())
	}
}

// brokerPatience leaves a fifth of the caller's time for the disk.
func brokerPatience(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 4 * time.Second
	}
	return time.Until(deadline) * 4 / 5
}

// reserve takes room for a message.
func (o *Outbox) reserve(bytes int) error {
	if o.commits.slow() {
		o.metrics.refused.Inc()
		return fault.New(fault.Overloaded, "the broker cannot be reached and the outbox's disk is too slow; the message was not sent").Retry(time.Second)
	}
	if o.bytes.Add(int64(bytes)) > int64(o.options.MaxBytes) {
		o.bytes.Add(-int64(bytes))
		o.metrics.refused.Inc()
		return fault.New(fault.Overloaded, "the broker cannot be reached and the outbox is full (%d bytes); the message was not sent", o.options.MaxBytes).Retry(5 * time.Second)
	}
	o.kept.Add(1)
	return nil
}

func (o *Outbox) release(bytes int) {
	o.bytes.Add(-int64(bytes))
	o.kept.Add(-1)
}

// quarantined counts and tells a message that goes to quarantine.
func (o *Outbox) quarantined(r *message) {
	o.poison.Add(1)
	o.bytes.Add(int64(r.size()))
	o.metrics.quarantined.Inc()
	o.log.Error("a message was put into quarantine; see flyscreen outbox ls", "id", r.seq, "topic", string(r.m.Topic), "bytes", len(r.m.Payload), "reason", r.reason)
}

// warnEvery spaces repeated warnings; those between are counted.
const warnEvery = time.Minute

// failing notes that the file cannot be written, and says so once a minute.
func (o *Outbox) failing(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fresh := o.broken == nil
	o.broken = err
	if !fresh && time.Since(o.warned) < warnEvery {
		o.muted++
		return
	}
	o.log.Error("the outbox cannot use its file; messages that cannot go directly are refused", "dir", o.options.Dir, "err", err, "unreported", o.muted)
	o.warned, o.muted = time.Now(), 0
}

func (o *Outbox) recovered() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken != nil {
		o.broken = nil
		o.log.Info("the outbox can use its file again")
	}
}

// Broken is why the file cannot be written at present; nil when it can.
func (o *Outbox) Broken() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken != nil {
		return fmt.Errorf("the outbox: %w", o.broken)
	}
	return nil
}
