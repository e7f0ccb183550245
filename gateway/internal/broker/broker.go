// Package broker is the embedded MQTT broker: mochi-mqtt behind a listener of our
// own. It exists so that the gateway works on a machine that has no broker yet.
//
// The broker believes everybody (any client may publish and subscribe to
// anything), so it listens on loopback only. All its state, retained messages
// and sessions included, lives in memory and ends with the process.
//
// Four files: broker.go is its life, listener.go what happens to one connection,
// guard.go how two of mochi's defects are kept from doing harm, observe.go how
// its log and counters become ours.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"
)

// What zero in Options means.
const (
	DefaultListen         = "127.0.0.1:1883"
	DefaultMaxPacket      = 1 << 20
	DefaultMaxConnections = 10_000
)

// largestPacket is the longest packet that MQTT can announce: four length bytes
// (3.1.1 section 2.2.3) and the header byte before them.
const largestPacket = 268_435_455 + 5

// writesPending is how many messages may wait for one reader before more are
// dropped (QoS 0 and 1 alike: mochi forgets them). Retained messages that answer
// a SUBSCRIBE pass through the same queue at once, so it must hold the largest
// snapshot that is to arrive whole. Each place costs 8 bytes per connection, used
// or not: 256 KiB.
const writesPending = 32 << 10

// sysInterval is the time between two rounds of $SYS messages, in seconds; each
// round stops the world for a moment to read the memory statistics.
const sysInterval = 10

// Options says how the broker listens and what it bounds.
type Options struct {
	// Listen is the TCP address as host:port; "" means DefaultListen. The host is
	// localhost or a loopback address; port 0 picks a free one (see Addr).
	Listen string
	// MaxPacket is the largest packet that is read, in bytes without its length
	// field; 0 means DefaultMaxPacket. A larger one closes its connection before
	// it is read. It bounds topic and payload together, so it must be larger than
	// the largest payload that the gateway admits.
	MaxPacket int
	// MaxConnections is how many connections may be open; 0 means
	// DefaultMaxConnections. One more is closed at once
	// (flyscreen_broker_rejected_total).
	MaxConnections int
	// Logger is where the broker reports; nil means nowhere.
	Logger *slog.Logger
	// Metrics is where the broker's metrics are registered; nil means nowhere.
	Metrics prometheus.Registerer
}

// Broker is one embedded broker. Its methods are safe for concurrent use.
type Broker struct {
	options Options
	log     *slog.Logger
	metrics metrics
	server  *mochi.Server
	guard   *guard
	wait    waits

	stopping atomic.Bool
	halt     chan struct{}  // closed when Stop begins
	serving  sync.WaitGroup // the accept loop and one for each connection

	mu       sync.Mutex // guards what follows
	listener net.Listener
	stopped  bool
	conns    map[*conn]struct{}
}

// New checks o and builds a broker that does nothing yet. The error names every
// option that is wrong.
func New(o Options) (*Broker, error) {
	if o.Listen == "" {
		o.Listen = DefaultListen
	}
	if o.MaxPacket == 0 {
		o.MaxPacket = DefaultMaxPacket
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	b := &Broker{
		options: o,
		log:     o.Logger.With("room", "broker"),
		guard:   newGuard(),
		wait:    defaultWaits,
		halt:    make(chan struct{}),
		conns:   make(map[*conn]struct{}),
	}
	b.server = mochi.New(&mochi.Options{
		Capabilities:             capabilities(o),
		ClientNetReadBufferSize:  8 << 10,
		ClientNetWriteBufferSize: 8 << 10,
		SysTopicResendInterval:   sysInterval,
		Logger:                   slog.New(quiet{b.log.Handler()}),
	})
	for _, hook := range []mochi.Hook{new(everybody), b.guard} {
		if err := b.server.AddHook(hook, nil); err != nil {
			return nil, fmt.Errorf("embedded broker: %w", err)
		}
	}
	b.metrics = newMetrics(o.Metrics, b.server.Info)
	return b, nil
}

// everybody is mochi's authentication hook that lets every client in and at
// everything; without such a hook mochi refuses all.
type everybody struct{ mochi.HookBase }

func (*everybody) ID() string { return "everybody" }

func (*everybody) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck
}

func (*everybody) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }

func (*everybody) OnACLCheck(*mochi.Client, string, bool) bool { return true }

func (o Options) validate() error {
	var wrong []error
	if err := checkLoopback(o.Listen); err != nil {
		wrong = append(wrong, err)
	}
	if o.MaxPacket < 0 || o.MaxPacket > largestPacket {
		wrong = append(wrong, fmt.Errorf("embedded broker: largest packet %d: must be 1 to %d bytes", o.MaxPacket, largestPacket))
	}
	if o.MaxConnections < 0 {
		wrong = append(wrong, fmt.Errorf("embedded broker: connections %d: must be 1 or more", o.MaxConnections))
	}
	return errors.Join(wrong...)
}

