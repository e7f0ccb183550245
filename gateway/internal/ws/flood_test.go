package ws_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/internal/ws"
)

// rawSocket makes a WebSocket by hand, for a client that behaves badly.
func rawSocket(t *testing.T, g *gatewaytest.Gateway) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(gatewaytest.Patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /v1/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: flyscreen.v1\r\nAuthorization: Bearer %s\r\n\r\n", gatewaytest.All(t))
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", answer, err)
	}
	return conn
}

// masked is a client's frame, masked with zeros (RFC 6455 section 5.2).
func masked(opcode byte, payload []byte) []byte {
	f := []byte{0x80 | opcode}
	if len(payload) < 126 {
		f = append(f, 0x80|byte(len(payload)))
	} else {
		f = binary.BigEndian.AppendUint16(append(f, 0x80|126), uint16(len(payload)))
	}
	return append(append(f, 0, 0, 0, 0), payload...)
}

// A client that makes us answer and does not read is cut off, and costs a bounded
// buffer until then.
func TestFlood(t *testing.T) {
	g := gatewaytest.Start(t, "limits.write_timeout=1s")
	for what, frame := range map[string][]byte{
		"WebSocket pings": masked(9, bytes.Repeat([]byte("p"), 125)),
		"JSON pings":      masked(1, []byte(`{"type":"ping","id":`+strings.Repeat("1", 60)+`}`)),
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		cut := false
		for try := 0; try < 5 && !cut; try++ {
			cut = flood(t, rawSocket(t, g), frame)
		}
		if !cut {
			t.Errorf("%s: the client is not cut off", what)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
			t.Errorf("%s: the heap has grown by %d MiB", what, grown>>20)
		}
		gatewaytest.Eventually(t, what+": the stream is freed", func() bool { return metric(t, g, "flyscreen_stream_open") == "0" })
	}
}

// flood sends frame over and over until the gateway closes the connection. It is
// false when the connection stalls instead: a receiver with a closed window also
// passes acknowledgements by, and then the sender waits for TCP and not for us.
func flood(t *testing.T, conn net.Conn, frame []byte) (cut bool) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	many := bytes.Repeat(frame, 1+64<<10/len(frame))
	for sent := 0; sent < 256<<20; {
		if err := conn.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Write(many)
		sent += n
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Logf("stalled after %d KiB", sent>>10)
			return false
		case err != nil:
			t.Logf("cut off after %d KiB", sent>>10)
			return true
		}
	}
	return false
}

// A client that pings and reads slowly gets its messages, or is told what it
// missed: its control frames do not let the queue's bound be passed by.
func TestSlowReaderThatPings(t *testing.T) {
	g := gatewaytest.Start(t, "limits.queue_messages=20", "limits.publish_rate=100000", "limits.publish_burst=100000")
	conn := rawSocket(t, g)
	if _, err := conn.Write(masked(1, []byte(`{"type":"subscribe","filters":[{"filter":"slow","snapshot":false}]}`))); err != nil {
		t.Fatal(err)
	}
	gatewaytest.Eventually(t, "the broker has the subscription", func() bool {
		return strings.Contains(metrics(t, g), "flyscreen_hub_filters 1")
	})
	payload := strings.Repeat("x", 64<<10)
	ping := masked(9, []byte("p"))
	for n := 0; metric(t, g, "flyscreen_stream_dropped_messages_total") == "0"; n++ {
		if _, err := conn.Write(ping); err != nil {
			t.Fatal(err)
		}
		publish(t, g, "slow", payload)
		if n > 1000 {
			t.Fatal("nothing was dropped: the messages wait outside the queue")
		}
	}
}

// A client that does not answer pings is gone; one that does stays.
func TestServerPings(t *testing.T) {
	ws.SetPings(t, 100*time.Millisecond, time.Second)
	g := gatewaytest.Start(t)
	stays := open(t, g, gatewaytest.All(t), "")
	stays.subscribe("a")
	read := make(chan string, 1)
	go func() {
		_, data, _ := stays.conn.Read(stays.ctx) // answers pings meanwhile
		read <- string(data)
	}()
	rawSocket(t, g)
	gatewaytest.Eventually(t, "both are open", func() bool { return metric(t, g, "flyscreen_stream_open") == "2" })
	gatewaytest.Eventually(t, "the silent one is gone", func() bool { return metric(t, g, "flyscreen_stream_open") == "1" })
	publish(t, g, "a", "x")
	if data := <-read; !strings.Contains(data, `"topic":"a"`) {
		t.Errorf("the other one got %q", data)
	}
}
