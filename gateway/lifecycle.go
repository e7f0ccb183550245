package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// answerTimeout bounds the writing of an ordinary answer; streams set their
	// own deadlines.
	answerTimeout = 60 * time.Second
	// idleTimeout ends a kept-alive connection without a request.
	idleTimeout = 120 * time.Second
	// maxHeaderBytes is the request line with all headers; enough for a topic that
	// is far too long to be refused properly.
	maxHeaderBytes = 128 << 10
	// readyPoll is how often WaitReady looks.
	readyPoll = 10 * time.Millisecond
)

// step is one thing that Stop does; the last added is done first.
type step struct {
	name string
	stop func(context.Context) error
}

func (g *Gateway) onStop(name string, stop func(context.Context) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.steps = append(g.steps, step{name, stop})
}

// Start runs the gateway and returns when it accepts connections; the broker link
// may still be coming up (WaitReady). After an error nothing runs. The gateway
// outlives ctx; Stop ends it.
func (g *Gateway) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Stop(context.WithoutCancel(ctx)))
		}
	}()
	if g.broker != nil {
		if err := g.broker.Start(); err != nil {
			return err
		}
		g.onStop("embedded broker", g.broker.Stop)
	}
	if err := g.build(); err != nil {
		return err
	}
	if g.outbox != nil { // which outlives the upstream: what that leaves unanswered is kept
		_ = g.outbox.Open() // it has logged an error and tries again; that is no reason not to start
		g.run("outbox", g.outbox.Run)
	}
	g.run("upstream", g.upstream.Run)
	g.run("hub", g.hub.Run)
	g.run("streams", g.streams.Run)
	g.run("auth", g.auth.Run)
	g.run("rights", g.watchRights)
	g.run("files", g.watchFiles)
	g.onStop("doors", g.waitForDoors)
	if g.main, err = g.listen(ctx, g.config.HTTP.Listen, g.router(), g.tls); err != nil {
		return fmt.Errorf("http.listen: %w; choose another address with --listen", err)
	}
	if address := g.config.HTTP.AdminListen; address != "" {
		if g.admin, err = g.listen(ctx, address, g.adminRouter(), nil); err != nil {
			return fmt.Errorf("http.admin_listen: %w", err)
		}
	}
	g.onStop("announce", func(context.Context) error {
		g.draining.Store(true)
		g.streams.Drain()
		return nil
	})
	g.log.Info("listening", "url", g.URL(), "upstream", g.BrokerURL(), "version", g.options.Version)
	return nil
}

// run starts a room that works until its context is done.
func (g *Gateway) run(name string, room func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := room(ctx); err != nil {
			g.fail(fmt.Errorf("%s: %w", name, err))
		}
	}()
	g.onStop(name, func(stopping context.Context) error {
		cancel()
		select {
		case <-ended:
			return nil
		case <-stopping.Done():
			return stopping.Err()
		}
	})
}

func (g *Gateway) fail(err error) {
	select {
	case g.failed <- err:
	default: // the first one counts
	}
}

// Wait returns the first fatal error of a running room, or nil after Stop.
func (g *Gateway) Wait() error {
	select {
	case err := <-g.failed:
		return err
	case <-g.stopped:
		return nil
	}
}

// WaitReady returns when the gateway is ready, or with ctx's error and the reasons
// why it is not.
func (g *Gateway) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		complaints := g.complaints()
		if len(complaints) == 0 && g.hub.Up() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(append(complaints, ctx.Err())...)
		}
	}
}

// waitForDoors waits for requests that the HTTP server does not know any more:
// WebSockets are hijacked.
func (g *Gateway) waitForDoors(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.config.Limits.DrainTimeout)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		g.doors.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop drains the gateway: it is no longer ready, accepts nothing, tells the
// streams to come back later, lets running publishes finish, and leaves the
// broker. All steps are done, also after one has failed or ctx is done; the error
// names those that failed. A second call does nothing.
func (g *Gateway) Stop(ctx context.Context) error {
	g.mu.Lock()
	steps := g.steps
	g.steps = nil
	first := !g.done
	g.done = true
	g.mu.Unlock()
	var errs []error
	for i := len(steps) - 1; i >= 0; i-- {
		if err := steps[i].stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", steps[i].name, err))
		}
	}
	if first {
		close(g.stopped)
	}
	return errors.Join(errs...)
}
