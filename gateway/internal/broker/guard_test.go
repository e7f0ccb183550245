package broker_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"flyscreen/gateway/internal/broker"
)

func identifier(id uint16) []byte { return binary.BigEndian.AppendUint16(nil, id) }

func subscribePacket(id uint16, filter string, qos byte) []byte {
	return framed(0x82, identifier(id), text(filter), []byte{qos})
}

func qosPublishPacket(qos byte, id uint16, topic, payload string) []byte {
	return framed(0x30|qos<<1, text(topic), identifier(id), []byte(payload))
}

// expectPacket reads one packet and compares it whole.
func (c raw) expectPacket(t *testing.T, what string, want []byte) {
	t.Helper()
	kind, body := c.packet(t)
	if got := framed(kind, body); !bytes.Equal(got, want) {
		t.Fatalf("%s: got %x, want %x", what, got, want)
	}
}

// A client numbers its packets without regard to the numbers of the deliveries
// that it has not acknowledged yet (MQTT 3.1.1 section 2.3.1).
func TestIdentifiersOfBothDirectionsAreApart(t *testing.T) {
	b := start(t, broker.Options{})
	other := rawConnect(t, b, "other", 4)
	c := rawConnect(t, b, "client", 4)
	c.send(t, subscribePacket(1, "in/#", 1))
	c.expectPacket(t, "suback", []byte{0x90, 3, 0, 1, 1})
	const deliveries = 3
	for n := range deliveries {
		other.send(t, qosPublishPacket(1, uint16(100+n), "in/a", "x"))
		other.expectPacket(t, "puback", []byte{0x40, 2, 0, byte(100 + n)})
		c.expectPacket(t, "delivery", qosPublishPacket(1, uint16(n+1), "in/a", "x"))
	}
	// None of them is acknowledged: 1, 2 and 3 are in use on the broker's side.
	c.send(t, subscribePacket(2, "also/#", 1))
	c.expectPacket(t, "suback for an identifier in use", []byte{0x90, 3, 0, 2, 1})
	c.send(t, qosPublishPacket(1, 1, "out/a", "y"))
	c.expectPacket(t, "puback for an identifier in use", []byte{0x40, 2, 0, 1})
	c.send(t, qosPublishPacket(2, 3, "out/a", "z"))
	c.expectPacket(t, "pubrec for an identifier in use", []byte{0x50, 2, 0, 3})
	c.send(t, framed(0x62, identifier(3)))
	c.expectPacket(t, "pubcomp for an identifier in use", []byte{0x70, 2, 0, 3})
	c.send(t, framed(0xA2, identifier(2), text("in/#")))
	c.expectPacket(t, "unsuback for an identifier in use", []byte{0xB0, 2, 0, 2})

	other.send(t, qosPublishPacket(1, 9, "in/a", "no more"))
	other.expectPacket(t, "puback", []byte{0x40, 2, 0, 9})
	other.send(t, qosPublishPacket(1, 10, "also/a", "y"))
	other.expectPacket(t, "puback", []byte{0x40, 2, 0, 10})
	c.expectPacket(t, "the next delivery is of the other filter", qosPublishPacket(1, 4, "also/a", "y"))
}

// Changing and reading retained messages at once must be safe (the race detector
// watches) and must not stand still.
func TestRetainedMessagesWhileSubscribing(t *testing.T) {
	b := start(t, broker.Options{})
	var wg sync.WaitGroup
	for n := range 4 {
		publisher, reader := rawConnect(t, b, fmt.Sprintf("p%d", n), 4), rawConnect(t, b, fmt.Sprintf("r%d", n), 4)
		wg.Go(func() {
			for i := range 200 {
				topic := fmt.Sprintf("r/%d/%d", n, i%20)
				publisher.send(t, framed(0x31, text(topic), []byte("x"))) // QoS 0, retained
				publisher.send(t, framed(0x31, text(topic)))              // cleared
			}
			publisher.send(t, []byte{0xC0, 0})
			publisher.expectPacket(t, "pingresp", []byte{0xD0, 0})
		})
		wg.Go(func() {
			for i := range 100 {
				reader.send(t, subscribePacket(uint16(i+1), "r/+/+", 0))
			}
			reader.send(t, []byte{0xC0, 0})
			for kind := byte(0); kind != 0xD0; {
				kind, _ = reader.packet(t)
			}
		})
	}
	wg.Wait()
}
