package broker_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"flyscreen/gateway/internal/broker"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/prometheus/client_golang/prometheus"
)

// raw speaks MQTT byte by byte, to say what no client library would.
type raw struct{ net.Conn }

func rawDial(t *testing.T, b *broker.Broker) raw {
	t.Helper()
	c, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return raw{c}
}

// rawConnect also sends a CONNECT (clean, keep-alive off) and reads its CONNACK.
func rawConnect(t *testing.T, b *broker.Broker, id string, version byte) raw {
	t.Helper()
	c := rawDial(t, b)
	c.send(t, connectPacket(id, version, ""))
	if kind, body := c.packet(t); kind != 0x20 || body[1] != 0 {
		t.Fatalf("instead of a good CONNACK: %#x %x", kind, body)
	}
	return c
}

func (c raw) send(t *testing.T, packet []byte) {
	t.Helper()
	if _, err := c.Write(packet); err != nil {
		t.Fatal(err)
	}
}

// packet reads one packet: its first byte and what follows the length.
func (c raw) packet(t *testing.T) (kind byte, body []byte) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(limit))
	kind = c.octet(t)
	length, shift := 0, 0
	for {
		o := c.octet(t)
		length |= int(o&0x7f) << shift
		if shift += 7; o&0x80 == 0 {
			break
		}
	}
	body = make([]byte, length)
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatal(err)
	}
	return kind, body
}

func (c raw) octet(t *testing.T) byte {
	t.Helper()
	var one [1]byte
	if _, err := io.ReadFull(c, one[:]); err != nil {
		t.Fatal(err)
	}
	return one[0]
}

// closed waits until the broker has closed the connection.
func (c raw) closed(t *testing.T) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the broker left the connection open")
	}
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func framed(kind byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	out := []byte{kind}
	for n := len(body); ; {
		o := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			out = append(out, o|0x80)
			continue
		}
		return append(append(out, o), body...)
	}
}

func connectPacket(id string, version byte, password string) []byte {
	flags, credentials := byte(0x02), []byte(nil)
	if password != "" {
		flags, credentials = 0xC2, append(text("user"), text(password)...)
	}
	var properties []byte
	if version == 5 {
		properties = []byte{0}
	}
	return framed(0x10, text("MQTT"), []byte{version, flags, 0, 0}, properties, text(id), credentials)
}

// publishPacket is a QoS 0 PUBLISH with so much payload that size bytes follow
// its length field, header byte included.
func publishPacket(topic string, size int) []byte {
	return framed(0x30, text(topic), make([]byte, size-1-2-len(topic)))
}

// An MQTT 5 SUBSCRIBE that ends before its filter's options makes mochi's decoder
// read past the end. Unprotected, those eight bytes end the process.
func TestTruncatedSubscribeHarmsNobody(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, broker.Options{Metrics: reg})
	bystander := dial(t, b, "bystander")

	whole := []byte{0x82, 7, 0, 1, 0, 0, 1, 'a', 0}
	control := rawConnect(t, b, "control", 5)
	control.send(t, whole)
	if kind, body := control.packet(t); kind != 0x90 || body[len(body)-1] != 0 {
		t.Fatalf("instead of a SUBACK: %#x %x", kind, body)
	}

	bad := rawConnect(t, b, "bad", 5)
	bad.send(t, whole)
	bad.packet(t)
	bad.send(t, []byte{0x82, 6, 0, 2, 0, 0, 1, 'a'})
	bad.closed(t)

	works(t, b, bystander)
	eventually(t, "the panic is counted", func() bool { return metric(t, reg, "flyscreen_broker_panics_total") == 1 })
	eventually(t, "the dead client's session and subscription are gone", func() bool {
		session, subscribed := b.Knows("bad", "a")
		return !session && !subscribed
	})
	if session, subscribed := b.Knows("control", "a"); !session || !subscribed {
		t.Fatal("the control's subscription is gone too")
	}
}

func TestOversizePacketClosesOnlyItsConnection(t *testing.T) {
	const most = 4096
	b := start(t, broker.Options{MaxPacket: most})
	bystander := dial(t, b, "bystander")
	got := make(chan int, 1)
	done(t, "subscribe", bystander.Subscribe("big", 0, func(_ paho.Client, m paho.Message) { got <- len(m.Payload()) }))

	c := rawConnect(t, b, "big", 4)
	c.send(t, publishPacket("big", most))
	select {
	case <-got:
	case <-time.After(limit):
		t.Fatal("a packet of exactly the largest size did not arrive")
	}
	c.send(t, publishPacket("big", most+1)[:100]) // the announced length is enough
	c.closed(t)
	works(t, b, bystander)
}

func TestConnectMustComeInTime(t *testing.T) {
	b := start(t, broker.Options{}, func(b *broker.Broker) { b.SetWaits(50*time.Millisecond, limit) })
	half := rawDial(t, b)
	half.send(t, connectPacket("half", 4, "")[:5])
	half.closed(t)

	// With a CONNECT and keep-alive 0 there is no deadline any more.
	quiet := rawConnect(t, b, "quiet", 4)
	late := rawDial(t, b)
	late.closed(t)
	quiet.send(t, []byte{0xC0, 0})
	if kind, _ := quiet.packet(t); kind != 0xD0 {
		t.Fatalf("instead of a PINGRESP: %#x", kind)
	}
}

func TestTooManyConnections(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, broker.Options{MaxConnections: 2, Metrics: reg})
	first := rawConnect(t, b, "1", 4)
	rawConnect(t, b, "2", 4)
	rawDial(t, b).closed(t)
	if n := metric(t, reg, "flyscreen_broker_rejected_total"); n != 1 {
		t.Fatalf("rejected %v, want 1", n)
	}
	_ = first.Close()
	eventually(t, "the place is free again", func() bool { return metric(t, reg, "flyscreen_broker_connections") == 1 })
	works(t, b, dial(t, b, "3"))
}

// A reader that stops reading costs the others nothing, is closed by the
// write deadline, and does not hold up Stop.
func TestStalledReader(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, broker.Options{Metrics: reg}, func(b *broker.Broker) { b.SetWaits(limit, 200*time.Millisecond) })
	stalled := rawConnect(t, b, "stalled", 4)
	stalled.send(t, framed(0x82, []byte{0, 1}, text("flood"), []byte{0}))
	stalled.packet(t) // SUBACK, and nothing is read from here on

	c := dial(t, b, "publisher")
	payload := make([]byte, 256<<10)
	eventually(t, "the stalled reader is closed", func() bool {
		done(t, "publish", c.Publish("flood", 1, false, payload))
		return metric(t, reg, "flyscreen_broker_connections") == 1
	})
	works(t, b, c)
}

func TestStopWithStalledReader(t *testing.T) {
	b := start(t, broker.Options{})
	stalled := rawConnect(t, b, "stalled", 5)
	stalled.send(t, []byte{0x82, 11, 0, 1, 0, 0, 5, 'f', 'l', 'o', 'o', 'd', 0})
	stalled.packet(t)
	c := dial(t, b, "publisher")
	for range 64 {
		done(t, "publish", c.Publish("flood", 1, false, make([]byte, 256<<10)))
	}
	stop(t, b)
}
