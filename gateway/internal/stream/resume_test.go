package stream_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"pgregory.net/rapid"
)

// client follows a/+ and b/+, and notes what it sees.
type client struct {
	t       *rapid.T
	b       *bench
	stream  *stream.Stream
	modes   map[mqtt.Filter]stream.Mode
	whole   map[mqtt.Topic]bool // of these no message may be left out
	sent    map[mqtt.Topic][]uint64
	seen    map[mqtt.Topic][]uint64
	cursor  string
	lowered bool // a cursor was behind its message
	ended   bool
}

var (
	cutFilters = []mqtt.Filter{"a/+", "b/+"}
	cutTopics  = []mqtt.Topic{"a/1", "a/2", "b/1", "b/2"}
	cutModes   = []stream.Mode{
		{},
		{Latest: true},
		{Latest: true, Interval: 40 * time.Millisecond},
		{OnSlow: stream.OnSlowLatest},
	}
)

func newClient(t *rapid.T, b *bench) *client {
	c := &client{
		t: t, b: b,
		modes: map[mqtt.Filter]stream.Mode{}, whole: map[mqtt.Topic]bool{},
		sent: map[mqtt.Topic][]uint64{}, seen: map[mqtt.Topic][]uint64{},
	}
	for _, f := range cutFilters {
		c.modes[f] = rapid.SampledFrom(cutModes).Draw(t, "mode of "+string(f))
	}
	for _, topic := range cutTopics {
		c.whole[topic] = !c.modes[filterOf(topic)].Latest
	}
	c.stream = b.open(reader("#"))
	c.subscribe(hub.Position{}, false, cutFilters...)
	synctest.Wait()
	return c
}

func filterOf(t mqtt.Topic) mqtt.Filter { return mqtt.Filter(t[:2] + "+") }

func (c *client) subscribe(since hub.Position, snapshot bool, filters ...mqtt.Filter) {
	q := stream.Subscription{Since: since}
	for _, f := range filters {
		q.Requests = append(q.Requests, stream.Request{Filter: f, QoS: 1, Snapshot: snapshot, Mode: c.modes[f]})
	}
	o, err := c.stream.Subscribe(c.b.t.Context(), q, func(stream.Outcome) []*wire.Event { return nil })
	if err != nil || since.Given() && !o.Resumed {
		c.t.Fatalf("subscribe since %v: %v %+v", since, err, o)
	}
}

func (c *client) publish(topic mqtt.Topic) {
	c.b.publish(string(topic), "1")
	_, number, _ := strings.Cut(c.b.hub.Cursor(), "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	c.sent[topic] = append(c.sent[topic], seq)
}

// take reads up to max items.
func (c *client) take(max int) {
	for _, item := range c.stream.Take(nil, max) {
		f := item.Frame
		if f == nil {
			c.ended = c.ended || item.Event.Name == stream.EndEvent
			if item.Event.Name != "live" {
				c.t.Fatalf("unexpected %s %s", item.Event.Name, item.Event.Fields)
			}
			continue
		}
		seen := c.seen[f.Topic]
		if len(seen) > 0 && f.Seq <= seen[len(seen)-1] {
			c.t.Fatalf("%s: %d behind %d", f.Topic, f.Seq, seen[len(seen)-1])
		}
		c.seen[f.Topic] = append(seen, f.Seq)
		c.cursor = string(stream.AppendID(nil, f, item.Position))
		c.lowered = c.lowered || item.Position != 0
	}
}

// drain reads until nothing comes any more, not even after a rest.
func (c *client) drain() {
	for range 4 {
		c.take(1000)
		time.Sleep(time.Second)
		synctest.Wait()
	}
	c.take(1000)
}

// comeBack resumes on a new stream from the last cursor and reads all.
func (c *client) comeBack() *client {
	again := *c
	position, err := c.b.hub.ParsePosition(c.cursor)
	if err != nil {
		c.t.Fatal(err)
	}
	again.seen = map[mqtt.Topic][]uint64{}
	again.stream = c.b.open(reader("#"))
	again.subscribe(position, true, cutFilters...)
	return &again
}

// A client may be cut behind any message that it saw and resume from that cursor:
// whatever modes it had and changed to, whatever waited, no topic's newest message
// is missing, and none at all where the mode delivers all.
func TestAnyCutResumesWithoutLoss(t *testing.T) {
	inBubbleWith(t, roomy, func(b *bench) {
		rapid.Check(t, func(t *rapid.T) {
			c := newClient(t, b)
			defer func() { c.stream.Close() }()
			for c.publish("a/1"); c.cursor == ""; time.Sleep(time.Millisecond) {
				c.take(1)
			}
			t.Repeat(map[string]func(*rapid.T){
				"publish": func(t *rapid.T) { c.publish(rapid.SampledFrom(cutTopics).Draw(t, "topic")) },
				"take":    func(t *rapid.T) { c.take(rapid.IntRange(1, 6).Draw(t, "items")) },
				"wait": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 60).Draw(t, "ms")) * time.Millisecond)
					synctest.Wait()
				},
				"change": func(t *rapid.T) {
					if c.stream.Unread() >= 2 { // Subscribe would wait for the reader
						return
					}
					f := rapid.SampledFrom(cutFilters).Draw(t, "filter")
					c.modes[f] = rapid.SampledFrom(cutModes).Draw(t, "mode")
					c.whole[mqtt.Topic(f[:2]+"1")] = c.whole[mqtt.Topic(f[:2]+"1")] && !c.modes[f].Latest
					c.whole[mqtt.Topic(f[:2]+"2")] = c.whole[mqtt.Topic(f[:2]+"2")] && !c.modes[f].Latest
					c.subscribe(hub.Position{}, rapid.Bool().Draw(t, "snapshot"), f)
				},
			})
			again := c.comeBack()
			defer func() { again.stream.Close() }()
			for range rapid.IntRange(0, 5).Draw(t, "later") {
				c.publish(rapid.SampledFrom(cutTopics).Draw(t, "later topic"))
			}
			again.drain()
			compare(t, "resumed", c, again.seen)
			c.drain()
			compare(t, "stayed", c, nil)
		})
	})
}

