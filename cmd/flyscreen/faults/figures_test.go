package faults_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"flyscreen/gateway/gatewaytest/mosquitto"
)

// load is a run of publishers over keep-alive connections, as light as it can be.
type load struct {
	requests float64
	rate     float64 // a second
	cpu      float64 // the gateway's microseconds a request
}

const loadConnections = 64

// publishers posts from 64 connections for d, each as soon as its last is answered,
// and wants every answer to have the status.
func publishers(t *testing.T, g *gateway, query, token string, d time.Duration, want string) load {
	t.Helper()
	address := strings.TrimPrefix(g.url, "http://")
	payload := strings.Repeat("x", 120)
	var answered atomic.Int64
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var wg sync.WaitGroup
	cpu, began := g.cpu(t), time.Now()
	for n := range loadConnections {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		request := fmt.Sprintf("POST /v1/topics/load/%d%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
			n, query, address, token, len(payload), payload)
		wg.Go(func() {
			defer func() { _ = c.Close() }()
			in := bufio.NewReader(c)
			for ctx.Err() == nil {
				if _, err := io.WriteString(c, request); err != nil {
					t.Error(err)
					return
				}
				if err := skipAnswer(in, want); err != nil {
					t.Error(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began).Seconds()
	n := float64(answered.Load())
	return load{requests: n, rate: n / took, cpu: (g.cpu(t) - cpu) / n * 1e6}
}

// skipAnswer reads one answer, which must have the status.
func skipAnswer(in *bufio.Reader, want string) error {
	length, first := 0, true
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && string(line[9:12]) != want {
			return fmt.Errorf("got %q, want %s", line, want)
		}
		first = false
		if len(line) == 2 {
			_, err := in.Discard(length)
			return err
		}
		if name, value, _ := strings.Cut(string(line), ": "); name == "Content-Length" {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		}
	}
}

// cpu is the gateway's user and system time in seconds.
func (g *gateway) cpu(t *testing.T) float64 {
	t.Helper()
	g.mu.Lock()
	pid := g.cmd.Process.Pid
	g.mu.Unlock()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100 // USER_HZ, which Linux fixes at 100 for programs
}

// reference is how many QoS 1 publishes a second one well buffered MQTT connection
// does with 64 under way.
func reference(t *testing.T, port string, d time.Duration) float64 {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	in, out := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)
	hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	hello.ProtocolName, hello.ProtocolVersion, hello.CleanSession, hello.ClientIdentifier = "MQTT", 4, true, "reference"
	if err := hello.Write(c); err != nil {
		t.Fatal(err)
	}
	if _, err := packets.ReadPacket(in); err != nil {
		t.Fatal(err)
	}
	pub := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	pub.Qos, pub.TopicName, pub.Payload = 1, "load/reference", []byte(strings.Repeat("x", 120))
	n, began := 0, time.Now()
	send := func() {
		pub.MessageID = uint16(n%60_000 + 1)
		if err := pub.Write(out); err != nil {
			t.Fatal(err)
		}
		n++
	}
	for range loadConnections {
		send()
	}
	for time.Since(began) < d {
		if err := out.Flush(); err != nil {
			t.Fatal(err)
		}
		for first := true; first || in.Buffered() >= 4; first = false {
			if _, err := packets.ReadPacket(in); err != nil {
				t.Fatal(err)
			}
			send()
		}
	}
	return float64(n-loadConnections) / time.Since(began).Seconds()
}

// TestFigures measures publishing over HTTP: the gateway's CPU for a request, and
// the rate beside that of MQTT itself in the same run; then with the broker away,
// and how long a start and a replay take. The short form only runs the road.
func TestFigures(t *testing.T) {
	d, backlog := 300*time.Millisecond, 500
	if full {
		d, backlog = 5*time.Second, 100_000
	}
	broker := mosquitto.Start(t, "log_type none")
	g := startGateway(t, broker.URL(), t.TempDir(), "outbox.max_bytes=1GiB", "log.level=warn")
	g.awaitReady()
	token := strings.TrimSpace(runCommand(t, "token", "--subject", "load", "--all", "#", "--data-dir", g.dir))
	token = token[strings.LastIndexByte(token, '\n')+1:]
	for range 2 { // the first warms up
		mqtt := reference(t, broker.Port, d)
		one := publishers(t, g, "", token, d, "200")
		zero := publishers(t, g, "?qos=0", token, d, "202")
		t.Logf("QoS 1: %.0f/s, %.1f µs CPU each; MQTT itself with 64 under way %.0f/s; QoS 0: %.0f/s, %.1f µs", one.rate, one.cpu, mqtt, zero.rate, zero.cpu)
	}
	broker.Kill()
	eventually(t, "the link is down", func() bool { return g.status("/readyz") == http.StatusServiceUnavailable })
	total := 0.0
	for total < float64(backlog) {
		kept := publishers(t, g, "", token, d, "202")
		total += kept.requests
		t.Logf("outbox: %.0f fsynced publishes/s, %.1f µs CPU each, %.1f a commit", kept.rate, kept.cpu,
			g.metric("flyscreen_outbox_commit_operations_sum")/g.metric("flyscreen_outbox_commit_operations_count"))
	}
	g.kill()
	began := time.Now()
	g.start()
	eventually(t, "it listens", func() bool { return g.status("/livez") == http.StatusOK })
	started := time.Since(began)
	if n := g.metric("flyscreen_outbox_messages"); n != total {
		t.Errorf("%v messages of %v are there after the restart", n, total)
	}
	broker.Start()
	g.awaitReady()
	began = time.Now()
	g.awaitEmpty()
	t.Logf("with %.0f kept: started in %s, replayed in %s (%.0f/s)", total, started.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), total/time.Since(began).Seconds())
	if started > 2*time.Second && full {
		t.Errorf("the start took %s", started)
	}
}
