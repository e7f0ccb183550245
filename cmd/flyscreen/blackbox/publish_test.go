package blackbox_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// What a device does: one curl line, and the bytes come out of mosquitto_sub.
func TestDevicePostReachesMosquittoSub(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		sub := s.mosquittoSub(t, "sensors/#")
		token := tokenFor(t, "thermometer", grants{Pub: []string{"sensors/temperature"}})
		body := `{"temperature":72.5}`
		out := command(t, nil, "curl", "-sS", "-d", body, "-H", "Authorization: Bearer "+token,
			"-w", `%{http_code} %{content_type}`, s.url+"/v1/topics/sensors/temperature")
		answer, status, _ := strings.Cut(out, "\n")
		if status != "200 application/json" {
			t.Errorf("curl: %s %s", status, answer)
		}
		var p publication
		if err := json.Unmarshal([]byte(answer), &p); err != nil || p != (publication{"sensors/temperature", "acknowledged", 1}) {
			t.Errorf("curl: %s (%v)", answer, err)
		}
		if got := sub.messages(t, 1); !got[0].is("sensors/temperature", []byte(body)) || got[0].qos != 1 {
			t.Errorf("mosquitto_sub got %+v", got)
		}

		// The same device may not publish elsewhere, and nothing of it arrives.
		refused := s.do(t, http.MethodPost, "/v1/topics/sensors/door", token, []byte("open"))
		wantProblem(t, "a topic without a grant", refused, http.StatusForbidden, "not-authorized")
		wantChallenge(t, "a topic without a grant", refused, `error="insufficient_scope"`)
		s.publish(t, token, "sensors/temperature", []byte("last"))
		wantSame(t, "what mosquitto_sub got", receivedTopics(sub.messages(t, 2)), []string{"sensors/temperature", "sensors/temperature"})
	})
}

func receivedTopics(all []received) []string {
	var out []string
	for _, r := range all {
		out = append(out, r.topic)
	}
	return out
}

// The answer says how far each QoS is known to have come.
func TestAnswerSaysHowFarAPublishCame(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := everything(t)
		sub := s.mosquittoSub(t, "said/#")
		for i, want := range []struct {
			query    string
			status   int
			delivery string
			qos      int
		}{
			{"?qos=0", http.StatusAccepted, "sent", 0},
			{"?qos=1", http.StatusOK, "acknowledged", 1},
			{"?qos=2", http.StatusOK, "acknowledged", 2},
			{"", http.StatusOK, "acknowledged", 1},
		} {
			for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
				var body []byte
				if method != http.MethodDelete {
					body = []byte(method)
				}
				a := s.do(t, method, "/v1/topics/said/so"+want.query, token, body)
				var p publication
				if err := json.Unmarshal(a.body, &p); err != nil {
					t.Fatalf("%s %q: %d %s", method, want.query, a.status, short(a.body))
				}
				if a.status != want.status || p != (publication{"said/so", want.delivery, want.qos}) {
					t.Errorf("%s %q: %d %+v, want %d %s", method, want.query, a.status, p, want.status, want.delivery)
				}
			}
			got := sub.messages(t, 3*(i+1))[3*i:]
			for _, r := range got {
				if r.qos != want.qos {
					t.Errorf("%q came out of mosquitto_sub with QoS %d, want %d", want.query, r.qos, want.qos)
				}
			}
		}
	})
}

// Retained state as an HTTP resource.
func TestRetainedStateIsAResource(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := everything(t)
		const path = "/v1/topics/state/door"
		wantProblem(t, "nothing retained", s.do(t, http.MethodGet, path, token, nil), http.StatusNotFound, "not-found")
		if a := s.do(t, http.MethodHead, path, token, nil); a.status != http.StatusNotFound {
			t.Errorf("HEAD of nothing: %d", a.status)
		}
		s.publish(t, token, "state/door", []byte("an event is no state"))
		wantProblem(t, "an event is not retained", s.do(t, http.MethodGet, path, token, nil), http.StatusNotFound, "not-found")

		s.retain(t, token, "state/door", []byte(`{"open":true}`))
		first := s.do(t, http.MethodGet, path, token, nil)
		if first.status != http.StatusOK || string(first.body) != `{"open":true}` || first.header.Get("Content-Type") != "application/json" {
			t.Fatalf("GET: %d %s %s", first.status, first.header.Get("Content-Type"), first.body)
		}
		tag := first.header.Get("ETag")
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if a := s.do(t, method, path, token, nil, "If-None-Match", tag); a.status != http.StatusNotModified || len(a.body) > 0 {
				t.Errorf("%s with the ETag: %d, %d bytes", method, a.status, len(a.body))
			}
			if a := s.do(t, method, path, token, nil, "If-None-Match", `"another"`); a.status != http.StatusOK || a.header.Get("ETag") != tag {
				t.Errorf("%s with another ETag: %d %s", method, a.status, a.header)
			}
		}
		// ?retain=true on POST does what PUT does.
		if a := s.do(t, http.MethodPost, path+"?retain=true", token, []byte("shut")); a.status != http.StatusOK {
			t.Errorf("POST ?retain=true: %d %s", a.status, short(a.body))
		}
		if a := s.do(t, http.MethodGet, path, token, nil, "If-None-Match", tag); a.status != http.StatusOK || string(a.body) != "shut" {
			t.Errorf("after a change: %d %s", a.status, a.body)
		}
		if a := s.do(t, http.MethodDelete, path, token, nil); a.status != http.StatusOK {
			t.Errorf("DELETE: %d %s", a.status, short(a.body))
		}
		wantProblem(t, "cleared", s.do(t, http.MethodGet, path, token, nil), http.StatusNotFound, "not-found")
	})
}

