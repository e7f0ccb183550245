package faults_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"flyscreen/gateway/gatewaytest/mosquitto"
)

// link is a network between gateway and broker that can be made worse.
type link struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

func network(t *testing.T, broker string) *link {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	l := &link{t: t, proxy: toxiproxy.NewProxy(server, "broker", "127.0.0.1:0", broker)}
	if err := l.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.proxy.Stop)
	return l
}

func (l *link) url() string { return "tcp://" + l.proxy.Listen }

// worsen adds a toxic to both directions; attributes are JSON.
func (l *link) worsen(kind, attributes string) {
	l.t.Helper()
	for _, stream := range []string{"upstream", "downstream"} {
		text := fmt.Sprintf(`{"type":%q,"stream":%q,"attributes":%s}`, kind, stream, attributes)
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(text)); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *link) heal() { l.proxy.Toxics.ResetToxics(context.Background()) }

// A link on which everything vanishes turns /readyz red within 10 s and green
// within 5 s after it is back; nothing is promised that is not kept, and nothing
// piles up.
func TestHalfOpen(t *testing.T) {
	broker := mosquitto.Start(t)
	r := record(t, "127.0.0.1:"+broker.Port)
	l := network(t, r.listener.Addr().String())
	g := startGateway(t, l.url(), t.TempDir())
	g.awaitReady()
	p := &promises{kept: map[string]bool{}, statuses: map[int]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for d := range 8 {
		wg.Go(func() {
			p.device(ctx, g, fmt.Sprint("half", d), 10*time.Millisecond, func() bool { return ctx.Err() != nil })
		})
	}
	rounds := 1
	if full {
		rounds = 8
	}
	for range rounds {
		eventually(t, "publishes are acknowledged directly", func() bool {
			status, _ := g.do(http.MethodPost, "/v1/topics/control", "x")
			return status == http.StatusOK
		})
		before := g.metric("go_goroutines")
		l.worsen("timeout", `{"timeout":0}`)
		red := g.turns(t, http.StatusServiceUnavailable)
		if s := g.status("/livez"); s != http.StatusOK {
			t.Errorf("/livez: %d", s)
		}
		if after := g.metric("go_goroutines"); after > before+60 {
			t.Errorf("%v goroutines became %v", before, after)
		}
		l.heal()
		green := g.turns(t, http.StatusOK)
		t.Logf("red after %s, green after %s", red, green)
		if red > 10*time.Second || green > 5*time.Second {
			t.Errorf("red after %s, at most 10 s; green after %s, at most 5 s", red, green)
		}
	}
	cancel()
	wg.Wait()
	g.awaitEmpty()
	p.judge(t, without(r.acknowledged(), "control "), rounds*(256+8))
}

// turns waits until /readyz answers status and returns how long that took.
func (g *gateway) turns(t *testing.T, status int) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, fmt.Sprint("/readyz answers ", status), func() bool { return g.status("/readyz") == status })
	return time.Since(began).Round(10 * time.Millisecond)
}

func without(all []string, prefix string) (rest []string) {
	for _, one := range all {
		if !strings.HasPrefix(one, prefix) {
			rest = append(rest, one)
		}
	}
	return rest
}

// A link that is slow and cuts everything into pieces only makes things slower.
func TestSlowAndSliced(t *testing.T) {
	broker := mosquitto.Start(t)
	r := record(t, "127.0.0.1:"+broker.Port)
	l := network(t, r.listener.Addr().String())
	g := startGateway(t, l.url(), t.TempDir())
	g.awaitReady()
	l.worsen("latency", `{"latency":30,"jitter":20}`)
	l.worsen("slicer", `{"average_size":7,"size_variation":5,"delay":50}`)
	l.worsen("bandwidth", `{"rate":20}`)
	p := &promises{kept: map[string]bool{}, statuses: map[int]int{}}
	const devices, each = 8, 40
	var wg sync.WaitGroup
	for d := range devices {
		wg.Go(func() {
			n := 0
			p.device(t.Context(), g, fmt.Sprint("slow", d), 0, func() bool { n++; return n > each })
		})
	}
	wg.Wait()
	g.awaitEmpty()
	p.judge(t, r.acknowledged(), devices*each/10)
	if len(p.kept) != devices*each || p.statuses[http.StatusOK] == 0 {
		t.Errorf("%d promised, %v", len(p.kept), p.statuses)
	}
}

// A message that the broker drops the connection for is put into quarantine after
// two tries; all others arrive, and the operator can see it.
func TestPoison(t *testing.T) {
	broker := mosquitto.Start(t, "max_packet_size 2000")
	r := record(t, "127.0.0.1:"+broker.Port)
	g := startGateway(t, r.url(), t.TempDir())
	g.awaitReady()
	p := &promises{kept: map[string]bool{}, statuses: map[int]int{}}
	const devices, each = 8, 60
	var wg sync.WaitGroup
	for d := range devices {
		wg.Go(func() {
			n := 0
			p.device(t.Context(), g, fmt.Sprint("clean", d), time.Millisecond, func() bool { n++; return n > each })
		})
	}
	poison := strings.Repeat("x", 3000)
	if status, answer := g.do(http.MethodPost, "/v1/topics/poison", poison); status != http.StatusAccepted {
		t.Errorf("the poison: %d %s", status, answer)
	}
	wg.Wait()
	eventually(t, "the quarantine", func() bool { return g.metric("flyscreen_outbox_quarantined_messages") == 1 })
	g.awaitEmpty()
	p.judge(t, r.acknowledged(), devices*4)
	if n := g.metric("flyscreen_upstream_connection_losses_total"); n != 2 {
		t.Errorf("%v connections were lost, want 2", n)
	}
	address := strings.TrimPrefix(g.url, "http://")
	out := runCommand(t, "outbox", "ls", "--data-dir", g.dir, "--listen", address)
	if !strings.Contains(out, "quarantined") || !strings.Contains(out, "poison") || !strings.Contains(out, "0 queued, 1 quarantined") {
		t.Errorf("flyscreen outbox ls:\n%s", out)
	}
	if text := g.logText(); !strings.Contains(text, "put into quarantine") {
		t.Error("the log does not say so")
	}
	id := strings.Fields(strings.Split(out, "\n")[1])[0]
	if shown := runCommand(t, "outbox", "show", id, "--data-dir", g.dir, "--listen", address); !strings.Contains(shown, poison) {
		t.Errorf("flyscreen outbox show %s: %.200s", id, shown)
	}
	runCommand(t, "outbox", "drop", id, "--data-dir", g.dir, "--listen", address)
	if n := g.metric("flyscreen_outbox_quarantined_messages"); n != 0 {
		t.Errorf("%v messages are in quarantine after the drop", n)
	}
}