func checkLoopback(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("embedded broker: listen address %q: must be host:port", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("embedded broker: listen address %q: port must be 0 to 65535", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("embedded broker: listen address %q: it lets every client in, so it listens on loopback only; "+
			"use 127.0.0.1:%s, or a broker of your own as the upstream", address, port)
	}
	return nil
}

// capabilities are mochi's switches. Those that differ from its defaults each
// have their reason here.
func capabilities(o Options) *mochi.Capabilities {
	c := mochi.NewDefaultServerCapabilities()
	c.MaximumClients = int64(o.MaxConnections)
	c.MaximumPacketSize = uint32(o.MaxPacket) //nolint:gosec // validate bounds it
	c.MaximumClientWritesPending = writesPending
	// As many as packet ids can tell apart: the bound for what an absent client's
	// session keeps, and for what one client may have in flight towards us. MQTT
	// 3.1.1 has no way to tell a client of a smaller one before it is exceeded.
	c.MaximumInflight = math.MaxUint16
	c.ReceiveMaximum = math.MaxUint16
	// Zero switches the purge off. With mochi's default of a day, retained
	// messages vanish; a topic's state has no age.
	c.MaximumMessageExpiryInterval = 0
	// MQTT 5 clients such as MQTT.js abort on a PUBACK that repeats the PUBLISH's
	// properties.
	c.Compatibilities.NoInheritedPropertiesOnAck = true
	c.Compatibilities.ObscureNotAuthorized = true
	return c
}

// Start listens and serves connections until Stop. It fails when the address
// cannot be had, and when it was called before.
func (b *Broker) Start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listener != nil || b.stopped {
		return errors.New("embedded broker: started before")
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", b.options.Listen)
	if err != nil {
		return listenError(b.options.Listen, err)
	}
	if err := b.server.Serve(); err != nil {
		_ = l.Close()
		return fmt.Errorf("embedded broker: %w", err)
	}
	b.listener = l
	b.serving.Go(func() { b.accept(l) })
	b.log.Info("embedded broker listening", "address", l.Addr().String())
	return nil
}

func listenError(address string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		advice = "; another broker runs there: use it as the upstream, stop it, or give the embedded broker another port (0 picks a free one)"
	case errors.Is(err, syscall.EACCES):
		advice = "; ports below 1024 need a privilege: choose a higher one"
	}
	return fmt.Errorf("embedded broker on %s: %w%s", address, err, advice)
}

// Addr is the address that the broker listens on, also after Stop; nil before
// Start.
func (b *Broker) Addr() net.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listener == nil {
		return nil
	}
	return b.listener.Addr()
}

// Stop closes the listener, tells MQTT 5 clients that the server is shutting
// down, closes all connections and waits until their goroutines have ended or
// ctx is done, whose error it then returns. mochi's own goroutines (a writer for
// each client and one for housekeeping) cannot be waited for; they end by
// themselves right after. Further calls, and one before Start, return nil.
func (b *Broker) Stop(ctx context.Context) error {
	b.mu.Lock()
	if b.stopped || b.listener == nil {
		b.stopped = true
		b.mu.Unlock()
		return nil
	}
	b.stopped = true
	l := b.listener
	b.mu.Unlock()

	b.stopping.Store(true)
	close(b.halt)
	_ = l.Close()
	done := make(chan struct{})
	go func() { // ends with the connections, which closeAll closes in bounded time
		defer close(done)
		b.closeAll()
		b.serving.Wait()
		_ = b.server.Close() // always nil; last, for it waits for connections too
	}()
	select {
	case <-done:
		b.log.Info("embedded broker stopped")
		return nil
	case <-ctx.Done():
		return fmt.Errorf("embedded broker: stop: %w", context.Cause(ctx))
	}
}

// closeAll ends every connection. Writes end after waits.last at the latest, so a
// reader that has stopped reading does not hold it up.
func (b *Broker) closeAll() {
	open := b.open()
	for _, c := range open {
		c.hurry()
	}
	// Not Clients.GetByListener: it takes its read lock twice, which never ends
	// when a client leaves in between.
	for _, cl := range b.server.Clients.GetAll() {
		if !cl.Closed() {
			// The error only repeats the reason.
			_ = b.server.DisconnectClient(cl, packets.ErrServerShuttingDown)
		}
	}
	for _, c := range b.open() { // those without a CONNECT yet, and any accepted meanwhile
		_ = c.Close()
	}
}

func (b *Broker) open() []*conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		all = append(all, c)
	}
	return all
}
