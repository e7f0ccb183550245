package stream

import (
	"fmt"
	"testing"
	"time"

	"flyscreen/gateway/mqtt"

	"pgregory.net/rapid"
)

// latest against its promises: the newest of each topic, none twice and none older;
// at most one in an interval; topics that are due take turns, so that none is passed
// by twice; and never more than the bounds.
func TestLatestKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		interval := time.Duration(rapid.SampledFrom([]int{0, 50, 1000}).Draw(t, "interval")) * time.Millisecond
		l := &latest{maxTopics: rapid.IntRange(3, 12).Draw(t, "topics"), maxBytes: 1 << 20}
		now, seq := time.Unix(1000, 0), 0
		newest := map[mqtt.Topic]uint64{} // that wait
		given := map[mqtt.Topic]time.Time{}
		turns := map[mqtt.Topic]int{} // of others, since it was due
		dropped := 0
		take := func() {
			f := l.take(now, uint64(seq))
			if newest[f.Topic] != f.Seq {
				t.Fatalf("%s: gave %d, the newest is %d", f.Topic, f.Seq, newest[f.Topic])
			}
			if before, was := given[f.Topic]; was && now.Sub(before) < interval && dropped == 0 && len(l.slots) < l.maxTopics {
				t.Fatalf("%s: again after %s", f.Topic, now.Sub(before))
			}
			if turns[f.Topic] > 12 {
				t.Fatalf("%s waited for %d others", f.Topic, turns[f.Topic])
			}
			delete(newest, f.Topic)
			delete(turns, f.Topic)
			given[f.Topic] = now
			for topic := range newest {
				if now.Sub(given[topic]) >= interval {
					turns[topic]++
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				seq++
				f := topicFrame(fmt.Sprint(rapid.IntRange(0, 11).Draw(t, "topic")), seq)
				newest[f.Topic] = f.Seq
				n := l.push(f, interval, now)
				if dropped += n; n > 0 {
					for topic := range newest {
						if !l.waits(topic) {
							delete(newest, topic)
							n--
						}
					}
				}
				if n != 0 {
					t.Fatalf("the number of those that were dropped is wrong by %d", n)
				}
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 1200).Draw(t, "ms")) * time.Millisecond)
			},
			"take": func(*rapid.T) {
				if l.ready(now) {
					take()
				}
			},
			"": func(t *rapid.T) {
				if l.dirty != len(newest) || len(l.slots) > l.maxTopics {
					t.Fatalf("%d wait, want %d; %d topics", l.dirty, len(newest), len(l.slots))
				}
				for topic, s := range newest {
					if !l.waits(topic) || l.floor >= s {
						t.Fatalf("%s: %d waits, and the floor is %d", topic, s, l.floor)
					}
				}
			},
		})
		for now = now.Add(time.Hour); l.ready(now); now = now.Add(time.Hour) {
			take()
		}
		if len(newest) > 0 {
			t.Fatalf("left behind: %v", newest)
		}
	})
}
