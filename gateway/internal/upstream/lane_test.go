package upstream_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
)

// A topic always takes the same connection, and its order is kept there.
func TestLinesKeepTheOrderOfATopic(t *testing.T) {
	type arrival struct {
		conn    *stubConn
		payload string
	}
	var mu sync.Mutex
	got := map[string][]arrival{}
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		if pub, ok := p.(*packets.PublishPacket); ok && strings.HasPrefix(c.role, "publish") {
			mu.Lock()
			got[pub.TopicName] = append(got[pub.TopicName], arrival{c, string(pub.Payload)})
			mu.Unlock()
		}
		return false
	})
	o := quick(s.url())
	o.Publishers = 4
	u := ready(t, o)
	const topics, each = 12, 200
	var all sync.WaitGroup
	for topic := range topics {
		for i := range each {
			all.Add(1)
			m := message(fmt.Sprint("t", topic), fmt.Sprint(i), mqtt.QoS(1+i%2))
			if err := u.Send(m, func(d mqtt.Delivery, err error) {
				if err != nil || d != mqtt.Acknowledged {
					t.Errorf("%q, %v", d, err)
				}
				all.Done()
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	all.Wait()
	conns := map[*stubConn]bool{}
	for topic, arrivals := range got {
		for i, a := range arrivals {
			if a.payload != fmt.Sprint(i) || a.conn != arrivals[0].conn {
				t.Fatalf("%s: arrival %d is %s on %p", topic, i, a.payload, a.conn)
			}
		}
		conns[arrivals[0].conn] = true
	}
	if len(got) != topics || len(conns) < 2 {
		t.Errorf("%d topics over %d connections", len(got), len(conns))
	}
}

// What an ended connection leaves unanswered fails in the order in which it was
// sent, before the line is told to be down; and it is told that the broker survived.
func TestFlightsFailInOrder(t *testing.T) {
	var mu sync.Mutex
	var events []string
	note := func(e string) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}
	var silent atomic.Bool
	silent.Store(true)
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		_, pub := p.(*packets.PublishPacket)
		return pub && c.role == "publish" && silent.Load()
	})
	o := quick(s.url())
	o.PublishLink = func(_ int, up, survived bool) { note(fmt.Sprintf("up %t survived %t", up, survived)) }
	u := ready(t, o)
	for i := range 50 {
		if err := u.Send(message("t", "x", 1), func(_ mqtt.Delivery, err error) {
			wantCode(t, err, fault.UpstreamTimeout)
			note(fmt.Sprint(i))
		}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the broker to get them", func() bool { return s.packets("publish", "PUBLISH") == 50 })
	silent.Store(false)
	s.each("publish", func(c *stubConn) { _ = c.Close() })
	waitFor(t, "a new connection", func() bool { return s.connections("publish") == 2 })
	waitReady(t, u)
	mu.Lock()
	defer mu.Unlock()
	want := []string{"up true survived false"}
	for i := range 50 {
		want = append(want, fmt.Sprint(i))
	}
	want = append(want, "up false survived false", "up true survived true")
	if !slices.Equal(events, want) {
		t.Errorf("got %v", events)
	}
}

// A publish that is never answered ends the connection, though others are answered.
func TestPublishThatIsNeverAnswered(t *testing.T) {
	s := startStub(t, func(_ *stubConn, p packets.ControlPacket) bool {
		pub, ok := p.(*packets.PublishPacket)
		return ok && pub.TopicName == "never"
	})
	u, err := upstream.New(quick(s.url()))
	if err != nil {
		t.Fatal(err)
	}
	u.SetOverdue(100 * time.Millisecond)
	run(t, u)
	waitReady(t, u)
	failed := make(chan error, 1)
	if err := u.Send(message("never", "x", 1), func(_ mqtt.Delivery, err error) { failed <- err }); err != nil {
		t.Fatal(err)
	}
	for {
		_, err := u.Publish(within(t), message("t", "x", 1))
		select {
		case err := <-failed:
			wantCode(t, err, fault.UpstreamTimeout)
			return
		default:
			if err != nil {
				wantCode(t, err, fault.UpstreamTimeout, fault.UpstreamUnavailable)
			}
		}
	}
}

// Two gateways with one client identifier do not throw each other out for ever, and
// say what is the matter.
func TestTakeover(t *testing.T) {
	var mu sync.Mutex
	holders := map[string]*stubConn{}
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		if hello, ok := p.(*packets.ConnectPacket); ok { // 3.1.1 section 3.1.4: the older one has to go
			mu.Lock()
			if old := holders[hello.ClientIdentifier]; old != nil {
				_ = old.Close()
			}
			holders[hello.ClientIdentifier] = c
			mu.Unlock()
		}
		return false
	})
	var log lines
	var both []*upstream.Upstream
	for range 2 {
		o := quick(s.url())
		o.ClientID = "same"
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		both = append(both, start(t, o))
	}
	waitFor(t, "both to be up for good", func() bool {
		mu.Lock()
		n := len(holders)
		mu.Unlock()
		return n >= 6 && both[0].Ready() == nil && both[1].Ready() == nil
	})
	if text := log.String(); !strings.Contains(text, "another client seems to use our client identifier") || !strings.Contains(text, "client_id=same-") {
		t.Errorf("the log: %s", text)
	}
}

// lines is a log that several may write.
type lines struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
