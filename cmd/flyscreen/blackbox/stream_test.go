package blackbox_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// doors are the ways to follow topics, each with a client of its own.
var doors = []string{"sse", "ndjson", "ws"}

// event is one thing that a stream delivered.
type event struct {
	Type     string
	Topic    string
	Retain   bool
	QoS      int
	Cursor   string
	Payload  json.RawMessage
	Text     *string
	Base64   *string
	Granted  []string
	Filters  []string // of a live event on a WebSocket
	Snapshot int
	Complete bool
	Resumed  bool
	Missed   *int
	Reason   string
	Code     int

	Connected bool
	Reconnect bool
	AfterMS   *int `json:"after_ms"`
	Seconds   int
	Hint      string
	Expires   *string
	Stream    string
	ID        int
	Delivery  string
	Subject   string
	Problem   *problem
	Results   []struct {
		Filter  string
		Granted []string
		QoS     int
		Problem *problem
	}

	object string // as it came, with the member type
}

// bytes is a message's payload.
func (e event) bytes(t *testing.T) []byte {
	t.Helper()
	switch {
	case e.Text != nil:
		return []byte(*e.Text)
	case e.Base64 != nil:
		b, err := base64.StdEncoding.DecodeString(*e.Base64)
		if err != nil {
			t.Fatalf("%s: %v", e.Topic, err)
		}
		return b
	}
	return e.Payload
}

// stream is a live subscription held by a client program.
type stream struct {
	door    string
	process *process
	parsed  []event
	lines   int // how many lines of the client went into parsed; one may hold several events, or none
	checked int // how many of parsed were held against the API description
}

// follow opens a stream through a door and waits until it is ready. options are
// added to the query (over a WebSocket: to the subscribe frame).
func (s *site) follow(t *testing.T, door, token string, filters ...string) *stream {
	t.Helper()
	st := s.open(t, door, token, "", filters...)
	st.await(t, "ready", func(all []event) bool { return st.granted(all) != nil })
	return st
}

// followLive is follow that waits for the end of the snapshot too.
func (s *site) followLive(t *testing.T, door, token string, filters ...string) *stream {
	t.Helper()
	st := s.follow(t, door, token, filters...)
	st.await(t, "live", func(all []event) bool { return count(all, "live") > 0 })
	return st
}

// open starts a client and waits for nothing. query is added to the URL of an
// HTTP stream as it is.
func (s *site) open(t *testing.T, door, token, query string, filters ...string) *stream {
	t.Helper()
	env := []string{"TOKEN=" + token}
	target := s.url + "/v1/stream?" + query
	for _, f := range filters {
		target += "&filter=" + url.PathEscape(f) // leaves + as it is, as people type it
	}
	target = strings.Replace(target, "?&", "?", 1)
	st := &stream{door: door}
	switch door {
	case "sse":
		st.process = launch(t, env, "node", "clients/sse.mjs", target)
	case "ndjson":
		args := []string{"-sSN", "-H", "Accept: application/x-ndjson", target}
		if token != "" {
			args = append(args, "-H", "Authorization: Bearer "+token)
		}
		st.process = launch(t, nil, "curl", args...)
	case "ws":
		st.process = launch(t, nil, "node", "clients/ws.mjs", s.webSocketURL(), "flyscreen.v1")
		st.process.send(t, frame("connect", "token", token))
		st.process.send(t, frame("subscribe", "id", 1, "filters", filters))
	default:
		t.Fatalf("no door %q", door)
	}
	return st
}

func (s *site) webSocketURL() string {
	return strings.Replace(s.url, "http://", "ws://", 1) + "/v1/ws"
}

