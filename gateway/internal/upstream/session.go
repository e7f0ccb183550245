package upstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"flyscreen/gateway/mqtt"
)

// session is one connection to the broker, from its CONNECT to its end. It never
// comes back: whoever wants to go on makes a new one.
type session struct {
	conn   *conn
	client paho.Client
	began  time.Time
	orders chan *order
	gone   chan struct{} // closed when the library has let go: all tokens are complete, or never will be

	mu      sync.Mutex // guards the following
	markers map[string]func()
}

// order is something to be handed to the library, whose calls block while the
// socket does and heed no context: the session's sender does the waiting.
type order struct {
	start  func(paho.Client) paho.Token
	token  paho.Token    // set before handed is closed
	handed chan struct{} // closed when start has returned
}

// refusal is a CONNACK return code other than 0.
type refusal byte

func (r refusal) Error() string {
	if int(r) <= 5 {
		return "the broker refused the connection: " + [...]string{"", "protocol version", "client identifier", "server unavailable", "bad username or password", "not authorized"}[r]
	}
	return fmt.Sprintf("the broker refused the connection with the unknown code %d", byte(r))
}

// credentials reports whether other credentials are needed, so that hurrying is useless.
func (r refusal) credentials() bool { return r == 4 || r == 5 }

// open dials and does the MQTT handshake. handle gets all messages, in order, on
// one goroutine of the library's. id is its client identifier. background gets the goroutine that open starts.
func (u *Upstream) open(ctx context.Context, r role, id string, handle func(*session, paho.Message), background *sync.WaitGroup) (*session, error) {
	wire, err := dial(ctx, u.endpoint, u.o.TLS)
	if err != nil {
		return nil, err
	}
	s := &session{
		conn: newConn(wire, u.o.MaxPacket, u.o.WriteTimeout,
			u.metrics.bytes.WithLabelValues(string(r), "in"), u.metrics.bytes.WithLabelValues(string(r), "out")),
		orders:  make(chan *order),
		gone:    make(chan struct{}),
		markers: make(map[string]func()),
		began:   time.Now(),
	}
	if r == rolePublish {
		s.conn.lane = newLane(s.conn, u.o.MaxInflight)
	}
	s.client = paho.NewClient(u.clientOptions(id, s, handle))
	token := s.client.Connect()
	select {
	case <-token.Done():
	case <-ctx.Done():
		s.conn.end(fmt.Errorf("the MQTT handshake: %w", ctx.Err()))
		<-token.Done()
	}
	if code := s.conn.refused; code != 0 {
		s.conn.end(code)
		s.close(0)
		return nil, code
	}
	if err := token.Error(); err != nil {
		s.conn.end(err) // the library's words are the last resort: it ended with a better cause if there is one
		s.close(0)
		return nil, s.conn.cause
	}
	background.Add(1)
	go func() {
		defer background.Done()
		s.send()
	}()
	return s, nil
}

// clientID is the identifier of a connection; two alike throw each other out.
func (u *Upstream) clientID(r role, suffix string) string {
	return u.o.ClientID + "-" + string(r) + suffix
}

func (u *Upstream) clientOptions(id string, s *session, handle func(*session, paho.Message)) *paho.ClientOptions {
	o := paho.NewClientOptions()
	o.Servers = []*url.URL{{Scheme: "tcp", Host: u.endpoint.host}} // not dialled: the connection is there
	o.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return s.conn, nil })
	o.SetClientID(id).SetUsername(u.o.Username).SetPassword(u.o.Password)
	o.SetProtocolVersion(4).SetCleanSession(true).SetStore(noStore{})
	o.SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false)
	o.SetOrderMatters(true)
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { handle(s, m) })
	o.SetConnectTimeout(u.o.ConnectTimeout)
	o.SetKeepAlive(u.keepAlive())
	// Not the judge of a silent link: an answer to a ping may be late only because
	// much else is on its way. Our watchdog counts every byte as a sign of life.
	o.SetPingTimeout(u.keepAlive() + u.o.PingTimeout)
	// Here this is only the wait for the library's queue; writes have conn's deadline.
	o.SetWriteTimeout(min(u.o.WriteTimeout, 2*time.Second))
	o.SetConnectionLostHandler(func(_ paho.Client, err error) { s.conn.end(err) })
	return o
}

// keepAlive is Options.KeepAlive in MQTT's unit, whole seconds.
func (u *Upstream) keepAlive() time.Duration {
	return time.Duration(math.Ceil(u.o.KeepAlive.Seconds())) * time.Second
}

