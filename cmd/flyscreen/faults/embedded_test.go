package faults_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// subscribe collects "topic payload" of all that the broker at address delivers of
// faults/#, until the test ends.
func subscribe(t *testing.T, address string) (received func() []string) {
	t.Helper()
	var c net.Conn
	eventually(t, "the embedded broker listens", func() (up bool) {
		var err error
		c, err = net.Dial("tcp", address)
		return err == nil
	})
	in := bufio.NewReader(c)
	hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	hello.ProtocolName, hello.ProtocolVersion, hello.CleanSession, hello.ClientIdentifier = "MQTT", 4, true, "recorder"
	sub := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	sub.MessageID, sub.Topics, sub.Qoss = 1, []string{"faults/#"}, []byte{0}
	for _, p := range []packets.ControlPacket{hello, sub} {
		if err := p.Write(c); err != nil {
			t.Fatal(err)
		}
		if _, err := packets.ReadPacket(in); err != nil { // CONNACK, SUBACK
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var all []string
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			p, err := packets.ReadPacket(in)
			if err != nil {
				return
			}
			if pub, is := p.(*packets.PublishPacket); is {
				mu.Lock()
				all = append(all, pub.TopicName+" "+string(pub.Payload))
				mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		_ = c.Close()
		reader.Wait()
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), all...)
	}
}

// The embedded broker behind four connections: nothing is lost or doubled, and each
// topic keeps its order. It is not killed, since it lives in memory with the gateway.
func TestEmbeddedBroker(t *testing.T) {
	address := freeAddress(t)
	g := startGateway(t, "", t.TempDir(), "broker.listen="+address, "upstream.connections=4")
	g.awaitReady()
	received := subscribe(t, address)
	p := &promises{kept: map[string]bool{}, statuses: map[int]int{}}
	const devices, each = 16, 150
	var wg sync.WaitGroup
	for d := range devices {
		wg.Go(func() {
			n := 0
			p.device(t.Context(), g, fmt.Sprint("embedded", d), 0, func() bool { n++; return n > each })
		})
	}
	wg.Wait()
	eventually(t, "all to arrive", func() bool { return len(received()) >= devices*each })
	p.judge(t, received(), 0)
	if _, text := g.do("GET", "/v1/upstream", ""); strings.Count(text, `"state":"up"`) != 6 {
		t.Errorf("the connections: %s", text)
	}
}
