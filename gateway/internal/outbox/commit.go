package outbox

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// errNoFile is the failure of a commit while the file cannot be opened.
var errNoFile = errors.New("the outbox's file is not open")

// operation is one change of the file, and who is told when it is durable. done is
// called without locks, in the order of the operations.
type operation struct {
	apply func(tx *bbolt.Tx, s *store) error
	done  func(error)
	bytes int
	// must is for what has happened already, such as a delivery: it is tried until it
	// succeeds, and done is told of that only.
	must bool
}

const (
	commitOperations = 1000
	commitBytes      = 8 << 20
	// commitBacklog is how much may wait for the disk; more is refused.
	commitBacklog = 32 << 20
	// commitRetry is the pause after a failed commit, for what must succeed.
	commitRetry = 200 * time.Millisecond
	// openRetry is the pause between attempts to open the file.
	openRetry = time.Second
)

// committer is the one writer of the file: all that waits goes into one commit, so
// that many callers share one fsync.
type committer struct {
	o    *Outbox
	wake chan struct{}

	store atomic.Pointer[store] // nil while the file cannot be opened

	mu      sync.Mutex // guards the following
	waiting []*operation
	backlog int    // bytes of waiting, and of what is being written
	seq     uint64 // the last sequence number
	ended   bool

	tried time.Time // to open the file; run's own
}

// add queues an operation. number, if not nil, gets the next sequence number, in
// the order in which operations are committed.
func (c *committer) add(op *operation, number func(seq uint64)) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		go op.done(errNoFile) // as ever: without the caller's locks
		return
	}
	if number != nil {
		c.seq++
		number(c.seq)
	}
	c.waiting = append(c.waiting, op)
	c.backlog += op.bytes
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// slow reports whether more waits for the disk than is to be held in memory.
func (c *committer) slow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.backlog > commitBacklog
}

// take returns what goes into the next commit.
func (c *committer) take() []*operation {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, bytes := 0, 0
	for n < len(c.waiting) && n < commitOperations && (n == 0 || bytes+c.waiting[n].bytes <= commitBytes) {
		bytes += c.waiting[n].bytes
		n++
	}
	batch := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	if len(c.waiting) == 0 {
		c.waiting = nil
	}
	return batch
}

// run commits until ctx is done and nothing waits any more.
func (c *committer) run(ctx context.Context) {
	for {
		batch := c.take()
		if len(batch) == 0 {
			select {
			case <-c.wake:
				continue
			case <-ctx.Done():
				c.mu.Lock()
				c.ended = len(c.waiting) == 0
				ended := c.ended
				c.mu.Unlock()
				if ended {
					return
				}
				continue
			}
		}
		if again := c.commit(batch); len(again) > 0 {
			if ctx.Err() != nil { // a delivery that cannot be noted now is repeated after the restart
				c.o.log.Warn("stopped with deliveries that could not be noted; they will be repeated", "count", len(again))
				c.mu.Lock()
				c.ended = true
				rest := c.waiting
				c.mu.Unlock()
				for _, op := range append(again, rest...) {
					op.done(errNoFile)
				}
				return
			}
			c.mu.Lock()
			c.waiting = append(again, c.waiting...)
			c.mu.Unlock()
			pause(ctx, commitRetry)
		}
	}
}

// commit makes batch durable and tells its owners; it returns what must be tried again.
func (c *committer) commit(batch []*operation) (again []*operation) {
	began := time.Now()
	err := c.write(batch)
	c.o.metrics.commit(err, len(batch), time.Since(began))
	if err != nil {
		c.o.failing(err)
	} else {
		c.o.recovered()
	}
	written := 0
	for _, op := range batch {
		if err != nil && op.must {
			again = append(again, op)
			continue
		}
		written += op.bytes
		op.done(err)
	}
	c.mu.Lock()
	c.backlog -= written
	c.mu.Unlock()
	return again
}

func (c *committer) write(batch []*operation) error {
	s := c.store.Load()
	if s == nil {
		if s = c.reopen(); s == nil {
			return errNoFile
		}
	}
	count := s.count
	s.floor = nothing
	for _, l := range c.o.lines {
		s.floor = min(s.floor, l.low.Load())
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, op := range batch {
			if err := op.apply(tx, s); err != nil {
				return err
			}
		}
		return s.putCount(tx)
	})
	if err != nil {
		s.count = count
	}
	return err
}

// reopen tries to open a file that could not be opened at the start.
func (c *committer) reopen() *store {
	if time.Since(c.tried) < openRetry {
		return nil
	}
	c.tried = time.Now()
	if err := c.o.load(); err != nil {
		c.o.failing(err)
		return nil
	}
	return c.store.Load()
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// putMessage is the change that stores r.
func putMessage(r *message) func(*bbolt.Tx, *store) error {
	return func(tx *bbolt.Tx, s *store) error {
		s.count++
		s.floor = min(s.floor, r.seq) // the first of a batch is the lowest
		r.floor = s.floor
		b := tx.Bucket(bucketMessages)
		b.FillPercent = 0.95 // keys only grow: a page that is full stays so
		return b.Put(seqKey(r.seq), r.encode(kindMessage))
	}
}

// deleteMessage is the change that forgets a message, if it is there.
func deleteMessage(seq uint64) func(*bbolt.Tx, *store) error {
	return func(tx *bbolt.Tx, s *store) error {
		b := tx.Bucket(bucketMessages)
		if b.Get(seqKey(seq)) == nil {
			return nil
		}
		s.count--
		return b.Delete(seqKey(seq))
	}
}

// movePoison is the change that puts a message into quarantine.
func movePoison(r *message) func(*bbolt.Tx, *store) error {
	return func(tx *bbolt.Tx, s *store) error {
		if err := deleteMessage(r.seq)(tx, s); err != nil {
			return err
		}
		return tx.Bucket(bucketPoison).Put(seqKey(r.seq), r.encode(kindPoison))
	}
}
