package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/outbox"
	"flyscreen/gateway/mqtt"
)

func TestDirectWhileConnected(t *testing.T) {
	box, b, _ := start(t, t.TempDir(), nil, nil)
	b.connect(false)
	publish(t, box, "a", "1", mqtt.Acknowledged)
	if d, err := box.Publish(within(t), mqtt.Message{Topic: "a", Payload: []byte("2")}); err != nil || d != mqtt.Sent {
		t.Errorf("qos 0: %q, %v", d, err)
	}
	if got := b.received(); !slices.Equal(got, []string{"a=1", "a=2"}) {
		t.Errorf("the broker got %v", got)
	}
	if queued, _ := counts(t, box); queued != 0 {
		t.Errorf("%d are kept", queued)
	}
}

func TestQoS0IsNeverKept(t *testing.T) {
	box, _, _ := start(t, t.TempDir(), nil, nil)
	if _, err := box.Publish(within(t), mqtt.Message{Topic: "a"}); !fault.Is(err, fault.UpstreamUnavailable) {
		t.Errorf("got %v", err)
	}
	publish(t, box, "a", "1", mqtt.Queued)
}

// What is kept over a restart comes in order, and what is published during the
// replay stays behind its predecessors.
func TestReplayInOrderAfterARestart(t *testing.T) {
	dir := t.TempDir()
	box, _, stop := start(t, dir, nil, nil)
	const kept, topics = 2000, 3
	var wg sync.WaitGroup
	for topic := range topics {
		wg.Go(func() {
			for i := range kept {
				publish(t, box, fmt.Sprint("t", topic), fmt.Sprint(i), mqtt.Queued)
			}
		})
	}
	wg.Wait()
	stop()

	box, b, _ := start(t, dir, nil, nil)
	if queued, _ := counts(t, box); queued != topics*kept {
		t.Fatalf("%d of %d are there after the restart", queued, topics*kept)
	}
	b.connect(false)
	for i := kept; i < kept+200; i++ {
		for topic := range topics {
			if _, err := box.Publish(within(t), message(fmt.Sprint("t", topic), fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	waitFor(t, "all to be delivered", func() bool { queued, _ := counts(t, box); return queued == 0 })
	next := map[string]int{}
	for _, one := range b.received() {
		topic, payload, _ := strings.Cut(one, "=")
		if payload != fmt.Sprint(next[topic]) {
			t.Fatalf("%s came where %d was due", one, next[topic])
		}
		next[topic]++
	}
	for topic, n := range next {
		if n != kept+200 {
			t.Errorf("%d of %s were delivered", n, topic)
		}
	}
	if b.most < 8 || b.most > 300 {
		t.Errorf("at most %d were under way at once", b.most)
	}
	publish(t, box, "t0", "direct", mqtt.Acknowledged)
}

// Messages that an ended connection leaves unanswered, and those that come at that
// moment, keep their order; nobody is told more than what happened.
func TestConnectionsThatEnd(t *testing.T) {
	dir := t.TempDir()
	var n atomic.Int64
	var b *broker
	var box *outbox.Outbox
	box, b, _ = start(t, dir, func(mqtt.Message) verdict {
		if n.Add(1)%97 == 0 && b.underWay() > 1 { // one that is alone would be to blame
			return die
		}
		return acknowledge
	}, nil)
	b.connect(false)
	const writers, each = 8, 150
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := box.Publish(within(t), message(fmt.Sprint("t", w), fmt.Sprint(i))); err != nil {
					t.Errorf("%d/%d: %v", w, i, err)
				}
			}
		})
	}
	wg.Wait()
	waitFor(t, "all to be delivered", func() bool { queued, _ := counts(t, box); return queued == 0 })
	inOrder(t, b.received(), writers, each)
	if _, quarantined := counts(t, box); quarantined != 0 {
		t.Errorf("%d innocent messages are in quarantine", quarantined)
	}
}

// inOrder checks that each topic's first occurrences are complete and in order.
func inOrder(t *testing.T, got []string, topics, each int) {
	t.Helper()
	first := map[string][]string{}
	seen := map[string]bool{}
	for _, one := range got {
		if !seen[one] {
			seen[one] = true
			topic, payload, _ := strings.Cut(one, "=")
			first[topic] = append(first[topic], payload)
		}
	}
	for topic := range topics {
		payloads := first[fmt.Sprint("t", topic)]
		if len(payloads) != each {
			t.Errorf("topic %d: %d of %d arrived", topic, len(payloads), each)
		}
		for i, p := range payloads {
			if p != fmt.Sprint(i) {
				t.Errorf("topic %d: %s came where %d was due", topic, p, i)
				break
			}
		}
	}
}

