package faults_test

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// recorder stands between gateway and broker, and notes which publishes the broker
// has acknowledged, in the order in which it did. It outlives both.
type recorder struct {
	listener net.Listener
	broker   string
	all      sync.WaitGroup

	mu    sync.Mutex // guards the following
	conns map[net.Conn]bool
	acked []string // "topic payload"
	sent  int      // publishes that came past
}

func record(t *testing.T, broker string) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{listener: l, broker: broker, conns: map[net.Conn]bool{}}
	r.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.all.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		for c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		r.all.Wait()
	})
	return r
}

func (r *recorder) url() string { return "tcp://" + r.listener.Addr().String() }

func (r *recorder) track(c net.Conn, open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if open {
		r.conns[c] = true
	} else {
		delete(r.conns, c)
	}
}

// serve passes packets on in both directions until one side ends.
func (r *recorder) serve(gateway net.Conn) {
	defer func() { _ = gateway.Close() }()
	broker, err := net.Dial("tcp", r.broker)
	if err != nil {
		return
	}
	defer func() { _ = broker.Close() }()
	for _, c := range []net.Conn{gateway, broker} {
		r.track(c, true)
		defer r.track(c, false)
	}
	waiting := &sync.Map{} // packet id to "topic payload"
	var back sync.WaitGroup
	back.Go(func() {
		pass(broker, gateway, func(p packets.ControlPacket) {
			ack, is := p.(*packets.PubackPacket)
			if !is {
				return
			}
			if text, found := waiting.LoadAndDelete(ack.MessageID); found {
				r.mu.Lock()
				r.acked = append(r.acked, text.(string))
				r.mu.Unlock()
			}
		})
		_ = gateway.Close()
	})
	pass(gateway, broker, func(p packets.ControlPacket) {
		pub, is := p.(*packets.PublishPacket)
		if !is || pub.Qos != 1 || strings.HasPrefix(pub.TopicName, "flyscreen-barrier/") {
			return
		}
		waiting.Store(pub.MessageID, pub.TopicName+" "+string(pub.Payload))
		r.mu.Lock()
		r.sent++
		r.mu.Unlock()
	})
	_ = broker.Close()
	back.Wait()
}

// pass copies packets until there are no more; a write may join several.
func pass(from, to net.Conn, see func(packets.ControlPacket)) {
	in, out := bufio.NewReaderSize(from, 64<<10), bufio.NewWriterSize(to, 64<<10)
	for {
		p, err := packets.ReadPacket(in)
		if err != nil {
			return
		}
		see(p)
		if p.Write(out) != nil || in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

// acknowledged returns what the broker has acknowledged so far, in order.
func (r *recorder) acknowledged() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.acked...)
}
