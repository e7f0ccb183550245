package blackbox_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
)

// The tracker of a pet-tracking guide, on npm's mqtt and straight at the broker:
// a dashboard sees its retained status, its positions and, when it dies, its last
// will, and what the dashboard commands it does.
func TestPetTracker(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		owner := tokenFor(t, "rex's owner", grants{Pub: []string{"pets/rex/commands/#"}, Sub: []string{"pets/rex/#"}})
		early := map[string]*stream{}
		for _, door := range doors {
			early[door] = s.followLive(t, door, owner, "pets/#")
		}
		tracker := launch(t, nil, "node", "clients/tracker.mjs", "mqtt://127.0.0.1:"+s.mqttPort, "rex")
		tracker.out.await(t, "the tracker is online", func(all []string) bool { return slices.Contains(all, "online") })

		// Who comes later finds the status retained.
		late := s.follow(t, "sse", owner, "pets/rex/status")
		if m := late.messages(t, 1)[0]; !m.Retain || !online(t, m) {
			t.Errorf("a stream that came later got %s", m.object)
		}
		for door, st := range early {
			all := pick(st.await(t, "a status and three positions", func(all []event) bool {
				return countTopic(all, "pets/rex/status") == 1 && countTopic(all, "pets/rex/location") >= 3
			}), "message")
			step := 0
			for _, m := range all {
				if m.Topic != "pets/rex/location" {
					continue
				}
				var at struct {
					Lat, Lng float64
					Step     int
				}
				if err := json.Unmarshal(m.Payload, &at); err != nil || at.Lat == 0 || at.Lng == 0 || at.Step != step+1 {
					t.Errorf("%s: after step %d came %s (%v)", door, step, m.object, err)
				}
				step = at.Step
			}
		}
		s.publish(t, owner, "pets/rex/commands/sound", []byte(`{"sound":"beep"}`))
		for door, st := range early {
			all := st.until(t, "pets/rex/events")
			if got := string(all[len(all)-1].Payload); got != `{"played":"beep","at":"pets/rex/commands/sound"}` {
				t.Errorf("%s: the tracker answered %s", door, got)
			}
		}

		tracker.kill()
		for door, st := range early {
			all := pick(st.await(t, "the last will", func(all []event) bool { return countTopic(all, "pets/rex/status") == 2 }), "message")
			last := slices.IndexFunc(all, func(e event) bool { return e.Topic == "pets/rex/status" && !online(t, e) })
			if last < 0 {
				t.Errorf("%s: no status says that the tracker is gone", door)
			}
		}
		if a := s.do(t, http.MethodGet, "/v1/topics/pets/rex/status", owner, nil); string(a.body) != `{"online":false}` {
			t.Errorf("the retained status: %d %s", a.status, a.body)
		}
		s.wantUnharmed(t)
	})
}

func online(t *testing.T, e event) bool {
	t.Helper()
	var status struct{ Online bool }
	if err := json.Unmarshal(e.Payload, &status); err != nil {
		t.Fatalf("%s: %v", e.object, err)
	}
	return status.Online
}

func countTopic(all []event, topic string) int {
	n := 0
	for _, e := range all {
		if e.Type == "message" && e.Topic == topic {
			n++
		}
	}
	return n
}
