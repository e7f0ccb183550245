package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"flyscreen/gateway/internal/broker"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/prometheus/client_golang/prometheus"
)

// limit is how long a test waits for what must happen; generous, for it is only
// spent by a test that fails.
const limit = 30 * time.Second

func start(t *testing.T, o broker.Options, before ...func(*broker.Broker)) *broker.Broker {
	t.Helper()
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	b, err := broker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range before {
		f(b)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, b) })
	return b
}

func stop(t *testing.T, b *broker.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := b.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// eventually waits until what holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func dial(t *testing.T, b *broker.Broker, id string) paho.Client {
	t.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://" + b.Addr().String()).SetClientID(id).
		SetProtocolVersion(4).SetAutoReconnect(false).SetConnectTimeout(limit)
	c := paho.NewClient(o)
	done(t, "connect", c.Connect())
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func done(t *testing.T, what string, token paho.Token) {
	t.Helper()
	if !token.WaitTimeout(limit) {
		t.Fatalf("%s: no answer within %v", what, limit)
	}
	if err := token.Error(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// works says that b still serves a whole publish and subscribe.
func works(t *testing.T, b *broker.Broker, c paho.Client) {
	t.Helper()
	topic := fmt.Sprintf("works/%s", t.Name())
	got := make(chan string, 1)
	done(t, "subscribe", c.Subscribe(topic, 1, func(_ paho.Client, m paho.Message) { got <- string(m.Payload()) }))
	done(t, "publish", c.Publish(topic, 1, false, "yes"))
	select {
	case p := <-got:
		if p != "yes" {
			t.Fatalf("payload %q", p)
		}
	case <-time.After(limit):
		t.Fatal("a bystander's message did not arrive")
	}
}

// metric is the sum of all samples of the family name in reg.
func metric(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
			return sum
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestNewChecksOptions(t *testing.T) {
	for _, good := range []string{"", "127.0.0.1:0", "127.8.8.8:1883", "[::1]:1883", "localhost:1883"} {
		if _, err := broker.New(broker.Options{Listen: good}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, reason := range map[string]string{
		":1883":            "loopback only",
		"0.0.0.0:1883":     "loopback only",
		"[::]:1883":        "loopback only",
		"192.0.2.1:1883":   "loopback only",
		"example.com:1883": "loopback only",
		"127.0.0.1":        "host:port",
		"127.0.0.1:mqtt":   "port must be",
		"127.0.0.1:65536":  "port must be",
	} {
		if _, err := broker.New(broker.Options{Listen: bad}); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: error %v, want one with %q", bad, err, reason)
		}
	}
	_, err := broker.New(broker.Options{Listen: "nowhere", MaxPacket: -1, MaxConnections: -1})
	for _, each := range []string{"listen address", "largest packet", "connections"} {
		if err == nil || !strings.Contains(err.Error(), each) {
			t.Errorf("all mistakes at once: %v does not name %q", err, each)
		}
	}
}

func TestAddressInUse(t *testing.T) {
	taken := start(t, broker.Options{})
	second, err := broker.New(broker.Options{Listen: taken.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	err = second.Start()
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "another port") {
		t.Fatalf("error %v, want one that names the address and says what to do", err)
	}
	stop(t, second)
}

func TestHundredClients(t *testing.T) {
	b := start(t, broker.Options{})
	const n = 100
	var arrived sync.WaitGroup
	arrived.Add(n * n)
	clients := make([]paho.Client, n)
	for i := range clients {
		clients[i] = dial(t, b, fmt.Sprintf("client-%d", i))
		done(t, "subscribe", clients[i].Subscribe("all/+", 1, func(paho.Client, paho.Message) { arrived.Done() }))
	}
	for i, c := range clients {
		done(t, "publish", c.Publish(fmt.Sprintf("all/%d", i), 1, false, "x"))
	}
	all := make(chan struct{})
	go func() { arrived.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(limit):
		t.Fatal("not every client got every message")
	}
}

// The clients of another house: what mosquitto_pub retains, mosquitto_sub gets.
func TestMosquittoClients(t *testing.T) {
	b := start(t, broker.Options{})
	_, port, _ := net.SplitHostPort(b.Addr().String())
	run := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return string(out)
	}
	for _, version := range []string{"mqttv311", "mqttv5"} {
		run("mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-V", version, "-q", "2", "-r", "-t", "pets/1/"+version, "-m", version)
		got := run("mosquitto_sub", "-h", "127.0.0.1", "-p", port, "-V", version, "-q", "1", "-C", "1", "-W", "20", "-t", "pets/+/"+version, "-v")
		if want := "pets/1/" + version + " " + version + "\n"; got != want {
			t.Errorf("%s: got %q, want %q", version, got, want)
		}
	}
}

// mochi's housekeeping runs each second and by default removes what is older
// than a day.
func TestRetainedHasNoAge(t *testing.T) {
	b := start(t, broker.Options{})
	c := dial(t, b, "keeper")
	done(t, "publish", c.Publish("kept", 1, true, "v"))
	if !b.Age("kept", 1000*24*time.Hour) {
		t.Fatal("not retained")
	}
	for _, mark := range []string{"mark/1", "mark/2"} { // the second one falls in a round that began after Age
		b.RetainExpired(mark)
		eventually(t, "housekeeping removes "+mark, func() bool { return !b.HasRetained(mark) })
	}
	if !b.HasRetained("kept") {
		t.Fatal("the retained message was purged for its age")
	}
}

func TestStopEndsAllGoroutines(t *testing.T) {
	b, err := broker.New(broker.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	works(t, b, dial(t, b, "a"))
	silent := rawDial(t, b) // has not even sent a CONNECT
	address := b.Addr().String()
	if !strings.Contains(stacks(), "internal/broker") {
		t.Fatal("the check sees no goroutine of a running broker")
	}
	stop(t, b)
	stop(t, b) // again: nothing to do
	if s := stacks(); strings.Contains(s, "internal/broker.(*Broker)") {
		t.Fatalf("after Stop:\n%s", s)
	}
	eventually(t, "mochi's own goroutines end", func() bool { return !strings.Contains(stacks(), "mochi-mqtt") })
	silent.closed(t)
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Fatal("still listening after Stop")
	}
	if err := b.Start(); err == nil {
		t.Fatal("a stopped broker started again")
	}
}

func stacks() string {
	buf := make([]byte, 4<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

func TestLogHoldsNoPackets(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	b := start(t, broker.Options{Logger: slog.New(slog.NewTextHandler(locked{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	c := rawConnect(t, b, "twice", 5)
	c.send(t, connectPacket("twice", 5, "s3cret")) // a second CONNECT is refused, and mochi logs the packet
	c.closed(t)
	read := func() string { mu.Lock(); defer mu.Unlock(); return log.String() }
	eventually(t, "mochi reports the second CONNECT", func() bool { return strings.Contains(read(), "error processing packet") })
	asBytes := fmt.Sprintf("%d", []byte("s3cret")) // how a text handler prints them
	if s := read(); strings.Contains(s, "s3cret") || strings.Contains(s, asBytes) || strings.Contains(s, "level=WARN") {
		t.Fatalf("log:\n%s", s)
	}
}

type locked struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}
