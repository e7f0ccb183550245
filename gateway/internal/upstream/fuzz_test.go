package upstream

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/prometheus/client_golang/prometheus"
)

// script is a broker that says what it was given and hears nothing.
type script struct {
	net.Conn // nil: only Read is called
	r        io.Reader
}

func (s script) Read(p []byte) (int, error) { return s.r.Read(p) }

// FuzzInbound holds what comes through a conn to what the library can bear: no
// panic in its parser, no answer that does not fit what waits, no oversized
// packet, whatever the broker says after its CONNACK.
func FuzzInbound(f *testing.F) {
	for _, seed := range []string{
		"\x40\x02\x00\x01", "\x50\x02\x00\x02\x70\x02\x00\x02", "\x90\x04\x00\x03\x00\x80", "\xb0\x02\x00\x04", "\xd0\x00",
		"\x30\x05\x00\x01axx", "\x32\x05\x00\x01a\x00\x01", "\x90\x05\x00\x03\x00\x00\x00", "\x70\x02\x00\x02", "\x30\xff\xff\xff\x7f", "\x20\x02\x00\x00",
		"\x30\x81\x10\x00\x01a" + strings.Repeat("x", 2046) + "\x40\x02\x00\x01", "\x30\x03\x00\x00x", "\x40\x02\x00\x09",
	} {
		f.Add([]byte(seed))
	}
	const maxPacket = 2048
	f.Fuzz(func(t *testing.T, said []byte) {
		counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "bytes"})
		w := wireConn{Conn: script{r: io.MultiReader(bytes.NewReader([]byte("\x20\x02\x00\x00")), bytes.NewReader(said))}, tcp: &net.TCPConn{}, abort: func() {}}
		c := newConn(w, maxPacket, time.Second, counter, counter)
		for _, o := range []outbound{
			{header: header{kind: typePublish, flags: 2}, id: 1},
			{header: header{kind: typePublish, flags: 4}, id: 2},
			{header: header{kind: typeSubscribe, flags: 2}, id: 3, filters: 2},
			{header: header{kind: typeUnsub, flags: 2}, id: 4},
		} {
			c.track.sending(o)
			c.track.sent(o)
		}
		received := false
		for {
			p, err := packets.ReadPacket(c)
			if err != nil {
				break
			}
			switch p := p.(type) {
			case *packets.PublishPacket:
				if len(p.Payload) > maxPacket && p.TopicName != tooLarge || p.Qos > 1 || p.TopicName == "" {
					t.Errorf("got %s", p)
				}
			case *packets.PubackPacket:
				expect(t, p.MessageID == 1, p)
			case *packets.PubrecPacket:
				received = true
				expect(t, p.MessageID == 2, p)
			case *packets.PubcompPacket:
				expect(t, p.MessageID == 2 && received, p)
			case *packets.SubackPacket:
				expect(t, p.MessageID == 3 && len(p.ReturnCodes) == 2, p)
			case *packets.UnsubackPacket:
				expect(t, p.MessageID == 4, p)
			case *packets.PingrespPacket, *packets.ConnackPacket:
			default:
				t.Errorf("got %s", p)
			}
		}
		select {
		case <-c.ended:
		default:
			t.Error("the connection has not ended")
		}
	})
}

func expect(t *testing.T, ok bool, p packets.ControlPacket) {
	t.Helper()
	if !ok {
		t.Errorf("let through: %s", p)
	}
}

// FuzzOutbound holds the reading of our own packets to the library's writing.
func FuzzOutbound(f *testing.F) {
	f.Add("a/b", "x", byte(1), uint16(7))
	f.Add("", "", byte(0), uint16(0))
	f.Fuzz(func(t *testing.T, topic, payload string, qos byte, id uint16) {
		if len(topic) > 65_535 || qos > 2 {
			return
		}
		pub := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		pub.TopicName, pub.Payload, pub.Qos, pub.MessageID = topic, []byte(payload), qos, id
		sub := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
		sub.Topics, sub.Qoss, sub.MessageID = []string{topic, "b", payload[:min(len(payload), 65_535)]}, []byte{0, 1, qos}, id
		var b bytes.Buffer
		if err := pub.Write(&b); err != nil {
			t.Fatal(err)
		}
		o, err := parseOutbound(b.Bytes())
		if err != nil || o.kind != typePublish || o.qos() != qos || qos > 0 && o.id != id || qos == 0 && o.id != 0 {
			t.Errorf("%+v, %v for %s", o, err, pub)
		}
		b.Reset()
		if err := sub.Write(&b); err != nil {
			t.Fatal(err)
		}
		if o, err = parseOutbound(b.Bytes()); err != nil || o.kind != typeSubscribe || o.id != id || o.filters != 3 {
			t.Errorf("%+v, %v for %s", o, err, sub)
		}
	})
}
