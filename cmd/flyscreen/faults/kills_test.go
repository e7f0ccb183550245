package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flyscreen/gateway/gatewaytest/mosquitto"
)

// promises are what devices were told, and how often they were told nothing.
type promises struct {
	mu       sync.Mutex // guards the following
	kept     map[string]bool
	statuses map[int]int
}

// device publishes its numbers, one after the other, each until it gets a 2xx, as
// a device does that must not lose a reading.
func (p *promises) device(ctx context.Context, g *gateway, name string, gap time.Duration, enough func() bool) {
	for i := 0; !enough(); i++ {
		for ctx.Err() == nil {
			status, _ := g.do(http.MethodPost, "/v1/topics/faults/"+name, strconv.Itoa(i), header(name, i)...)
			p.mu.Lock()
			p.statuses[status]++
			if status/100 == 2 {
				p.kept["faults/"+name+" "+strconv.Itoa(i)] = true
			}
			p.mu.Unlock()
			if status/100 == 2 {
				break
			}
			pause(ctx, 20*time.Millisecond)
		}
		pause(ctx, gap)
	}
}

// header gives every other device keys, as a careful one has; the rest do without.
func header(name string, i int) []string {
	if len(name) > 0 && name[len(name)-1]%2 == 0 {
		return nil
	}
	return []string{fmt.Sprintf("Idempotency-Key: %s-%d", name, i)}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// judge holds what arrived to what was promised: nothing lost, the first
// occurrences of a topic in order, and few repetitions.
func (p *promises) judge(t *testing.T, arrived []string, mostDoubled int) {
	t.Helper()
	seen := map[string]int{}
	next := map[string]int{}
	inverted := 0
	for _, one := range arrived {
		if seen[one]++; seen[one] > 1 {
			continue
		}
		topic, payload, _ := strings.Cut(one, " ")
		n, err := strconv.Atoi(payload)
		if err != nil {
			t.Errorf("%q arrived, which nobody sent", one)
		}
		if n != next[topic] {
			inverted++
		}
		next[topic] = n + 1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	lost := 0
	for one := range p.kept {
		if seen[one] == 0 {
			lost++
		}
	}
	doubled := len(arrived) - len(seen)
	t.Logf("%d promised, %d arrived; %d lost, %d doubled (at most %d), %d inverted; answers %v", len(p.kept), len(seen), lost, doubled, mostDoubled, inverted, p.statuses)
	if lost > 0 || inverted > 0 || doubled > mostDoubled {
		t.Fail()
	}
}

// Broker and gateway are killed at any moment, while devices publish over one
// connection to the broker, and over several.
func TestKills(t *testing.T) {
	for _, connections := range []int{1, 3} {
		t.Run(fmt.Sprint("connections ", connections), func(t *testing.T) { kills(t, connections) })
	}
}

func kills(t *testing.T, connections int) {
	const devices = 16
	faults, want, longestDown := 3, int64(2_000), 800*time.Millisecond
	if full {
		faults, want, longestDown = number("FAULTS_KILLS", 20), int64(number("FAULTS_PUBLISHES", 50_000)), 20*time.Second
	}
	if connections > 1 { // once more, not at the same length
		faults, want = max(2, faults/4), want/4
	}
	broker := mosquitto.Start(t)
	r := record(t, "127.0.0.1:"+broker.Port)
	g := startGateway(t, r.url(), t.TempDir(), fmt.Sprint("upstream.connections=", connections))
	g.awaitReady()

	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	p := &promises{kept: map[string]bool{}, statuses: map[int]int{}}
	var over atomic.Bool
	enough := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return ctx.Err() != nil || over.Load() && len(p.kept) >= int(want)
	}
	var wg sync.WaitGroup
	for d := range devices {
		wg.Go(func() { p.device(ctx, g, fmt.Sprint("device", d), 40*time.Millisecond, enough) })
	}
	for range faults {
		pause(ctx, rand.N(longestDown/4))
		broker.Kill()
		pause(ctx, longestDown/10+rand.N(longestDown*9/10))
		broker.Start()
		pause(ctx, rand.N(longestDown/4))
		g.kill()
		pause(ctx, rand.N(longestDown/8))
		g.start()
	}
	over.Store(true)
	wg.Wait()
	if ctx.Err() != nil {
		t.Error("it took too long")
	}
	g.awaitEmpty()
	if n := g.metric("flyscreen_outbox_quarantined_messages"); n != 0 {
		t.Errorf("%v innocent messages are in quarantine", n)
	}
	// In flight at a broker's end: the window and a message of each device. At the
	// gateway's: what was delivered and not yet noted, and a repetition by each device.
	p.judge(t, r.acknowledged(), faults*2*(256*connections+devices))
}

func number(name string, standard int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return standard
}
