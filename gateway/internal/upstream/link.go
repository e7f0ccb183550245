package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// role is what a connection is for.
type role string

// The connections to the broker. They are apart so that a snapshot's flood
// cannot delay live messages, and so that publishes share a connection with
// nothing that could end it.
const (
	roleLive     role = "live"
	rolePublish  role = "publish"
	roleSnapshot role = "snapshot"
)

var roles = [...]role{roleLive, rolePublish, roleSnapshot}

// settledAfter is how long a connection must have lasted for the next attempt
// to start from the shortest backoff again.
const settledAfter = 10 * time.Second

// unhurried is the part of a wait that nobody can shorten, after a connection that
// did not last.
const unhurried = 500 * time.Millisecond

// warnEvery spaces repeated warnings; those between are counted.
const warnEvery = time.Minute

// link keeps one connection of a role: it makes a session, waits for its end,
// and makes the next.
type link struct {
	u      *Upstream
	role   role
	suffix string // of the client identifier, where a role has several connections
	log    *slog.Logger
	handle func(*session, paho.Message)
	// needed is closed when the connection is needed; nil means always.
	needed <-chan struct{}
	// prepare makes a fresh session fit for use; nil means that it is.
	prepare func(context.Context, *session) error
	// up and down are told of sessions, in turn; nil means nobody cares.
	up, down func(*session)
	// check, if not nil, may condemn a session; called every watch interval.
	check func(*session) error

	// hurry ends a wait between attempts: another link has just found the broker.
	hurry chan struct{}

	current atomic.Pointer[session] // nil while down

	mu    sync.Mutex // guards the following
	since time.Time  // of being down
	cause error      // of being down; nil: not tried yet
	alias string     // follows suffix once another client seems to use the identifier

	warned time.Time // run's own, as the following are
	muted  int
	kicks  int // sessions in a row that the broker ended soon and without a reason
}

// run keeps the connection up until ctx is done; a live session is then left as
// it is for shut to end. background gets goroutines that outlive a session.
func (l *link) run(ctx context.Context, background *sync.WaitGroup) {
	if l.needed != nil {
		select {
		case <-l.needed:
		case <-ctx.Done():
			return
		}
	}
	for attempt := 0; ; attempt++ {
		s, err := l.connect(ctx, background)
		if ctx.Err() != nil && err != nil {
			return
		}
		brief := false
		if err == nil {
			began := time.Now()
			if l.serve(ctx, s); ctx.Err() != nil {
				return
			}
			if brief = time.Since(began) < settledAfter; !brief {
				attempt, l.warned = 0, time.Time{}
			}
			err = l.judge(s, brief)
		}
		wait := l.backoff(attempt, err)
		l.failed(err, wait)
		if brief {
			// Not to be hurried at first: links that take each other's place at the broker
			// would go round as fast as the line allows.
			rest := min(wait, unhurried)
			if wait -= rest; l.sleep(ctx, rest, nil) {
				return
			}
		}
		if l.sleep(ctx, wait, l.hurry) {
			return
		}
	}
}

// kicksNamed is after how many of them a session that is ended soon has a name: a
// broker ends a connection when another client brings its identifier (3.1.1 section
// 3.1.4), and both would go on like that for ever.
const kicksNamed = 3

// judge returns why s has ended, and changes the identifier when another client
// seems to use it.
func (l *link) judge(s *session, brief bool) error {
	if !brief || !brokerEnded(s.conn.cause) || s.conn.lane != nil && s.conn.lane.left > 0 {
		l.kicks = 0
		return s.conn.cause
	}
	if l.kicks++; l.kicks < kicksNamed {
		return s.conn.cause
	}
	id := l.clientID()
	err := fmt.Errorf("another client seems to use the client identifier %q: the broker ended %d connections right after they came up: %w", id, l.kicks, s.conn.cause)
	if l.kicks == kicksNamed {
		l.mu.Lock()
		l.alias = "x" + randomHex(3)
		l.mu.Unlock()
		l.log.Error("another client seems to use our client identifier; going on with a new one. Give each gateway an upstream.client_id of its own, or none",
			"role", string(l.role), "client_id", id, "new", l.clientID(), "ended", l.kicks, "err", s.conn.cause)
	}
	return err
}

// clientID is the link's present client identifier.
func (l *link) clientID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.u.clientID(l.role, l.suffix+l.alias)
}

// sleep waits for d, or until it is hurried, and reports whether ctx was done.
func (l *link) sleep(ctx context.Context, d time.Duration, hurry <-chan struct{}) (stopping bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurry:
	case <-ctx.Done():
		return true
	}
	return false
}

