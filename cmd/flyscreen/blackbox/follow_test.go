package blackbox_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
)

// What mosquitto_pub says comes out of every kind of stream, and only of those
// whose token covers the topic.
func TestMosquittoPubReachesThoseWhoMayHear(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		one := tokenFor(t, "owner of 1", grants{Sub: []string{"pets/1/#", "news"}})
		two := tokenFor(t, "owner of 2", grants{Sub: []string{"pets/2/#", "news"}})
		type listening struct {
			*stream
			want []string
		}
		var all []listening
		for _, door := range doors {
			first, second := s.followLive(t, door, one, "#"), s.followLive(t, door, two, "pets/#", "news")
			granted := first.granted(first.events(t))
			slices.Sort(granted)
			wantSame(t, door+": granted", granted, []string{"news", "pets/1/#"})
			all = append(all, listening{first, []string{"pets/1/location", "pets/1/é", "news"}},
				listening{second, []string{"pets/2/location", "news"}})
		}
		s.mosquittoPub(t, "pets/1/location", []byte(`{"lat":1}`), "-q", "1")
		s.mosquittoPub(t, "pets/2/location", []byte(`{"lat":2}`), "-q", "1")
		s.mosquittoPub(t, "pets/3/location", []byte(`{"lat":3}`), "-q", "1")
		s.mosquittoPub(t, "pets/1/é", []byte("é"), "-q", "0")
		s.mosquittoPub(t, "news", []byte("last"), "-q", "1") // everybody hears it, so what came before it is all there is
		for _, l := range all {
			wantSame(t, l.door, topics(l.until(t, "news")), l.want)
		}
	})
}

// The retained messages come first, each once whatever the filters, then live,
// then live messages; and streams that are open already hear nothing of it.
func TestSnapshotThenLive(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := everything(t)
		var want []string
		for i := range 20 {
			topic := fmt.Sprintf("pets/%02d/status", i)
			s.mosquittoPub(t, topic, []byte(`{"online":true}`), "-r", "-q", "1")
			want = append(want, topic)
		}
		neighbour := s.followLive(t, "ndjson", token, "pets/#")
		for _, door := range doors {
			st := s.follow(t, door, token, "pets/#", "+/+/status", "pets/07/#")
			before := st.await(t, "the snapshot", func(all []event) bool { return complete(all, 3, door) })
			live := slices.IndexFunc(before, func(e event) bool { return e.Type == "live" })
			got := pick(before, "message")
			names := topics(got)
			slices.Sort(names)
			wantSame(t, door+": the snapshot", names, want)
			for _, m := range got {
				if !m.Retain || m.Cursor != "" {
					t.Errorf("%s: %s", door, m.object)
				}
			}
			if door != "ws" && count(before[live:], "message") > 0 {
				t.Errorf("%s: snapshot messages after live", door)
			}
			if n := snapshotCount(before); n != len(want) {
				t.Errorf("%s: live says %d messages, want %d", door, n, len(want))
			}
			s.publish(t, token, "pets/99/"+door, []byte("now"))
			after := st.until(t, "pets/99/"+door)
			if m := after[len(after)-1]; m.Retain || m.Cursor == "" || len(after) != len(want)+1 {
				t.Errorf("%s: %d messages, the last %s", door, len(after), m.object)
			}
		}
		// The neighbour got its own snapshot and the three live messages, nothing twice.
		if got := neighbour.until(t, "pets/99/ws"); len(got) != len(want)+len(doors) {
			t.Errorf("the neighbour got %d messages, want %d: %q", len(got), len(want)+len(doors), topics(got))
		}
	})
}

// complete reports whether the snapshot of all filters was announced: over HTTP
// by one live event, over a WebSocket perhaps by one a filter.
func complete(all []event, filters int, door string) bool {
	said := 0
	for _, e := range pick(all, "live") {
		if door != "ws" {
			return e.Complete
		}
		said += len(e.Filters)
	}
	return said >= filters
}

func snapshotCount(all []event) int {
	n := 0
	for _, e := range pick(all, "live") {
		n += e.Snapshot
	}
	return n
}

// Without a snapshot nothing retained is sent.
func TestSnapshotCanBeLeftOut(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := everything(t)
		s.retain(t, token, "pets/1/status", []byte("retained"))
		st := s.open(t, "ndjson", token, "snapshot=false", "pets/#")
		st.await(t, "ready", func(all []event) bool { return count(all, "ready") > 0 })
		eventually(t, "a live message arrives", func() bool {
			// Until the subscription stands a message may pass it by.
			s.publish(t, token, "pets/1/now", []byte("live"))
			return count(st.events(t), "message") > 0
		})
		if first := st.messages(t, 1)[0]; first.Topic != "pets/1/now" {
			t.Errorf("first came %s", first.object)
		}
	})
}

// While a topic's state changes all the time, every stream that joins gets one
// state and every later one after it: none lost, none twice. The first may come
// from the snapshot or, where a newer one overtook that, live; the state of a
// topic that is still comes from the snapshot.
func TestJoiningDuringTrafficLosesAndDoublesNothing(t *testing.T) {
	onBoth(t, map[string]any{"limits.publish_rate": 100_000}, func(t *testing.T, s *site) {
		token := everything(t)
		const last = 400
		s.retain(t, token, "counter", []byte("0"))
		s.retain(t, token, "still", []byte("here"))
		var publisher sync.WaitGroup
		half := make(chan struct{})
		publisher.Go(func() {
			halfway := sync.OnceFunc(func() { close(half) })
			defer halfway()
			for i := 1; i <= last; i++ {
				if a := s.do(t, http.MethodPut, "/v1/topics/counter", token, fmt.Appendf(nil, "%d", i)); a.status != http.StatusOK {
					t.Errorf("PUT %d: %d %s", i, a.status, short(a.body))
				}
				if i == last/2 {
					halfway()
				}
			}
		})
		defer publisher.Wait()
		var streams []*stream
		for range 2 {
			for _, door := range doors {
				streams = append(streams, s.open(t, door, token, "", "counter", "+", "still"))
			}
		}
		<-half
		streams = append(streams, s.open(t, "ndjson", token, "", "#"))
		publisher.Wait()
		for _, st := range streams {
			all := pick(st.await(t, "the last state", func(all []event) bool {
				return slices.ContainsFunc(all, func(e event) bool { return string(e.Payload) == fmt.Sprint(last) })
			}), "message")
			got := slices.DeleteFunc(slices.Clone(all), func(e event) bool { return e.Topic != "counter" })
			if still := slices.IndexFunc(all, func(e event) bool { return e.Topic == "still" }); len(all) != len(got)+1 || !all[still].Retain {
				t.Errorf("%s: the topic that is still came %d times: %q", st.door, len(all)-len(got), topics(all)[:min(len(all), 5)])
			}
			for i, m := range got {
				if want := fmt.Sprint(number(t, got[0]) + i); string(m.Payload) != want {
					t.Errorf("%s: message %d is %s, want %s (the first was %s)", st.door, i, m.Payload, want, got[0].Payload)
					break
				}
				if m.Retain && i > 0 {
					t.Errorf("%s: message %d of %d: %s", st.door, i, len(got), m.object)
				}
			}
		}
	})
}

func number(t *testing.T, e event) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(string(e.Payload), &n); err != nil {
		t.Fatalf("%s: %v", e.object, err)
	}
	return n
}
