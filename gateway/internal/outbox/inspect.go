package outbox

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// Item is a message in the outbox, for people.
type Item struct {
	ID       uint64
	Message  mqtt.Message
	Accepted time.Time
	// Quarantined says that the message is not delivered any more, and Reason why.
	Quarantined bool
	Reason      string
}

func item(r *message, quarantined bool) Item {
	return Item{ID: r.seq, Message: r.m, Accepted: r.accepted, Quarantined: quarantined, Reason: r.reason}
}

func (o *Outbox) file() (*store, error) {
	if s := o.commits.store.Load(); s != nil {
		return s, nil
	}
	return nil, fault.New(fault.UpstreamUnavailable, "the outbox cannot open its file").Because(o.Broken())
}

// List returns up to limit messages, those in quarantine first, each group the
// oldest first, and how many there are in all.
func (o *Outbox) List(limit int) (items []Item, queued, quarantined int, err error) {
	s, err := o.file()
	if err != nil {
		return nil, 0, 0, err
	}
	add := func(poison bool) func(*message) bool {
		return func(r *message) bool {
			if len(items) < limit {
				items = append(items, item(r, poison))
			}
			return len(items) < limit
		}
	}
	if err = s.eachPoison(add(true)); err == nil && len(items) < limit {
		err = s.eachMessage(0, add(false))
	}
	queued, quarantined = o.Counts()
	return items, queued, quarantined, err
}

// Counts returns how many messages wait to be delivered, and are in quarantine.
func (o *Outbox) Counts() (queued, quarantined int) { return int(o.kept.Load()), int(o.poison.Load()) }

// Show returns one message.
func (o *Outbox) Show(id uint64) (Item, error) {
	s, err := o.file()
	if err != nil {
		return Item{}, err
	}
	r, poison, err := s.get(id)
	if err != nil {
		return Item{}, err
	}
	return item(r, poison), nil
}

func (s *store) get(id uint64) (r *message, poison bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketMessages).Get(seqKey(id))
		if v == nil {
			v, poison = tx.Bucket(bucketPoison).Get(seqKey(id)), true
		}
		if v == nil {
			return fault.New(fault.NotFound, "the outbox has no message %d", id)
		}
		_, body, _, err := open(v)
		if err == nil {
			r, err = decodeMessage(body)
		}
		return err
	})
	return r, poison, err
}

func (s *store) eachPoison(do func(*message) bool) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketPoison).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			_, body, _, err := open(v)
			if err != nil {
				return fmt.Errorf("quarantine %x: %w", k, err)
			}
			r, err := decodeMessage(body)
			if err != nil {
				return fmt.Errorf("quarantine %x: %w", k, err)
			}
			if !do(r) {
				return nil
			}
		}
		return nil
	})
}

// Drop deletes a message, delivered or not. One that is under way may still reach
// the broker.
func (o *Outbox) Drop(ctx context.Context, id uint64) error {
	s, err := o.file()
	if err != nil {
		return err
	}
	r, poison, err := s.get(id)
	if err != nil {
		return err
	}
	written := make(chan error, 1)
	if poison {
		o.dropPoison(r, func(err error) { written <- err })
	} else {
		o.lines[o.broker.Line(r.m.Topic)].drop(r, func(err error) { written <- err })
	}
	return o.durable(ctx, written)
}

func (o *Outbox) durable(ctx context.Context, written <-chan error) error {
	select {
	case err := <-written:
		if err != nil {
			return fault.New(fault.UpstreamUnavailable, "the outbox cannot write to its disk; nothing was changed").Because(err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *Outbox) dropPoison(r *message, done func(error)) {
	o.commits.add(&operation{
		apply: func(tx *bbolt.Tx, _ *store) error { return tx.Bucket(bucketPoison).Delete(seqKey(r.seq)) },
		done: func(err error) {
			if err == nil {
				o.poison.Add(-1)
				o.bytes.Add(-int64(r.size()))
			}
			done(err)
		},
	}, nil)
}

func (l *line) drop(r *message, done func(error)) {
	l.loading.Lock()
	defer l.loading.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.resident[r.seq]
	if e == nil {
		e = &entry{message: *r, stored: true, told: true}
		l.resident[r.seq] = e
	}
	if !e.done {
		l.finishLocked(e)
	}
	moved := 0 // bytes in quarantine, where it may have gone meanwhile
	l.o.commits.add(&operation{must: true, apply: func(tx *bbolt.Tx, s *store) error {
		poison := tx.Bucket(bucketPoison)
		if moved = len(poison.Get(seqKey(e.seq))); moved > 0 {
			if err := poison.Delete(seqKey(e.seq)); err != nil {
				return err
			}
		}
		return deleteMessage(e.seq)(tx, s)
	}, done: func(err error) {
		if moved > 0 && err == nil {
			l.o.poison.Add(-1)
			l.o.bytes.Add(-int64(moved))
		}
		l.forgotten(e)
		done(err)
	}}, nil)
	l.poke()
}

// Retry takes a message out of quarantine; it is delivered after all that is kept now.
func (o *Outbox) Retry(ctx context.Context, id uint64) error {
	s, err := o.file()
	if err != nil {
		return err
	}
	r, poison, err := s.get(id)
	if err != nil {
		return err
	}
	if !poison {
		return fault.New(fault.BadRequest, "message %d is not in quarantine; it is delivered as soon as the broker takes it", id)
	}
	e := &entry{message: message{m: r.m, accepted: time.Now()}, result: make(chan outcome, 1), from: r}
	l := o.lines[o.broker.Line(r.m.Topic)]
	l.mu.Lock()
	l.keepLocked(e)
	l.mu.Unlock()
	select {
	case out := <-e.result:
		return out.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
