package hub

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"flyscreen/gateway/mqtt"

	"pgregory.net/rapid"
)

// The window against a list: what it gives is what came in between, all of it, or
// it says that something is not there any more; and it keeps its bounds.
func TestWindowLikeAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &window{
			maxAge:   time.Duration(rapid.IntRange(1, 60).Draw(t, "seconds")) * time.Second,
			maxBytes: rapid.IntRange(300, 60_000).Draw(t, "bytes"),
		}
		var all []*Frame
		now, seq := time.Unix(1000, 0), uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				for range rapid.IntRange(1, 30).Draw(t, "messages") {
					now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "ms")) * time.Millisecond)
					seq += uint64(rapid.IntRange(1, 3).Draw(t, "step")) // others take numbers too
					topic := mqtt.Topic(fmt.Sprintf("t/%d", rapid.IntRange(0, 3).Draw(t, "topic")))
					f := NewFrame(mqtt.Message{Topic: topic, Payload: make([]byte, rapid.IntRange(0, 200).Draw(t, "size")), Time: now}, "e", seq)
					w.add(f)
					all = append(all, f)
				}
			},
			"": func(t *rapid.T) {
				kept, bytes := w.holds()
				if bytes > w.maxBytes || kept > len(all) {
					t.Fatalf("%d messages of %d bytes", kept, bytes)
				}
				sum := 0
				for _, f := range all[len(all)-kept:] {
					sum += f.size()
					if now.Sub(f.received) > w.maxAge {
						t.Fatalf("%d is %s old", f.Seq, now.Sub(f.received))
					}
				}
				if sum != bytes {
					t.Fatalf("%d bytes, said to be %d", sum, bytes)
				}
				if kept < len(all) { // not less than it may
					gone := all[len(all)-kept-1]
					if sum+gone.size() <= w.maxBytes && now.Sub(gone.received) <= w.maxAge {
						t.Fatalf("%d is gone without need", gone.Seq)
					}
				}
				from := rapid.Uint64Range(0, seq).Draw(t, "from")
				to := rapid.Uint64Range(from, seq).Draw(t, "to")
				got, ok := w.between(from, to, func(f *Frame) bool { return f.Topic != "t/0" })
				first := len(all) - kept // of those that are kept
				if complete := first == 0 || all[first-1].Seq <= from; ok != complete {
					t.Fatalf("from %d: ok %v", from, ok)
				}
				want := slices.DeleteFunc(slices.Clone(all), func(f *Frame) bool {
					return f.Seq <= from || f.Seq > to || f.Topic == "t/0"
				})
				if ok && !slices.Equal(got, want) {
					t.Fatalf("from %d to %d: %d messages, want %d", from, to, len(got), len(want))
				}
			},
		})
	})
}