// A message for which the broker ends the connection is tried twice at most; its
// neighbours arrive.
func TestPoison(t *testing.T) {
	var tries atomic.Int64
	box, b, _ := start(t, t.TempDir(), func(m mqtt.Message) verdict {
		if string(m.Payload) == "poison" {
			tries.Add(1)
			return die
		}
		return acknowledge
	}, nil)
	for i := range 20 {
		publish(t, box, "t0", fmt.Sprint(i), mqtt.Queued)
		if i == 9 {
			publish(t, box, "bad", "poison", mqtt.Queued)
		}
	}
	b.connect(false)
	waitFor(t, "the quarantine", func() bool { queued, quarantined := counts(t, box); return queued == 0 && quarantined == 1 })
	inOrder(t, b.received(), 1, 20)
	if n := tries.Load(); n != 2 {
		t.Errorf("the poison was tried %d times", n)
	}
	items := settled(t, box)
	if len(items) != 1 || !items[0].Quarantined || string(items[0].Message.Payload) != "poison" || !strings.Contains(items[0].Reason, "closed the connection") {
		t.Fatalf("the list is %+v", items)
	}

	// It can be tried again, and dropped.
	b.face = nil
	if err := box.Retry(within(t), items[0].ID); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its delivery", func() bool { queued, quarantined := counts(t, box); return queued+quarantined == 0 })
	if got := b.received(); got[len(got)-1] != "bad=poison" {
		t.Errorf("the last is %q", got[len(got)-1])
	}
}

// A poison on the direct path harms nobody either.
func TestPoisonDirectly(t *testing.T) {
	box, b, _ := start(t, t.TempDir(), func(m mqtt.Message) verdict {
		if string(m.Payload) == "poison" {
			return die
		}
		return acknowledge
	}, nil)
	b.connect(false)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				if _, err := box.Publish(within(t), message(fmt.Sprint("t", w), fmt.Sprint(i))); err != nil {
					t.Errorf("%d/%d: %v", w, i, err)
				}
			}
		})
	}
	publish(t, box, "bad", "poison", mqtt.Queued)
	wg.Wait()
	waitFor(t, "the quarantine", func() bool { queued, quarantined := counts(t, box); return queued == 0 && quarantined == 1 })
	inOrder(t, b.received(), 4, 50)
}

// A broker that crashes does not put into quarantine what was under way, unless it
// crashes each time that the message is tried.
func TestCrashesAreNoPoison(t *testing.T) {
	var crashes atomic.Int64
	crashed := make(chan struct{}, 100)
	box, b, _ := start(t, t.TempDir(), func(m mqtt.Message) verdict {
		if string(m.Payload) == "x" && crashes.Load() < 3 {
			crashes.Add(1)
			crashed <- struct{}{}
			return hold
		}
		return acknowledge
	}, nil)
	publish(t, box, "a", "x", mqtt.Queued)
	for range 3 {
		b.connect(false)
		<-crashed
		b.cut(errors.New("the broker closed the connection"))
	}
	b.connect(false)
	waitFor(t, "its delivery", func() bool { queued, _ := counts(t, box); return queued == 0 })
	if _, quarantined := counts(t, box); quarantined != 0 {
		t.Error("it is in quarantine")
	}

	crashes.Store(-100)
	b.cut(errors.New("test"))
	publish(t, box, "a", "x", mqtt.Queued)
	n := 0
	for {
		b.connect(false)
		if _, quarantined := counts(t, box); quarantined == 1 {
			break
		}
		<-crashed
		b.cut(errors.New("the broker closed the connection"))
		n++
	}
	if n < 5 || n > 10 {
		t.Errorf("it took %d crashes", n)
	}
}

// A broker that answers too late: the message is kept, and not sent again when the
// answer comes after all.
func TestAnswerAfterTheDeadline(t *testing.T) {
	var holding atomic.Bool
	holding.Store(true)
	box, b, _ := start(t, t.TempDir(), func(mqtt.Message) verdict {
		if holding.Load() {
			return hold
		}
		return acknowledge
	}, nil)
	b.connect(false)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if d, err := box.Publish(ctx, message("a", "1")); err != nil || d != mqtt.Queued {
		t.Fatalf("%q, %v", d, err)
	}
	if queued, _ := counts(t, box); queued != 1 {
		t.Errorf("%d are kept", queued)
	}
	holding.Store(false)
	b.judge(mqtt.Message{}, 0)
	waitFor(t, "nothing to be kept", func() bool { queued, _ := counts(t, box); return queued == 0 })
	publish(t, box, "a", "2", mqtt.Acknowledged)
	if got := b.received(); !slices.Equal(got, []string{"a=1", "a=2"}) {
		t.Errorf("the broker got %v", got)
	}
}

