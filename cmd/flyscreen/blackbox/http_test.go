package blackbox_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answer is an HTTP response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends one request. path is what stands in the request line, escapes and
// all; token "" is anonymous; headers are pairs.
func (s *site) do(t *testing.T, method, path, token string, body []byte, headers ...string) answer {
	t.Helper()
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	r, err := http.NewRequest(method, s.url+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := suite.document.client(t).Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return read(t, res)
}

func read(t *testing.T, res *http.Response) answer {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	return answer{res.StatusCode, res.Header, body}
}

// raw sends bytes that no HTTP client would and reads the answer. r is what the
// request means, for holding the answer against the API description.
func (s *site) raw(t *testing.T, request string, method, path string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	// Says that no more will come, so that a body that is cut short is seen to be.
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(method, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatalf("reading the answer to %.200q: %v", request, err)
	}
	suite.document.check(t, r, nil, res)
	return read(t, res)
}

// problem is the body of a failure.
type problem struct {
	Type, Title, Detail, Code string
	Status                    int
}

// wantProblem checks a refusal: status, code, and the media type of problems.
func wantProblem(t *testing.T, what string, a answer, status int, code string) problem {
	t.Helper()
	var p problem
	if a.status != status {
		t.Errorf("%s: status %d, want %d: %s", what, a.status, status, short(a.body))
		return p
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s: Content-Type %q, want application/problem+json", what, got)
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Errorf("%s: the body is no problem: %v: %s", what, err, short(a.body))
		return p
	}
	if p.Code != code || p.Status != status || p.Type != "/problems/"+code {
		t.Errorf("%s: %+v, want code %s and status %d", what, p, code, status)
	}
	if p.Detail == "" || p.Title == "" {
		t.Errorf("%s: no title or no detail: %+v", what, p)
	}
	return p
}

// wantChallenge checks the WWW-Authenticate header (RFC 6750 section 3); parts
// must all be in it.
func wantChallenge(t *testing.T, what string, a answer, parts ...string) {
	t.Helper()
	got := a.header.Get("WWW-Authenticate")
	if !strings.HasPrefix(got, "Bearer ") {
		t.Errorf("%s: WWW-Authenticate %q, want a Bearer challenge", what, got)
	}
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%s: WWW-Authenticate %q, want %s in it", what, got, p)
		}
	}
}

// publication is the answer to a publish.
type publication struct {
	Topic, Delivery string
	QoS             int
}

// publish publishes and wants the broker's acknowledgement.
func (s *site) publish(t *testing.T, token, topic string, payload []byte) {
	t.Helper()
	s.publishAs(t, http.MethodPost, token, topic, payload)
}

// retain publishes retained state and wants the broker's acknowledgement.
func (s *site) retain(t *testing.T, token, topic string, payload []byte) {
	t.Helper()
	s.publishAs(t, http.MethodPut, token, topic, payload)
}

func (s *site) publishAs(t *testing.T, method, token, topic string, payload []byte) {
	t.Helper()
	a := s.do(t, method, "/v1/topics/"+topic, token, payload)
	var p publication
	if err := json.Unmarshal(a.body, &p); a.status != http.StatusOK || err != nil || p.Delivery != "acknowledged" {
		t.Fatalf("%s %s: %d %s", method, topic, a.status, short(a.body))
	}
}

// metric reads the value of one line of /metrics, the text before the value as
// Prometheus writes it, and adds up the lines that begin with it.
func (s *site) metric(t *testing.T, name string) float64 {
	t.Helper()
	a := s.do(t, http.MethodGet, "/metrics", "", nil)
	if a.status != http.StatusOK {
		t.Fatalf("/metrics: %d %s", a.status, short(a.body))
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(a.body)) {
		if !strings.HasPrefix(line, name) {
			continue
		}
		var value float64
		if err := json.Unmarshal([]byte(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:])), &value); err != nil {
			t.Fatalf("/metrics: %q: %v", line, err)
		}
		sum, found = sum+value, true
	}
	if !found {
		t.Fatalf("/metrics has no %s", name)
	}
	return sum
}

// wantUnharmed checks that the gateway never lost its connections to the broker.
func (s *site) wantUnharmed(t *testing.T) {
	t.Helper()
	if n := s.metric(t, "flyscreen_upstream_connection_losses_total"); n != 0 {
		t.Errorf("the gateway lost its broker connection %v times", n)
	}
}