// backoff is the full-jitter wait before the next attempt: many gateways that
// lost one broker must not come back in step. Credentials do not get better by
// asking often.
func (l *link) backoff(attempt int, err error) time.Duration {
	var r refusal
	if errors.As(err, &r) && r.credentials() || l.kicks > kicksNamed {
		return l.u.o.BackoffMax
	}
	ceiling := min(l.u.o.BackoffMax, l.u.o.BackoffMin<<min(attempt, 20)) // an hour, doubled 20 times, still fits
	return rand.N(max(ceiling, 1))                                       //nolint:gosec // jitter, not a secret
}

func (l *link) connect(ctx context.Context, background *sync.WaitGroup) (*session, error) {
	limited, cancel := context.WithTimeout(ctx, l.u.o.ConnectTimeout)
	defer cancel()
	s, err := l.u.open(limited, l.role, l.clientID(), l.handle, background)
	if err != nil {
		return nil, err
	}
	if l.prepare != nil {
		if err := l.prepare(limited, s); err != nil {
			s.conn.end(err)
			s.close(teardown)
			return nil, err
		}
	}
	return s, nil
}

// teardown bounds the wait for the library to let go of an ended connection.
const teardown = 2 * time.Second

// serve makes s the current session until it ends or ctx is done.
func (l *link) serve(ctx context.Context, s *session) {
	l.u.metrics.connects.WithLabelValues(string(l.role)).Inc()
	l.u.metrics.up.WithLabelValues(string(l.role)).Inc()
	l.log.Info("connected to the broker", "role", string(l.role), "url", l.u.endpoint.url, "unreported", l.muted)
	l.muted = 0
	if l.up != nil {
		l.up(s)
	}
	l.current.Store(s)
	l.u.hurryOthers(l)
	if l.watch(ctx, s) {
		return // stopping: shut ends it
	}
	l.u.metrics.losses.WithLabelValues(string(l.role)).Inc()
	l.drop(s, s.conn.cause)
}

// drop takes s out of use and waits until the library has let go of it.
func (l *link) drop(s *session, cause error) {
	l.u.metrics.up.WithLabelValues(string(l.role)).Dec()
	l.mu.Lock()
	l.since, l.cause = time.Now(), cause
	l.mu.Unlock()
	l.current.Store(nil)
	if l.down != nil {
		l.down(s)
	}
	s.dropMarkers()
	s.close(teardown)
}

// shut ends the current session, if any. Only after run has returned.
func (l *link) shut() {
	if s := l.current.Load(); s != nil {
		l.drop(s, errClosed)
	}
}

// watch waits for the end of s and brings it about when the link is silent or
// check says so. It reports whether ctx was done first.
func (l *link) watch(ctx context.Context, s *session) (stopping bool) {
	ticker := time.NewTicker(min(l.u.patience()/8, time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return true
		case <-s.conn.ended:
			return false
		case <-ticker.C:
		}
		if silence := s.conn.silence(); silence > l.u.patience() {
			s.conn.end(fmt.Errorf("%w for %s", errSilent, silence.Round(100*time.Millisecond)))
		} else if l.check != nil {
			if err := l.check(s); err != nil {
				s.conn.end(err)
			}
		}
	}
}

// failed notes why the link is down and says it in the log, at most once a minute.
func (l *link) failed(err error, wait time.Duration) {
	l.mu.Lock()
	if l.since.IsZero() {
		l.since = time.Now()
	}
	l.cause = err
	l.mu.Unlock()
	if time.Since(l.warned) < warnEvery {
		l.muted++
		return
	}
	l.log.Warn("the broker connection is down", "role", string(l.role), "url", l.u.endpoint.url, "err", err, "retry_in", wait, "unreported", l.muted)
	l.warned, l.muted = time.Now(), 0
}

// unused reports whether this broker does not need the link.
func (l *link) unused() bool {
	select {
	case <-l.needed:
		return false
	default:
		return l.needed != nil
	}
}

// ready is nil when the connection is up and has been heard of lately, or is not
// needed.
func (l *link) ready() error {
	if l.unused() {
		return nil
	}
	if s := l.current.Load(); s != nil {
		select {
		case <-s.conn.ended: // run is about to notice
			return fmt.Errorf("the %s connection to %s was just lost: %w", l.role, l.u.endpoint.url, s.conn.cause)
		default:
		}
		if silence := s.conn.silence(); silence > l.u.patience() {
			return fmt.Errorf("the %s connection to %s has been silent for %s", l.role, l.u.endpoint.url, silence.Round(100*time.Millisecond))
		}
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		return fmt.Errorf("the %s connection to %s is not up yet", l.role, l.u.endpoint.url)
	}
	return fmt.Errorf("the %s connection to %s is down since %s: %w", l.role, l.u.endpoint.url, time.Since(l.since).Round(time.Second), l.cause)
}
