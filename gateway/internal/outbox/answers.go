package outbox

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"flyscreen/gateway/mqtt"
)

// PublishOnce is Publish, and remembers durably before it returns that the key id
// was used for request, and with which delivery. A message that is kept and its key
// go into the file together. An error is not remembered.
func (o *Outbox) PublishOnce(ctx context.Context, m mqtt.Message, id, request [32]byte) (mqtt.Delivery, error) {
	key := &answer{id: id, request: request, at: time.Now(), delivery: mqtt.Queued}
	delivery, err := o.publish(ctx, m, key)
	if err != nil || delivery == mqtt.Queued {
		return delivery, err
	}
	noted := &answer{id: id, request: request, at: key.at, delivery: delivery} // the other may be on its way into the file
	written := make(chan error, 1)
	o.commits.add(&operation{
		apply: func(tx *bbolt.Tx, _ *store) error { return tx.Bucket(bucketAnswers).Put(id[:], noted.encode()) },
		done:  func(err error) { written <- err },
	}, nil)
	select {
	case err = <-written:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil { // the message is out; to say otherwise would make it come twice for certain
		o.log.Debug("a key could not be written; it is forgotten at a restart", "err", err)
	}
	return delivery, nil
}

// Recall returns what PublishOnce remembers of the key id.
func (o *Outbox) Recall(id [32]byte) (request [32]byte, delivery mqtt.Delivery, at time.Time, ok bool) {
	s := o.commits.store.Load()
	if s == nil {
		return request, "", at, false
	}
	err := s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketAnswers).Get(id[:])
		if v == nil {
			return nil
		}
		_, body, _, err := open(v)
		if err != nil {
			return err
		}
		a, err := decodeAnswer(body)
		if err == nil && time.Since(a.at) < o.options.KeepAnswers {
			request, delivery, at, ok = a.request, a.delivery, a.at, true
		}
		return err
	})
	if err != nil && !errors.Is(err, berrors.ErrDatabaseNotOpen) { // that is: stopping
		o.failing(err)
	}
	return request, delivery, at, ok
}

const (
	// sweepEvery is how often old answers and a too large quarantine are looked for.
	sweepEvery = 30 * time.Second
	// sweepMost is how many answers go in one commit.
	sweepMost = 5000
)

func (o *Outbox) sweep(ctx context.Context) {
	for {
		pause(ctx, sweepEvery)
		if ctx.Err() != nil {
			return
		}
		if s := o.commits.store.Load(); s != nil {
			o.forgetAnswers(s)
			o.trimQuarantine(s)
		}
	}
}

func (o *Outbox) forgetAnswers(s *store) {
	before := time.Now().Add(-o.options.KeepAnswers)
	var old [][]byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketAnswers).Cursor()
		for k, v := c.First(); k != nil && len(old) < sweepMost; k, v = c.Next() {
			_, body, _, err := open(v)
			if err != nil {
				return err
			}
			if a, err := decodeAnswer(body); err != nil || a.at.Before(before) {
				old = append(old, append([]byte(nil), k...))
			}
		}
		return nil
	})
	if err != nil {
		o.failing(err)
	}
	if len(old) == 0 {
		return
	}
	o.commits.add(&operation{
		apply: func(tx *bbolt.Tx, _ *store) error {
			for _, k := range old {
				if err := tx.Bucket(bucketAnswers).Delete(k); err != nil {
					return err
				}
			}
			return nil
		},
		done: func(error) {}, // the next sweep finds what is left
	}, nil)
}

// trimQuarantine drops the oldest when the quarantine takes half of the outbox.
func (o *Outbox) trimQuarantine(s *store) {
	var all []*message
	bytes := 0
	if err := s.eachPoison(func(r *message) bool {
		bytes += r.size()
		all = append(all, r)
		return true
	}); err != nil {
		o.failing(err)
		return
	}
	for _, r := range all {
		if bytes <= o.options.MaxBytes/2 {
			return
		}
		bytes -= r.size()
		o.log.Error("the quarantine takes half of the outbox: its oldest message was dropped", "id", r.seq, "topic", string(r.m.Topic), "reason", r.reason)
		o.metrics.trimmed.Inc()
		o.dropPoison(r, func(error) {})
	}
}
