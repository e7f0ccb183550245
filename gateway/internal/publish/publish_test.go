package publish_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/publish"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/prometheus/client_golang/prometheus"
)

// broker records what reaches it and acknowledges it.
type broker struct {
	mu   sync.Mutex // guards got
	got  []mqtt.Message
	fail error
}

func (b *broker) Publish(_ context.Context, m mqtt.Message) (mqtt.Delivery, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, m)
	return mqtt.Acknowledged, b.fail
}

func (b *broker) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.got)
}

func desk(b publish.Broker, change func(*publish.Options)) *publish.Desk {
	o := publish.Options{
		Broker: b, Topics: mqtt.Limits{Bytes: 1024, Levels: 32}, PayloadBytes: 8, DollarTopics: []string{"$aws/"},
		Rate: 10, Burst: 3, Timeout: time.Second,
	}
	if change != nil {
		change(&o)
	}
	return publish.New(o)
}

func client(subject string) publish.Client {
	return publish.Client{
		Principal: auth.Principal{Subject: subject, Grants: auth.Grants{Pub: []mqtt.Filter{"pets/#", "$aws/things/#"}}},
		Address:   "192.0.2.1",
	}
}

func TestPublishRules(t *testing.T) {
	over := client("s")
	over.Principal.Ends = time.Now().Add(-time.Millisecond)
	soon := client("s")
	soon.Principal.Ends = time.Now().Add(time.Hour)
	for _, c := range []struct {
		what   string
		client publish.Client
		m      mqtt.Message
		code   fault.Code
	}{
		{"granted", client("s"), mqtt.Message{Topic: "pets/1", Payload: []byte("12345678")}, ""},
		{"not granted", client("s"), mqtt.Message{Topic: "plants/1"}, fault.NotAuthorized},
		{"too large", client("s"), mqtt.Message{Topic: "pets/1", Payload: []byte("123456789")}, fault.TooLarge},
		{"valid for an hour", soon, mqtt.Message{Topic: "pets/1"}, ""},
		{"expired", over, mqtt.Message{Topic: "pets/1"}, fault.TokenExpired},
	} {
		b := &broker{}
		d, err := desk(b, nil).Publish(t.Context(), c.client, c.m)
		if c.code == "" {
			if err != nil || d != mqtt.Acknowledged || b.count() != 1 {
				t.Errorf("%s: %q, %v, %d at the broker", c.what, d, err, b.count())
			}
			continue
		}
		if !fault.Is(err, c.code) || b.count() != 0 {
			t.Errorf("%s: %v, want %s; %d at the broker", c.what, err, c.code, b.count())
		}
	}
}

func TestBrokerErrorsPassThrough(t *testing.T) {
	b := &broker{fail: fault.New(fault.UpstreamTimeout, "unknown")}
	if _, err := desk(b, nil).Publish(t.Context(), client("s"), mqtt.Message{Topic: "pets/1"}); !errors.Is(err, b.fail) {
		t.Errorf("got %v", err)
	}
}

