package gatewaytest

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"
)

// Line is one object of a stream, with the members that tests look at.
type Line struct {
	Type      string          `json:"type"`
	Topic     string          `json:"topic"`
	Payload   json.RawMessage `json:"payload"`
	Text      *string         `json:"text"`
	Base64    *string         `json:"base64"`
	QoS       byte            `json:"qos"`
	Retain    bool            `json:"retain"`
	Time      string          `json:"time"`
	Cursor    *string         `json:"cursor"`
	Stream    string          `json:"stream"`
	Granted   []string        `json:"granted"`
	Expires   *string         `json:"expires"`
	Resumed   bool            `json:"resumed"`
	Hint      string          `json:"hint"`
	Snapshot  int             `json:"snapshot"`
	Complete  bool            `json:"complete"`
	Missed    *int            `json:"missed"`
	Seconds   int             `json:"seconds"`
	Code      int             `json:"code"`
	Reason    string          `json:"reason"`
	Reconnect bool            `json:"reconnect"`
	AfterMS   int             `json:"after_ms"`
	Raw       string          `json:"-"`
}

// ParseLine reads one object.
func ParseLine(t testing.TB, raw string) Line {
	t.Helper()
	l := Line{Raw: raw}
	if err := json.Unmarshal([]byte(raw), &l); err != nil {
		t.Fatalf("%v: %q", err, raw)
	}
	return l
}

// Bytes is the payload of a message.
func (l Line) Bytes(t testing.TB) []byte {
	t.Helper()
	switch {
	case l.Payload != nil:
		return l.Payload
	case l.Text != nil:
		return []byte(*l.Text)
	case l.Base64 == nil:
		t.Fatalf("this holds no payload: %s", l.Raw)
	}
	b, err := base64.StdEncoding.DecodeString(*l.Base64)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Stream is an NDJSON stream.
type Stream struct {
	t    testing.TB
	scan *bufio.Scanner
	// Close ends it; the end of the test does that too.
	Close func()
}

// Follow opens a stream with the query and returns when it is live, without what
// came before.
func (g *Gateway) Follow(t testing.TB, token, query string) *Stream {
	t.Helper()
	s := g.Open(t, token, query)
	s.Until("live")
	return s
}

// Open opens a stream with the query.
func (g *Gateway) Open(t testing.TB, token, query string) *Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL()+"/v1/stream?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/x-ndjson")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(r) //nolint:bodyclose // Close does
	if err != nil {
		t.Fatal(err)
	}
	s := &Stream{t: t, scan: bufio.NewScanner(answer.Body), Close: func() {
		cancel()
		_ = answer.Body.Close()
	}}
	t.Cleanup(s.Close)
	s.scan.Buffer(nil, 16<<20)
	if answer.StatusCode != http.StatusOK {
		s.scan.Scan()
		t.Fatalf("the stream %s was refused: %s %s", query, answer.Status, s.scan.Text())
	}
	return s
}

// Retain keeps payload at the broker and returns when it has gone out to those who
// are subscribed: a broker may acknowledge before that, so a stream that comes at
// once may get it as a live message.
func (g *Gateway) Retain(t testing.TB, topic, payload string) {
	t.Helper()
	witness := g.Follow(t, All(t), "snapshot=false&filter="+topic)
	defer witness.Close()
	if answer, body := g.Do(t, All(t), http.MethodPut, "/v1/topics/"+topic, payload); answer.StatusCode != http.StatusOK { //nolint:bodyclose // Do has read it
		t.Fatalf("retain at %s: %s %s", topic, answer.Status, body)
	}
	witness.Next()
}

// Next is the next object.
func (s *Stream) Next() Line {
	s.t.Helper()
	for s.scan.Scan() {
		if raw := s.scan.Text(); raw != "" { // an empty line is the heartbeat
			return ParseLine(s.t, raw)
		}
	}
	s.t.Fatalf("the stream ended: %v", s.scan.Err())
	return Line{}
}

// Until is what comes up to the first object of that type, with it.
func (s *Stream) Until(kind string) (all []Line) {
	s.t.Helper()
	for {
		l := s.Next()
		all = append(all, l)
		if l.Type == kind {
			return all
		}
	}
}
