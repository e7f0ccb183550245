package faults_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// stub is a broker that behaves, but for what a test makes it do wrong.
type stub struct {
	listener net.Listener
	wrong    func(c net.Conn, p packets.ControlPacket) (handled bool)
	all      sync.WaitGroup

	mu    sync.Mutex // guards the following
	conns map[net.Conn]bool
}

func startStub(t *testing.T, wrong func(net.Conn, packets.ControlPacket) bool) *stub {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stub{listener: l, wrong: wrong, conns: map[net.Conn]bool{}}
	s.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			s.all.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.mu.Lock()
		for c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		s.all.Wait()
	})
	return s
}

func (s *stub) url() string { return "tcp://" + s.listener.Addr().String() }

func (s *stub) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return
		}
		if s.wrong(c, p) {
			continue
		}
		var id uint16
		switch p := p.(type) {
		case *packets.ConnectPacket:
			_, err = c.Write([]byte{0x20, 2, 0, 0})
		case *packets.PingreqPacket:
			_, err = c.Write([]byte{0xd0, 0})
		case *packets.SubscribePacket:
			ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
			ack.MessageID, ack.ReturnCodes = p.MessageID, p.Qoss
			err = ack.Write(c)
		case *packets.UnsubscribePacket:
			id = p.MessageID
			_, err = c.Write([]byte{0xb0, 2, byte(id >> 8), byte(id)})
		case *packets.PublishPacket:
			if strings.HasPrefix(p.TopicName, "flyscreen-barrier/") { // markers come back
				back := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
				back.TopicName, back.Payload = p.TopicName, p.Payload
				_ = back.Write(c)
			}
			if p.Qos == 1 {
				id = p.MessageID
				_, err = c.Write([]byte{0x40, 2, byte(id >> 8), byte(id)})
			}
		}
		if err != nil {
			return
		}
	}
}

// isClients reports a publish that a client asked for, and not the gateway's marker.
func isClients(p packets.ControlPacket) (*packets.PublishPacket, bool) {
	pub, is := p.(*packets.PublishPacket)
	return pub, is && !strings.HasPrefix(pub.TopicName, "flyscreen-barrier/")
}

// A broker that takes a PUBLISH and closes without a PUBACK never makes it look
// delivered: not directly, and with the outbox only as kept.
func TestNoFalseSuccess(t *testing.T) {
	want := 150
	if full {
		want = 1000
	}
	for _, outbox := range []bool{false, true} {
		s := startStub(t, func(c net.Conn, p packets.ControlPacket) bool {
			_, is := isClients(p)
			if is {
				_ = c.Close()
			}
			return is
		})
		g := startGateway(t, s.url(), t.TempDir(), fmt.Sprint("outbox.enabled=", outbox), "limits.upstream_backoff_min=10ms", "limits.upstream_backoff_max=20ms")
		g.awaitReady()
		var mu sync.Mutex
		statuses := map[int]int{}
		var wg sync.WaitGroup
		for w := range 10 {
			wg.Go(func() {
				for i := range want / 10 {
					status, answer := g.do(http.MethodPost, fmt.Sprint("/v1/topics/never/", w), fmt.Sprint(i))
					if strings.Contains(answer, "acknowledged") {
						t.Errorf("%d: %d %s", i, status, answer)
					}
					mu.Lock()
					statuses[status]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		t.Logf("outbox %t: answers %v", outbox, statuses)
		if statuses[200] > 0 || !outbox && statuses[202] > 0 {
			t.Errorf("%d false successes of %d", statuses[200]+statuses[202], want)
		}
		if status := g.status("/livez"); status != http.StatusOK {
			t.Errorf("/livez: %d", status)
		}
	}
}

// Whatever a broker does wrong, nothing false is promised and the gateway goes on
// when it behaves again.
func TestMisbehavingBroker(t *testing.T) {
	for name, wrong := range map[string]func(c net.Conn, p packets.ControlPacket) bool{
		"no puback": func(_ net.Conn, p packets.ControlPacket) bool { _, is := isClients(p); return is },
		"puback for another packet": func(c net.Conn, p packets.ControlPacket) bool {
			pub, is := isClients(p)
			if is {
				_, _ = c.Write([]byte{0x40, 2, byte((pub.MessageID + 7) >> 8), byte(pub.MessageID + 7)})
			}
			return is
		},
		"pubcomp to qos 1": func(c net.Conn, p packets.ControlPacket) bool {
			pub, is := isClients(p)
			if is {
				_, _ = c.Write([]byte{0x70, 2, byte(pub.MessageID >> 8), byte(pub.MessageID)})
			}
			return is
		},
		"malformed answers": func(c net.Conn, p packets.ControlPacket) bool {
			_, is := isClients(p)
			if is {
				_, _ = c.Write([]byte{0x40, 0xff, 0xff, 0xff, 0xff, 1})
			}
			return is
		},
		"subscriptions refused": func(c net.Conn, p packets.ControlPacket) bool {
			sub, is := p.(*packets.SubscribePacket)
			if is {
				_, _ = c.Write([]byte{0x90, 3, byte(sub.MessageID >> 8), byte(sub.MessageID), 0x80})
			}
			_, publish := isClients(p)
			return is || publish
		},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			misbehaving := true
			s := startStub(t, func(c net.Conn, p packets.ControlPacket) bool {
				mu.Lock()
				defer mu.Unlock()
				return misbehaving && wrong(c, p)
			})
			g := startGateway(t, s.url(), t.TempDir(), "limits.publish_timeout=500ms")
			eventually(t, "it listens", func() bool { return g.status("/livez") == http.StatusOK })
			for i := range 5 {
				status, answer := g.do(http.MethodPost, "/v1/topics/wrong", fmt.Sprint(i))
				if status == http.StatusOK || status == 0 {
					t.Errorf("%d: %d %s", i, status, answer)
				}
			}
			mu.Lock()
			misbehaving = false
			mu.Unlock()
			g.awaitReady()
			eventually(t, "another topic is acknowledged", func() bool {
				status, _ := g.do(http.MethodPost, "/v1/topics/right", "x")
				return status == http.StatusOK
			})
		})
	}
}