func TestTopics(t *testing.T) {
	d := desk(&broker{}, nil)
	for _, good := range []string{"a", "/", "a//b", "$aws/things/x", "a b", "é", strings.Repeat("t", 1024), strings.Repeat("a/", 31) + "a"} {
		if _, err := d.Topic(good); err != nil {
			t.Errorf("%.20q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a/+", "#", "a\x00", "a\x01", "\xff", "$SYS/x", "$aws", "$share/g/a", strings.Repeat("t", 1025), strings.Repeat("a/", 32) + "a"} {
		if _, err := d.Topic(bad); !fault.Is(err, fault.InvalidTopic) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestPublishWire(t *testing.T) {
	b := &broker{}
	d := desk(b, nil)
	two, three, text := 2, 3, "hi"
	if _, err := d.PublishWire(t.Context(), client("s"), &wire.Publish{Topic: "pets/1", Text: &text, QoS: &two, Retain: true}); err != nil {
		t.Fatal(err)
	}
	if m := b.got[0]; m.Topic != "pets/1" || string(m.Payload) != "hi" || m.QoS != 2 || !m.Retain {
		t.Errorf("the broker got %+v", m)
	}
	for code, p := range map[fault.Code]wire.Publish{
		fault.InvalidTopic:   {Topic: "pets/#", Text: &text},
		fault.InvalidPayload: {Topic: "pets/1"},
		fault.BadRequest:     {Topic: "pets/1", Text: &text, QoS: &three},
		fault.NotAuthorized:  {Topic: "plants/1", Text: &text},
	} {
		if _, err := d.PublishWire(t.Context(), client("s"), &p); !fault.Is(err, code) {
			t.Errorf("%+v: %v, want %s", p, err, code)
		}
	}
	if b.count() != 1 {
		t.Errorf("%d messages reached the broker", b.count())
	}
}

// The burst is free, then the rate counts: for each subject by itself, and for
// anonymous clients by address.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		d := desk(&broker{}, func(o *publish.Options) { o.Metrics = reg })
		m := mqtt.Message{Topic: "pets/1"}
		anonymous := func(address string) publish.Client {
			c := client("")
			c.Principal.Anonymous, c.Address = true, address
			return c
		}
		elsewhere := client("a")
		elsewhere.Address = "192.0.2.2"
		take := func(c publish.Client, allowed bool) {
			t.Helper()
			_, err := d.Publish(t.Context(), c, m)
			if allowed && err != nil || !allowed && (!fault.Is(err, fault.RateLimited) || fault.From(err).RetryAfter <= 0) {
				t.Errorf("%q at %s: %v", c.Principal.Subject, c.Address, err)
			}
		}
		for range 3 {
			take(client("a"), true)
			take(anonymous("192.0.2.1"), true)
		}
		take(client("a"), false)
		take(elsewhere, false) // the same subject
		take(client("b"), true)
		take(client("192.0.2.1"), true) // a subject that looks like an address
		take(anonymous("192.0.2.1"), false)
		take(anonymous("192.0.2.2"), true)
		time.Sleep(100 * time.Millisecond) // of the bubble's clock: one more at 10 a second
		take(client("a"), true)
		take(client("a"), false)
		families, err := reg.Gather()
		if err != nil || len(families) != 2 || families[1].GetName() != "flyscreen_publish_rate_limited_total" || families[1].GetMetric()[0].GetCounter().GetValue() != 4 {
			t.Errorf("the metrics are %v, %v", families, err)
		}
	})
}

// A refused message takes nothing from the allowance: a client that asks too often
// still gets its rate.
func TestRefusalsAreFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{}
		d := desk(b, nil)
		for begun := time.Now(); time.Since(begun) < 10*time.Second; time.Sleep(time.Millisecond) {
			_, _ = d.Publish(t.Context(), client("a"), mqtt.Message{Topic: "pets/1"})
		}
		if n := b.count(); n < 101 || n > 104 {
			t.Errorf("%d messages in ten seconds at ten a second", n)
		}
	})
}

// A patient client waits for its turn, but not beyond its context.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{}
		d := desk(b, nil)
		patient := client("a")
		patient.Patience = time.Second
		begun := time.Now()
		for range 8 {
			if _, err := d.Publish(t.Context(), patient, mqtt.Message{Topic: "pets/1"}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took != 500*time.Millisecond {
			t.Errorf("eight messages with a burst of three at ten a second took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := d.Publish(ctx, patient, mqtt.Message{Topic: "pets/1"}); !fault.Is(err, fault.RateLimited) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if b.count() != 8 {
			t.Errorf("%d messages reached the broker", b.count())
		}
		// What was waited for in vain is given back: half of the next one's wait is over.
		begun = time.Now()
		if _, err := d.Publish(t.Context(), patient, mqtt.Message{Topic: "pets/1"}); err != nil || time.Since(begun) > 60*time.Millisecond {
			t.Errorf("the next message waited %s: %v", time.Since(begun), err)
		}
	})
}

// Limiters of clients that left are dropped.
func TestLimitersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := desk(&broker{}, nil)
		m := mqtt.Message{Topic: "pets/1"}
		for range 4 {
			_, _ = d.Publish(t.Context(), client("a"), m)
		}
		time.Sleep(11 * time.Minute)
		_, _ = d.Publish(t.Context(), client("b"), m)
		if n := d.Limiters(); n != 1 {
			t.Errorf("%d limiters are kept", n)
		}
	})
}