func TestBounds(t *testing.T) {
	box, b, _ := start(t, t.TempDir(), nil, func(o *outbox.Options) { o.MaxBytes = 10_000 })
	taken := 0
	for {
		_, err := box.Publish(within(t), message("a", strings.Repeat("x", 900)))
		if err != nil {
			if !fault.Is(err, fault.Overloaded) || fault.From(err).RetryAfter <= 0 {
				t.Errorf("got %v", err)
			}
			break
		}
		taken++
	}
	if taken != 10 {
		t.Errorf("%d messages of 900 bytes went into 10,000", taken)
	}
	b.connect(false)
	waitFor(t, "room", func() bool { queued, _ := counts(t, box); return queued == 0 })
	b.cut(errors.New("test"))
	publish(t, box, "a", "x", mqtt.Queued)
}

func TestDropAndShow(t *testing.T) {
	dir := t.TempDir()
	box, _, stop := start(t, dir, nil, nil)
	for i := range 3 {
		publish(t, box, "a", fmt.Sprint(i), mqtt.Queued)
	}
	items, queued, _, err := box.List(2)
	if err != nil || len(items) != 2 || queued != 3 {
		t.Fatalf("%+v, %d, %v", items, queued, err)
	}
	if err := box.Drop(within(t), items[1].ID); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{box.Drop(within(t), items[1].ID), func() error { _, err := box.Show(items[1].ID); return err }()} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("got %v", err)
		}
	}
	if err := box.Retry(within(t), items[0].ID); !fault.Is(err, fault.BadRequest) {
		t.Errorf("got %v", err)
	}
	one, err := box.Show(items[0].ID)
	if err != nil || string(one.Message.Payload) != "0" || one.Quarantined {
		t.Errorf("%+v, %v", one, err)
	}
	stop()
	box, b, _ := start(t, dir, nil, nil)
	b.connect(false)
	waitFor(t, "delivery", func() bool { queued, _ := counts(t, box); return queued == 0 })
	if got := b.received(); !slices.Equal(got, []string{"a=0", "a=2"}) {
		t.Errorf("the broker got %v", got)
	}
}

func TestExpiry(t *testing.T) {
	box, b, _ := start(t, t.TempDir(), nil, func(o *outbox.Options) { o.MaxAge = time.Nanosecond })
	publish(t, box, "a", "old", mqtt.Queued)
	box.Expire()
	waitFor(t, "the quarantine", func() bool { queued, quarantined := counts(t, box); return queued == 0 && quarantined == 1 })
	if items := settled(t, box); len(items) != 1 || !strings.Contains(items[0].Reason, "waited for longer") {
		t.Errorf("the list is %+v", items)
	}
	b.connect(false)
	publish(t, box, "a", "new", mqtt.Acknowledged)
	if got := b.received(); !slices.Equal(got, []string{"a=new"}) {
		t.Errorf("the broker got %v", got)
	}
}

// A key is remembered with its message, over a restart.
func TestAnswersSurvive(t *testing.T) {
	dir := t.TempDir()
	box, b, stop := start(t, dir, nil, nil)
	queuedKey, directKey, request := [32]byte{1}, [32]byte{2}, [32]byte{9}
	if d, err := box.PublishOnce(within(t), message("a", "1"), queuedKey, request); err != nil || d != mqtt.Queued {
		t.Fatalf("%q, %v", d, err)
	}
	b.connect(false)
	waitFor(t, "delivery", func() bool { queued, _ := counts(t, box); return queued == 0 })
	if d, err := box.PublishOnce(within(t), message("a", "2"), directKey, request); err != nil || d != mqtt.Acknowledged {
		t.Fatalf("%q, %v", d, err)
	}
	stop()
	box, _, _ = start(t, dir, nil, nil)
	for key, want := range map[[32]byte]mqtt.Delivery{queuedKey: mqtt.Queued, directKey: mqtt.Acknowledged} {
		if r, d, at, ok := box.Recall(key); !ok || d != want || r != request || time.Since(at) > time.Minute {
			t.Errorf("%v: %v %q %v %v", key[0], r, d, at, ok)
		}
	}
	if _, _, _, ok := box.Recall([32]byte{3}); ok {
		t.Error("a key that was never used is remembered")
	}
}