// frame spells a WebSocket frame; members come in pairs, and an empty token is
// left out.
func frame(kind string, members ...any) string {
	o := map[string]any{"type": kind}
	for i := 0; i < len(members); i += 2 {
		if name, _ := members[i].(string); name != "token" || members[i+1] != "" {
			o[name] = members[i+1]
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // the tests' own values
	}
	return string(b)
}

// await waits until done says so of the events so far, and holds what came
// against the API description.
func (st *stream) await(t *testing.T, what string, done func(all []event) bool) []event {
	t.Helper()
	st.process.out.await(t, st.door+": "+what, func(all []string) bool {
		st.parse(t, all)
		return done(st.parsed)
	})
	return st.events(t)
}

// events is what came so far.
func (st *stream) events(t *testing.T) []event {
	t.Helper()
	all, _, _ := st.process.out.snapshot()
	st.parse(t, all)
	schema := "StreamEvent"
	if st.door == "ws" {
		schema = "ServerFrame"
	}
	// Of a stream of very many or very large messages the first ones are checked.
	for ; st.checked < min(len(st.parsed), 120); st.checked++ {
		if object := st.parsed[st.checked].object; object != "" && (len(object) < 32<<10 || st.checked < 20) {
			suite.document.object(t, schema, object)
		}
	}
	return slices.Clip(st.parsed)
}

// parse reads the lines that are new.
func (st *stream) parse(t *testing.T, all []string) {
	t.Helper()
	for _, line := range all[st.lines:] {
		st.lines++
		switch st.door {
		case "sse":
			st.parseSSE(t, line)
		case "ndjson":
			if line != "" {
				st.add(t, line)
			}
		case "ws":
			st.parseFrame(t, line)
		}
	}
}

func (st *stream) parseSSE(t *testing.T, line string) {
	t.Helper()
	var got struct {
		Event, ID, Data string
		Status          int
	}
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("sse client: %q: %v", line, err)
	}
	switch got.Event {
	case "refused":
		st.parsed = append(st.parsed, event{Type: "refused", Code: got.Status})
	case "message":
		st.add(t, got.Data)
		if e := st.parsed[len(st.parsed)-1]; e.Cursor != "" && e.Cursor != got.ID {
			t.Errorf("sse: the event's id is %q, the message's cursor %q", got.ID, e.Cursor)
		}
	default:
		rest, isObject := strings.CutPrefix(got.Data, "{")
		if !isObject || strings.Contains(got.Data, `"type"`) {
			t.Errorf("sse: the data of %s is %q, want an object without type", got.Event, got.Data)
		}
		st.add(t, fmt.Sprintf(`{"type":%q,%s`, got.Event, rest))
	}
}

func (st *stream) parseFrame(t *testing.T, line string) {
	t.Helper()
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "frame":
		if strings.HasPrefix(rest, "[") {
			var batch []json.RawMessage
			if err := json.Unmarshal([]byte(rest), &batch); err != nil {
				t.Fatalf("ws: %s: %v", short([]byte(rest)), err)
			}
			for _, object := range batch {
				st.add(t, string(object))
			}
			return
		}
		st.add(t, rest)
	case "open":
		st.parsed = append(st.parsed, event{Type: "open", Text: &rest})
	case "closed", "refused":
		e := event{Type: kind}
		if _, err := fmt.Sscan(rest, &e.Code); err != nil {
			t.Fatalf("ws client: %q: %v", line, err)
		}
		_, e.Reason, _ = strings.Cut(rest, " ")
		st.parsed = append(st.parsed, e)
	default:
		t.Fatalf("ws client: unexpected %q", line)
	}
}

func (st *stream) add(t *testing.T, object string) {
	t.Helper()
	e := event{object: object}
	if err := json.Unmarshal([]byte(object), &e); err != nil {
		t.Fatalf("%s: %s: %v", st.door, short([]byte(object)), err)
	}
	st.parsed = append(st.parsed, e)
}

// granted is what the stream was granted, nil while it is not open.
func (st *stream) granted(all []event) []string {
	var out []string
	for _, e := range all {
		switch e.Type {
		case "ready":
			return e.Granted
		case "suback":
			for _, r := range e.Results {
				out = append(out, r.Granted...)
			}
		}
	}
	return out
}

// messages waits for n messages and returns all that came.
func (st *stream) messages(t *testing.T, n int) []event {
	t.Helper()
	return pick(st.await(t, fmt.Sprintf("%d messages", n), func(all []event) bool { return count(all, "message") >= n }), "message")
}

// until waits for a message on topic and returns all messages up to it.
func (st *stream) until(t *testing.T, topic string) []event {
	t.Helper()
	onTopic := func(e event) bool { return e.Type == "message" && e.Topic == topic }
	all := pick(st.await(t, "a message on "+topic, func(all []event) bool { return slices.ContainsFunc(all, onTopic) }), "message")
	return all[:slices.IndexFunc(all, onTopic)+1]
}

func pick(all []event, kind string) []event {
	return slices.DeleteFunc(slices.Clone(all), func(e event) bool { return e.Type != kind })
}

func count(all []event, kind string) int {
	n := 0
	for _, e := range all {
		if e.Type == kind {
			n++
		}
	}
	return n
}

// topics lists the messages' topics.
func topics(all []event) []string {
	var out []string
	for _, e := range all {
		out = append(out, e.Topic)
	}
	return out
}

// wantSame compares lists of strings.
func wantSame(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// wantBytes compares payloads; on a mismatch it shows where they part.
func wantBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("%s: %d bytes, want %d; they part at byte %d: got %.60q, want %.60q", what, len(got), len(want), i,
		got[i:min(len(got), i+60)], want[i:min(len(want), i+60)])
}
