package sse_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"flyscreen/gateway/gatewaytest"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }

// event is what an EventSource makes of the bytes.
type event struct {
	name, data, id string
}

// client reads server-sent events as the HTML standard says (section 9.2.6).
type client struct {
	t        *testing.T
	answer   *http.Response
	r        *bufio.Reader
	lastID   string
	comments int
	lf       bool // a LF that comes next belongs to a CR
	close    func()
}

// open asks for a stream; status 200 is the caller's to check.
func open(t *testing.T, g *gatewaytest.Gateway, h *http.Client, token, query string, header ...string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), gatewaytest.Patience)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL()+"/v1/stream?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	answer, err := h.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, answer: answer, r: bufio.NewReader(answer.Body), close: func() {
		cancel()
		_ = answer.Body.Close()
	}}
	t.Cleanup(c.close)
	return c
}

// follow opens a stream that must be granted.
func follow(t *testing.T, g *gatewaytest.Gateway, token, query string, header ...string) *client {
	t.Helper()
	c := open(t, g, http.DefaultClient, token, query, header...)
	if c.answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(c.r)
		t.Fatalf("%s: %s %s", query, c.answer.Status, text)
	}
	return c
}

// line reads up to CR, LF or CRLF.
func (c *client) line() (string, error) {
	var b strings.Builder
	for {
		char, err := c.r.ReadByte()
		if err != nil {
			return "", err
		}
		if char == '\n' && c.lf {
			c.lf = false
			continue
		}
		c.lf = char == '\r'
		if char == '\r' || char == '\n' {
			return b.String(), nil
		}
		b.WriteByte(char)
	}
}

// next is the next event; err is what ended the stream.
func (c *client) read() (e event, err error) {
	e.name = "message"
	var data []string
	for {
		line, err := c.line()
		if err != nil {
			return e, err
		}
		if line == "" {
			if data == nil {
				e = event{name: "message"}
				continue
			}
			e.data, e.id = strings.Join(data, "\n"), c.lastID
			return e, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "":
			c.comments++
		case "event":
			e.name = value
		case "data":
			data = append(data, value)
		case "id":
			c.lastID = value
		}
	}
}

func (c *client) next() (event, gatewaytest.Line) {
	c.t.Helper()
	e, err := c.read()
	if err != nil {
		c.t.Fatalf("the stream ended: %v", err)
	}
	return e, gatewaytest.ParseLine(c.t, e.data)
}

// until is the next event of that name; others are passed over.
func (c *client) until(name string) (event, gatewaytest.Line) {
	c.t.Helper()
	for {
		if e, l := c.next(); e.name == name {
			return e, l
		}
	}
}

// publish sends a payload and fails the test if the broker does not take it.
func publish(t *testing.T, g *gatewaytest.Gateway, topic, payload string) {
	t.Helper()
	if r, body := g.Do(t, gatewaytest.All(t), "POST", "/v1/topics/"+topic, payload); r.StatusCode != 200 {
		t.Fatalf("publish to %s: %s %s", topic, r.Status, body)
	}
}

// metric is the value of a metric without labels.
func metric(t *testing.T, g *gatewaytest.Gateway, name string) string {
	t.Helper()
	_, body := g.Do(t, "", "GET", "/metrics", "")
	for _, line := range strings.Split(body, "\n") {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return value
		}
	}
	t.Fatalf("there is no metric %s", name)
	return ""
}
