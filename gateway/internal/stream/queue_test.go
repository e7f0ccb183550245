package stream

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"pgregory.net/rapid"
)

func frame(n int) *hub.Frame { return topicFrame("t", n) }

func topicFrame(topic string, n int) *hub.Frame {
	return &hub.Frame{Topic: mqtt.Topic(topic), Seq: uint64(n), JSON: fmt.Appendf(nil, `{"n":%d}`, n)}
}

// retained is a snapshot's frame.
func retained(n int) *hub.Frame { return &hub.Frame{JSON: fmt.Appendf(nil, `{"n":%d}`, n)} }

// push makes room as on_slow=gap does.
func (q *queue) push(f *hub.Frame) {
	for q.full(f) {
		q.dropOldest()
	}
	q.pushFrame(f)
}

func (q *queue) takeItems(max int) []Item {
	return q.take(nil, budget{items: max, bytes: math.MaxInt}, time.Now(), 0, 0)
}

// say spells items shortly: m7 a live message, s7 one of a snapshot, e:name an
// event, gap:3 a gap.
func say(items []Item) (all []string) {
	for _, i := range items {
		switch {
		case i.Frame != nil && i.Frame.Seq == 0:
			all = append(all, "s"+number(i.Frame))
		case i.Frame != nil:
			all = append(all, "m"+number(i.Frame))
		case i.Event.Name == "gap":
			var g wire.Gap
			_ = json.Unmarshal(i.Event.Fields, &g)
			all = append(all, "gap:"+strconv.Itoa(*g.Missed))
		default:
			all = append(all, "e:"+i.Event.Name)
		}
	}
	return all
}

func number(f *hub.Frame) string { return strings.Trim(string(f.JSON), `{"n:}`) }

func expect(t *testing.T, q *queue, max int, want ...string) {
	t.Helper()
	got := say(q.takeItems(max))
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func event(name string) *wire.Event { return &wire.Event{Name: name, Fields: []byte("{}")} }

func TestQueueKeepsOrder(t *testing.T) {
	q := &queue{maxFrames: 10, maxBytes: 1000}
	q.pushEvent(event("ready"), nil)
	q.pushBatch([]*hub.Frame{retained(1), retained(2)})
	q.pushEvent(event("live"), nil)
	q.push(frame(1))
	q.pushEvent(event("upstream"), nil)
	q.push(frame(2))
	expect(t, q, 2, "e:ready", "s1")
	expect(t, q, 100, "s2", "e:live", "m1", "e:upstream", "m2")
	expect(t, q, 100)
	if len(q.ring) > len(q.few) || q.controls != nil {
		t.Error("an empty queue holds buffers")
	}
}

func TestQueueTellsTheGapWhereItIs(t *testing.T) {
	q := &queue{maxFrames: 3, maxBytes: 1000}
	q.pushEvent(event("live"), nil)
	for n := 1; n <= 5; n++ {
		q.push(frame(n))
	}
	q.pushEvent(event("upstream"), nil)
	q.push(frame(6))
	expect(t, q, 100, "e:live", "gap:3", "m4", "m5", "e:upstream", "m6")
}

func TestQueueBoundsBytesButKeepsOne(t *testing.T) {
	q := &queue{maxFrames: 100, maxBytes: 20} // two frames of 7 bytes
	for n := 1; n <= 4; n++ {
		q.push(frame(n))
	}
	expect(t, q, 100, "gap:2", "m3", "m4")
	q.maxBytes = 1
	q.push(frame(5))
	q.push(frame(6))
	expect(t, q, 100, "gap:1", "m6")
}

// Whatever is pushed and taken: messages come in order, and the gaps' counts are
// exactly the messages that do not come, at their place.
func TestQueueLosesNothingSilently(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &queue{maxFrames: rapid.IntRange(1, 6).Draw(t, "frames"), maxBytes: rapid.IntRange(5, 60).Draw(t, "bytes")}
		pushed, next, events, seenEvents := 0, 1, 0, 0
		read := func(items []Item) {
			for _, i := range items {
				switch {
				case i.Frame != nil && int(i.Frame.Seq) != next:
					t.Fatalf("got message %d, expected %d", i.Frame.Seq, next)
				case i.Frame != nil:
					next++
				case i.Event.Name == "gap":
					var g wire.Gap
					if err := json.Unmarshal(i.Event.Fields, &g); err != nil {
						t.Fatal(err)
					}
					next += *g.Missed
				default:
					if i.Event.Name != strconv.Itoa(seenEvents) {
						t.Fatalf("got event %s, expected %d", i.Event.Name, seenEvents)
					}
					seenEvents++
				}
			}
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				q.pushEvent(event(strconv.Itoa(events)), nil)
				events++
			case 1:
				read(q.takeItems(rapid.IntRange(1, 8).Draw(t, "take")))
			default:
				pushed++
				q.push(frame(pushed))
			}
			if q.tail-q.head > q.maxFrames {
				t.Fatalf("%d messages wait", q.tail-q.head)
			}
		}
		read(q.takeItems(1 << 20))
		if next != pushed+1 || seenEvents != events || q.bytes != 0 {
			t.Fatalf("at message %d of %d, event %d of %d, %d bytes", next, pushed+1, seenEvents, events, q.bytes)
		}
	})
}
