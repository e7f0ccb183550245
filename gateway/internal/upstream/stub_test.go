package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
)

// limit is how long a test waits for what must happen; only a broken test waits
// that long.
const limit = 20 * time.Second

// stub is a hand-driven broker: it answers as a broker should, unless face has
// dealt with the packet. It keeps no messages; barrier markers are sent back.
type stub struct {
	t    *testing.T
	ln   net.Listener
	face func(c *stubConn, p packets.ControlPacket) (handled bool)
	all  sync.WaitGroup

	mu    sync.Mutex // guards the following
	conns map[*stubConn]bool
	dials map[string]int // connections by role
	seen  map[string]int // packets by role and name, such as "live PUBLISH"
}

// stubConn is one connection to a stub; role is the end of its client identifier.
type stubConn struct {
	net.Conn
	s    *stub
	role string
	wmu  sync.Mutex

	endless bool // a face's own
}

func startStub(t *testing.T, face func(*stubConn, packets.ControlPacket) bool) *stub {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stub{t: t, ln: ln, face: face, conns: map[*stubConn]bool{}, dials: map[string]int{}, seen: map[string]int{}}
	s.all.Go(s.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		s.closeAll()
		s.all.Wait()
	})
	return s
}

func (s *stub) url() string { return "tcp://" + s.ln.Addr().String() }

func (s *stub) accept() {
	for {
		raw, err := s.ln.Accept()
		if err != nil {
			return
		}
		c := &stubConn{Conn: raw, s: s}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.all.Go(c.serve)
	}
}

// each calls do with the connections of a role ("" means all).
func (s *stub) each(role string, do func(*stubConn)) {
	s.mu.Lock()
	var chosen []*stubConn
	for c := range s.conns {
		if role == "" || c.role == role {
			chosen = append(chosen, c)
		}
	}
	s.mu.Unlock()
	for _, c := range chosen {
		do(c)
	}
}

func (s *stub) closeAll() { s.each("", func(c *stubConn) { _ = c.Close() }) }

// connections is how often the role has connected.
func (s *stub) connections(role string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials[role]
}

// packets is how many packets of that name the role has sent.
func (s *stub) packets(role, name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[role+" "+name]
}

func (c *stubConn) serve() {
	defer func() {
		_ = c.Close()
		c.s.mu.Lock()
		delete(c.s.conns, c)
		c.s.mu.Unlock()
	}()
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return
		}
		if hello, ok := p.(*packets.ConnectPacket); ok {
			c.s.mu.Lock()
			c.role = hello.ClientIdentifier[strings.LastIndex(hello.ClientIdentifier, "-")+1:]
			c.s.dials[c.role]++
			c.s.mu.Unlock()
		}
		c.s.mu.Lock()
		name, _, _ := strings.Cut(p.String(), ":")
		c.s.seen[c.role+" "+name]++
		c.s.mu.Unlock()
		if c.s.face == nil || !c.s.face(c, p) {
			c.answer(p)
		}
	}
}

// answer does what an honest broker would.
func (c *stubConn) answer(p packets.ControlPacket) {
	switch p := p.(type) {
	case *packets.ConnectPacket:
		c.raw(0x20, 2, 0, 0)
	case *packets.PublishPacket:
		switch p.Qos {
		case 1:
			c.ack(packets.Puback, p.MessageID)
		case 2:
			c.ack(packets.Pubrec, p.MessageID)
		}
		if strings.HasPrefix(p.TopicName, "flyscreen-barrier/") {
			c.message(p.TopicName, string(p.Payload), false)
		}
	case *packets.PubrelPacket:
		c.ack(packets.Pubcomp, p.MessageID)
	case *packets.SubscribePacket:
		c.suback(p.MessageID, p.Qoss...)
	case *packets.UnsubscribePacket:
		c.ack(packets.Unsuback, p.MessageID)
	case *packets.PingreqPacket:
		c.raw(0xd0, 0)
	}
}

// raw writes bytes as they are; an error means that the gateway hung up.
func (c *stubConn) raw(b ...byte) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	_, _ = c.Write(b)
}

func (c *stubConn) ack(kind byte, id uint16) { c.raw(kind<<4, 2, byte(id>>8), byte(id)) }

func (c *stubConn) suback(id uint16, codes ...byte) {
	p := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	p.MessageID, p.ReturnCodes = id, codes
	c.send(p)
}

func (c *stubConn) send(p packets.ControlPacket) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	_ = p.Write(c)
}

// message sends a QoS 0 PUBLISH.
func (c *stubConn) message(topic, payload string, retained bool) {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Retain = topic, []byte(payload), retained
	c.send(p)
}

// quick are options under which a test does not take long.
func quick(url string) upstream.Options {
	return upstream.Options{URL: url, BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
}

// start makes an Upstream and runs it until the test ends.
func start(t *testing.T, o upstream.Options) *upstream.Upstream {
	t.Helper()
	u, err := upstream.New(o)
	if err != nil {
		t.Fatal(err)
	}
	run(t, u)
	return u
}

// run runs u until stop or the end of the test.
func run(t *testing.T, u *upstream.Upstream) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(limit):
			t.Error("Run did not return")
		}
	})
	t.Cleanup(stop)
	return stop
}

// ready starts an Upstream and waits until it is ready.
func ready(t *testing.T, o upstream.Options) *upstream.Upstream {
	t.Helper()
	u := start(t, o)
	waitReady(t, u)
	return u
}

func waitReady(t *testing.T, u *upstream.Upstream) {
	t.Helper()
	waitFor(t, "Ready", func() bool { return u.Ready() == nil })
}

// waitFor polls until cond holds.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// within is a context that only a broken test outlives.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func message(topic, payload string, qos mqtt.QoS) mqtt.Message {
	return mqtt.Message{Topic: mqtt.Topic(topic), Payload: []byte(payload), QoS: qos}
}

// wantCode fails unless err carries one of codes.
func wantCode(t *testing.T, err error, codes ...fault.Code) {
	t.Helper()
	for _, code := range codes {
		if fault.Is(err, code) {
			return
		}
	}
	t.Errorf("got error %v, want one of %v", err, codes)
}

// record is a Deliver, Link and Missed that keeps what it was told, as short texts, and
// notices calls that overlap.
type record struct {
	busy sync.Mutex // held through each call; only tried, never waited for

	mu     sync.Mutex // guards the following
	events []string
	err    error
}

func (r *record) note(event string) {
	if !r.busy.TryLock() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.err = errors.New("calls overlapped at " + event)
		return
	}
	defer r.busy.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
}

func (r *record) Deliver(m mqtt.Message) { r.note(fmt.Sprintf("%s=%s", m.Topic, m.Payload)) }
func (r *record) Link(up bool)           { r.note(fmt.Sprintf("link %t", up)) }
func (r *record) Missed(t mqtt.Topic)    { r.note("missed " + string(t)) }

// list returns the events so far.
func (r *record) list(t *testing.T) []string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		t.Error(r.err)
	}
	return append([]string(nil), r.events...)
}

func (r *record) into(o upstream.Options) upstream.Options {
	o.Deliver, o.Link, o.Missed = r.Deliver, r.Link, r.Missed
	return o
}
