package stream_test

import (
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
)

// denied is a reader with a rule that takes something away.
func denied(rule mqtt.Filter, grants ...mqtt.Filter) auth.Principal {
	p := reader(grants...)
	p.Grants.Deny = []mqtt.Filter{rule}
	return p
}

// What a rule denies inside a granted wildcard comes by none of the ways: live, in
// a snapshot, kept aside during one, as a gap, or when the client resumes.
func TestDeniedMessagesNeverCome(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/open", "1")
		b.retain("a/secret", "2")
		b.broker.set(func() {
			b.broker.during = func() {
				b.publish("a/secret", "3")
				b.publish("a/open", "4")
			}
		})
		s := b.open(denied("a/secret", "a/#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} a/open=1! live{"snapshot":1,"complete":true} a/open=4`)
		before := b.hub.Cursor()
		b.publish("a/secret", "5")
		b.publish("a/open", "6")
		b.hub.Missed("a/secret")
		for range 5 { // more than the queue holds
			b.publish("a/secret", "7")
		}
		b.expect(s, `a/open=6`)
		b.hub.Missed("a/open")
		b.expect(s, `gap{"missed":1,"reason":"upstream"}`)

		position, err := b.hub.ParsePosition(before)
		if err != nil {
			t.Fatal(err)
		}
		again := b.open(denied("a/secret", "a/#"))
		defer again.Close()
		b.ask(again, stream.Subscription{Requests: []stream.Request{{Filter: "a/#", QoS: 1, Snapshot: true}}, Since: position})
		b.expect(again, `resumed{} a/open=6 gap{"missed":1,"reason":"upstream"} live{"snapshot":0,"complete":true}`)
	})
}

func TestDeniedMessagesNeverComeConflated(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(denied("a/secret", "a/#"))
		defer s.Close()
		b.ask(s, stream.Subscription{Requests: []stream.Request{{Filter: "a/#", Mode: stream.Mode{Latest: true, Interval: time.Second}}}})
		b.publish("a/secret", "1")
		b.publish("a/open", "2")
		b.publish("a/open", "3")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true} a/open=3`)
	})
}