// compare holds what was sent against what c saw and what the stream brought that
// resumed.
func compare(t *rapid.T, who string, c *client, resumed map[mqtt.Topic][]uint64) {
	for topic, sent := range c.sent {
		got := map[uint64]bool{}
		for _, seq := range append(slices.Clone(c.seen[topic]), resumed[topic]...) {
			if got[seq] && !c.lowered {
				t.Fatalf("%s: %s: %d twice", who, topic, seq)
			}
			got[seq] = true
		}
		for n, seq := range sent {
			if newest := n == len(sent)-1; !got[seq] && (newest || c.whole[topic]) {
				t.Fatalf("%s: %s: %d is missing; sent %v, seen %v, resumed %v from %s, modes %v", who, topic, seq, sent, c.seen[topic],
					slices.Sorted(maps.Keys(got)), c.cursor, c.modes)
			}
		}
	}
}

// What a join held back waits behind newer messages of other topics then; none of
// their cursors may pass it.
func TestCursorDoesNotPassWhatAJoinHeldBack(t *testing.T) {
	inBubbleWith(t, roomy, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a", "b")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		b.subscribe(s, "b") // again, as a change of its mode does
		b.publish("b", "1")
		b.publish("a", "2")
		b.publish("a", "3")
		time.Sleep(time.Second)
		synctest.Wait()
		items := s.Take(nil, 2)
		if got := say(t, items); got != `answer{} a=2` {
			t.Fatalf("got %s", got)
		}
		position, err := b.hub.ParsePosition(string(stream.AppendID(nil, items[1].Frame, items[1].Position)))
		if err != nil {
			t.Fatal(err)
		}
		again := b.open(reader("#"))
		defer again.Close()
		b.ask(again, stream.Subscription{Since: position, Requests: []stream.Request{{Filter: "b", QoS: 1}}})
		b.expect(again, `resumed{} b=1 live{"snapshot":0,"complete":true}`)
	})
}

// A shorter interval, or none, holds from now on, also for topics that rest.
func TestChangedIntervalHoldsAtOnce(t *testing.T) {
	inBubbleWith(t, roomy, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		change := func(mode stream.Mode) {
			b.ask(s, stream.Subscription{Requests: []stream.Request{{Filter: "a", QoS: 1, Mode: mode}}})
		}
		change(stream.Mode{Latest: true, Interval: time.Hour})
		b.publish("a", "1")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true} a=1`)
		b.publish("a", "2")
		b.expect(s, ``)
		change(stream.Mode{Latest: true, Interval: 10 * time.Second})
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		time.Sleep(8 * time.Second)
		b.expect(s, `a=2`)
		b.publish("a", "3")
		b.expect(s, ``)
		change(stream.Mode{OnSlow: stream.OnSlowLatest})
		b.expect(s, `answer{} live{"snapshot":0,"complete":true} a=3`)
	})
}

// A position of before the broker's connection was lost: nobody knows what came
// meanwhile, so the gap is told and the state comes anew. Also when the connection is
// lost while the stream comes back.
func TestResumeOverAReconnect(t *testing.T) {
	for name, during := range map[string]bool{"before": false, "while it comes back": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				keeper := b.open(reader("#")) // so that the filter is held
				defer keeper.Close()
				b.subscribe(keeper, "a/#")
				time.Sleep(time.Second)
				b.publish("a/1", "1")
				position, err := b.hub.ParsePosition(b.hub.Cursor())
				if err != nil {
					t.Fatal(err)
				}
				lost := func() { b.hub.Link(false); b.hub.Link(true); b.retain("a/1", "5"); synctest.Wait() }
				ask := stream.Subscription{Requests: []stream.Request{{Filter: "a/#", QoS: 1, Snapshot: true}}, Since: position}
				s := b.open(reader("#"))
				defer s.Close()
				if !during {
					lost()
					b.ask(s, ask)
					b.expect(s, `answer{} gap{"missed":null,"reason":"upstream"} a/1=5! live{"snapshot":1,"complete":true}`)
					return
				}
				b.ask(s, ask)
				b.expect(s, `resumed{} live{"snapshot":0,"complete":true}`)
				lost()
				b.expect(s, `upstream{"connected":false} upstream{"connected":true} gap{"missed":null,"reason":"upstream"} a/1=5! live{"snapshot":1,"complete":true}`)
			})
		})
	}
}
