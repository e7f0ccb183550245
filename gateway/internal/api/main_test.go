package api_test

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"flyscreen/gateway/gatewaytest"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }

// reply is an answer with its body.
type reply struct {
	*http.Response
	body string
}

func do(t *testing.T, g *gatewaytest.Gateway, token, method, path, body string, header ...string) reply {
	t.Helper()
	r, text := g.Do(t, token, method, path, body, header...)
	return reply{r, text}
}

// want checks status and, for a failure, the shape and code of the problem.
func (r reply) want(t *testing.T, what string, status int, code string) {
	t.Helper()
	if r.StatusCode != status {
		t.Errorf("%s: %d %s, want %d %s", what, r.StatusCode, r.body, status, code)
		return
	}
	if code == "" {
		return
	}
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s: content type %q", what, got)
	}
	if r.body == "" && r.Request != nil && r.Request.Method == http.MethodHead {
		return
	}
	var p struct {
		Type, Title, Detail, Code string
		Status                    int
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Errorf("%s: %v: %s", what, err, r.body)
		return
	}
	if p.Code != code || p.Type != "/problems/"+code || p.Status != status || p.Title == "" || p.Detail == "" {
		t.Errorf("%s: %s, want code %s", what, r.body, code)
	}
}

// wantHeld checks what the broker keeps for a topic: nothing if held is "-".
func wantHeld(t *testing.T, g *gatewaytest.Gateway, token, path, held string) {
	t.Helper()
	r := do(t, g, token, http.MethodGet, "/v1/topics/"+path, "")
	if held == "-" {
		r.want(t, "GET "+path, http.StatusNotFound, "not-found")
		return
	}
	if r.StatusCode != http.StatusOK || r.body != held {
		t.Errorf("GET %s: %d %q, want %q", path, r.StatusCode, r.body, held)
	}
}

// dial opens a raw connection to the gateway.
func dial(t *testing.T, g *gatewaytest.Gateway) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(gatewaytest.Patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// send writes lines to conn, each ended by CRLF.
func send(t *testing.T, conn net.Conn, lines ...string) {
	t.Helper()
	if _, err := conn.Write([]byte(strings.Join(lines, "\r\n") + "\r\n")); err != nil {
		t.Fatal(err)
	}
}

// receive reads one answer from conn.
func receive(t *testing.T, conn net.Conn) reply {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	var body strings.Builder
	if _, err := bufio.NewReader(r.Body).WriteTo(&body); err != nil {
		t.Fatal(err)
	}
	return reply{r, body.String()}
}