// send hands orders to the library, one at a time, until the connection ends.
func (s *session) send() {
	for {
		select {
		case o := <-s.orders:
			o.token = o.start(s.client)
			close(o.handed)
		case <-s.conn.ended:
			return
		}
	}
}

// close ends the session, politely if it still lives, and waits for the library
// to let go of it, at most for the given time.
func (s *session) close(wait time.Duration) {
	s.client.Disconnect(uint(wait.Milliseconds())) //nolint:gosec // a small positive number
	s.conn.end(errClosed)
	close(s.gone)
}

// over reports whether the connection has ended.
func (s *session) over() bool {
	select {
	case <-s.conn.ended:
		return true
	default:
		return false
	}
}

// Reasons why an order did not end well, besides the library's.
var (
	errNotTaken = errors.New("not handed over") // certain: nothing was sent
	errUnknown  = errors.New("no answer")       // handed over; what became of it is unknown
)

// place hands start over and waits for its end: nil when the library's token is
// complete, errNotTaken or errUnknown when ctx or the connection ended before
// that, or the token's error.
func (s *session) place(ctx context.Context, start func(paho.Client) paho.Token) (paho.Token, error) {
	o, err := s.hand(ctx, start)
	if err != nil {
		return nil, err
	}
	return s.await(ctx, o)
}

func (s *session) hand(ctx context.Context, start func(paho.Client) paho.Token) (*order, error) {
	o := &order{start: start, handed: make(chan struct{})}
	if err := ctx.Err(); err != nil { // select would choose either
		return nil, fmt.Errorf("%w: %w", errNotTaken, err)
	}
	select {
	case s.orders <- o:
		return o, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errNotTaken, ctx.Err())
	case <-s.conn.ended:
		return nil, fmt.Errorf("%w: %w", errNotTaken, s.conn.cause)
	}
}

// await waits for a handed order. When the connection has ended it waits on for
// the library's verdict, which comes at once: an answer that was read before the
// end still counts.
func (s *session) await(ctx context.Context, o *order) (paho.Token, error) {
	select {
	case <-o.handed:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errUnknown, ctx.Err())
	case <-s.gone:
		return nil, fmt.Errorf("%w: %w", errUnknown, s.conn.cause)
	}
	select {
	case <-o.token.Done():
		return o.token, o.token.Error()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errUnknown, ctx.Err())
	case <-s.gone:
		return nil, fmt.Errorf("%w: %w", errUnknown, s.conn.cause)
	}
}

// expect arranges for arrived to be called when the marker nonce comes back, on
// the goroutine that handles messages. It reports false once markers are dropped.
func (s *session) expect(nonce string, arrived func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.markers == nil {
		return false
	}
	s.markers[nonce] = arrived
	return true
}

// forget undoes expect and reports whether it was in time.
func (s *session) forget(nonce string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, waiting := s.markers[nonce]
	delete(s.markers, nonce)
	return waiting
}

// marker calls what expects the marker nonce.
func (s *session) marker(nonce string) {
	s.mu.Lock()
	arrived := s.markers[nonce]
	delete(s.markers, nonce)
	s.mu.Unlock()
	if arrived != nil {
		arrived()
	}
}

// dropMarkers forgets all markers, for good.
func (s *session) dropMarkers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.markers = nil
}

// echo sends a marker to topic, to which the session is subscribed, and waits
// until it is back: everything the broker had queued before it has been handled.
func (s *session) echo(ctx context.Context, topic string, qos mqtt.QoS, reached func()) error {
	nonce, back := randomHex(16), make(chan struct{})
	if !s.expect(nonce, func() { reached(); close(back) }) {
		return fmt.Errorf("%w: the connection ended", errNotTaken)
	}
	o, err := s.hand(ctx, func(c paho.Client) paho.Token { return c.Publish(topic, byte(qos), false, []byte(nonce)) })
	if err == nil {
		err = s.returned(ctx, o, back)
	}
	if err != nil && !s.forget(nonce) {
		select {
		case <-back: // it was just coming in
			return nil
		case <-s.gone: // dropped, or the library stopped
		}
	}
	return err
}

func (s *session) returned(ctx context.Context, o *order, back <-chan struct{}) error {
	select {
	case <-back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.conn.ended:
		return s.conn.cause
	case <-o.handed:
	}
	answered := o.token.Done()
	for {
		select {
		case <-back:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-s.conn.ended:
			return s.conn.cause
		case <-answered:
			if err := o.token.Error(); err != nil {
				return err
			}
			answered = nil // acknowledged; the marker itself is still to come
		}
	}
}

// noStore replaces the library's store: we never ask it to send anything again,
// and a store would keep what a broker never finishes.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}