// The list of retained messages is narrowed by the grants and cut at the limit.
func TestListOfRetainedMessages(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		writer := everything(t)
		for _, topic := range []string{"pets/1/status", "pets/2/status", "pets/2/location", "barn/1/status"} {
			s.retain(t, writer, topic, []byte(`"`+topic+`"`))
		}
		list := func(token, query string) ([]string, bool) {
			t.Helper()
			a := s.do(t, http.MethodGet, "/v1/topics?"+query, token, nil)
			var got struct {
				Messages  []event
				Truncated bool
			}
			if err := json.Unmarshal(a.body, &got); a.status != http.StatusOK || err != nil {
				t.Fatalf("%s: %d %s", query, a.status, short(a.body))
			}
			for _, m := range got.Messages {
				if !m.Retain || m.Cursor != "" || string(m.Payload) != `"`+m.Topic+`"` {
					t.Errorf("%s: %+v", query, m)
				}
			}
			names := topics(got.Messages)
			slices.Sort(names)
			return names, got.Truncated
		}
		all, truncated := list(writer, "filter=pets/%23")
		wantSame(t, "pets/#", all, []string{"pets/1/status", "pets/2/location", "pets/2/status"})
		if truncated {
			t.Error("the whole list says that it is truncated")
		}
		// A literal + is the wildcard, and overlapping filters give each message once.
		all, _ = list(writer, "filter=+/+/status&filter=pets/2/%23")
		wantSame(t, "overlapping filters", all, []string{"barn/1/status", "pets/1/status", "pets/2/location", "pets/2/status"})
		if all, truncated = list(writer, "filter=pets/%23&limit=2"); len(all) != 2 || !truncated {
			t.Errorf("limit=2: %q, truncated %v", all, truncated)
		}
		owner := tokenFor(t, "owner", grants{Sub: []string{"pets/2/#"}})
		all, _ = list(owner, "filter=%23")
		wantSame(t, "narrowed", all, []string{"pets/2/location", "pets/2/status"})
		wantProblem(t, "nothing left", s.do(t, http.MethodGet, "/v1/topics?filter=barn/%23", owner, nil), http.StatusForbidden, "not-authorized")
	})
}

// A batch answers for each message, in order, and one's failure is its own.
func TestBatch(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := tokenFor(t, "batcher", grants{Pub: []string{"batch/#"}})
		sub := s.mosquittoSub(t, "#")
		jsonBody := `{"messages":[{"topic":"batch/1","payload":{"a": 1.50}},{"topic":"elsewhere","text":"no"},` +
			`{"topic":"batch/+","text":"no"},{"topic":"batch/2","text":"é","qos":2},{"topic":"batch/3","base64":"AAH/","qos":0,"retain":true}]}`
		lineBody := `{"topic":"batch/1","payload":{"a": 1.50}}` + "\n" + `{"topic":"elsewhere","text":"no"}` + "\n" +
			`{"topic":"batch/+","text":"no"}` + "\n" + `{"topic":"batch/2","text":"é","qos":2}` + "\n" +
			`{"topic":"batch/3","base64":"AAH/","qos":0,"retain":true}` + "\n"
		for i, form := range []struct{ mediaType, body string }{
			{"application/json", jsonBody}, {"application/x-ndjson", lineBody},
		} {
			a := s.do(t, http.MethodPost, "/v1/messages", token, []byte(form.body), "Content-Type", form.mediaType)
			var got struct {
				Results []struct {
					Delivery string
					Problem  *problem
				}
			}
			if err := json.Unmarshal(a.body, &got); a.status != http.StatusOK || err != nil {
				t.Fatalf("%s: %d %s", form.mediaType, a.status, short(a.body))
			}
			var said []string
			for _, r := range got.Results {
				if r.Problem != nil {
					r.Delivery = r.Problem.Code
				}
				said = append(said, r.Delivery)
			}
			wantSame(t, form.mediaType, said, []string{"acknowledged", "not-authorized", "invalid-topic", "acknowledged", "sent"})
			out := sub.messages(t, 3*(i+1))[3*i:]
			slices.SortFunc(out, func(a, b received) int { return strings.Compare(a.topic, b.topic) })
			want := map[string]string{"batch/1": `{"a": 1.50}`, "batch/2": "é", "batch/3": "\x00\x01\xff"}
			for _, r := range out {
				if string(r.payload) != want[r.topic] {
					t.Errorf("%s: mosquitto_sub got %q on %s", form.mediaType, r.payload, r.topic)
				}
			}
		}
	})
}
