package ws_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/internal/ws"

	"github.com/coder/websocket"
)

func TestPublish(t *testing.T) {
	g := gatewaytest.Start(t, "limits.payload_bytes=1000")
	c := open(t, g, gatewaytest.Token(t, auth.Claims{All: []string{"p/#"}}), "")
	watch := g.Follow(t, gatewaytest.All(t), "filter=p/%23")
	for _, p := range []struct{ frame, delivery, payload string }{
		{`"topic":"p/1","payload":{"a": 1}`, "acknowledged", `{"a": 1}`},
		{`"topic":"p/1","text":"x\ny","qos":0`, "sent", "x\ny"},
		{`"topic":"p/1","base64":"//4=","qos":2`, "acknowledged", "\xff\xfe"},
		{`"topic":"p/1","text":""`, "acknowledged", ""},
		{`"topic":"p/1","payload":null,"retain":true`, "acknowledged", "null"},
	} {
		c.sendf(`{"type":"publish","id":3,%s}`, p.frame)
		if f := c.want("puback"); f.Raw != fmt.Sprintf(`{"type":"puback","id":3,"delivery":%q}`, p.delivery) {
			t.Errorf("%s: %s", p.frame, f.Raw)
		}
		if m := watch.Next(); string(m.Bytes(t)) != p.payload {
			t.Errorf("%s: the stream got %s", p.frame, m.Raw)
		}
	}
	if _, body := g.Do(t, gatewaytest.All(t), "GET", "/v1/topics/p/1", ""); body != "null" {
		t.Errorf("the broker keeps %q", body)
	}
	// A refused message is an answer, however often; it does not end the client.
	for range 3 {
		for frame, code := range map[string]string{
			`"topic":"q","text":"x"`:                                   "not-authorized",
			`"topic":"p/+","text":"x"`:                                 "invalid-topic",
			`"topic":"p/\u0000","text":"x"`:                            "invalid-topic",
			`"topic":"$SYS/x","text":"x"`:                              "invalid-topic",
			`"text":"x"`:                                               "invalid-topic",
			`"topic":"p/1"`:                                            "invalid-payload",
			`"topic":"p/1","text":"x","payload":1`:                     "invalid-payload",
			`"topic":"p/1","base64":"x"`:                               "invalid-payload",
			`"topic":"p/1","text":"x","qos":3`:                         "bad-request",
			`"topic":"p/1","text":"` + strings.Repeat("x", 1001) + `"`: "too-large",
			`"topic":"` + strings.Repeat("p", 1025) + `","text":"x"`:   "invalid-topic",
		} {
			c.sendf(`{"type":"publish","id":4,%s}`, frame)
			if f := c.wantError(frame, code); string(f.ID) != "4" {
				t.Errorf("%s: %s", frame, f.Raw)
			}
		}
	}
	for n, want := range []bool{false, true, true} { // the first publishes, the others repeat its answer
		c.send(`{"type":"publish","topic":"p/1","text":"x","idempotency_key":"k"}`)
		if f := c.want("puback"); strings.Contains(f.Raw, `"replayed":true`) != want {
			t.Errorf("answer %d to the same key: %s", n, f.Raw)
		}
	}
	c.send(`{"type":"publish","topic":"p/1","text":"y","idempotency_key":"k"}`)
	c.wantError("another message with the same key", "idempotency-mismatch")
	c.send(`{"type":"publish","topic":"p/1","text":"x"}`)
	if f := c.want("puback"); f.ID != nil {
		t.Errorf("got %s", f.Raw)
	}
}

func TestPublishRate(t *testing.T) {
	g := gatewaytest.Start(t, "limits.publish_rate=0.001", "limits.publish_burst=2")
	c := open(t, g, gatewaytest.All(t), "")
	for _, kind := range []string{"puback", "puback", "error", "error"} {
		c.send(`{"type":"publish","topic":"a","text":"x"}`)
		if f := c.want(kind); kind == "error" && f.Problem.Code != "rate-limited" {
			t.Errorf("got %s", f.Raw)
		}
	}
}

// An id comes back as it was written.
func TestIDs(t *testing.T) {
	g := gatewaytest.Start(t)
	c := open(t, g, gatewaytest.All(t), "")
	for _, id := range []string{"0", "-1", "1.50", "1e400", "-0", "9007199254740993", "123456789012345678901234567890.000"} {
		c.sendf(`{"type":"publish","id": %s ,"topic":"a","text":"x"}`, id)
		if f := c.want("puback"); string(f.ID) != id {
			t.Errorf("%s came back in %s", id, f.Raw)
		}
		c.sendf(`{"type":"ping","id":%s}`, id)
		if f := c.want("pong"); string(f.ID) != id {
			t.Errorf("%s came back in %s", id, f.Raw)
		}
	}
	for _, id := range []string{`"1"`, "true", "{}", "[1]", strings.Repeat("1", 65)} {
		c.sendf(`{"type":"publish","id":%s,"topic":"a","text":"x"}`, id)
		if f := c.wantError(id, "bad-request"); f.ID != nil {
			t.Errorf("got %s", f.Raw)
		}
	}
	c.send(`{"type":"publish","id":null,"topic":"a","text":"x"}`)
	if f := c.want("puback"); f.ID != nil {
		t.Errorf("got %s", f.Raw)
	}
}

// Nothing in a frame is ignored.
func TestWrongFrames(t *testing.T) {
	g := gatewaytest.Start(t)
	for frame, code := range map[string]string{
		`{`:                                  "bad-request",
		``:                                   "bad-request",
		`[]`:                                 "bad-request",
		`[{"type":"ping"}]`:                  "bad-request",
		`"ping"`:                             "bad-request",
		`{}`:                                 "bad-request",
		`{"type":"ping"} {"type":"ping"}`:    "bad-request",
		`{"type":7}`:                         "bad-request",
		`{"type":"frob","id":1}`:             "bad-request",
		`{"type":"ping","x":1}`:              "invalid-payload",
		`{"type":"disconnect","x":1}`:        "invalid-payload",
		`{"type":"connect","x":1}`:           "invalid-payload",
		`{"type":"connect","token":7}`:       "invalid-payload",
		`{"type":"subscribe","filter":"a"}`:  "invalid-payload",
		`{"type":"subscribe","filters":"a"}`: "invalid-payload",
		`{"type":"unsubscribe","filters":["a"],"x":1}`:            "invalid-payload",
		`{"type":"publish","topic":"a","text":"x","retian":true}`: "invalid-payload",
		`{"type":"publish","topic":7,"text":"x"}`:                 "invalid-payload",
		`{"type":"connect","since":"x"}`:                          "bad-request",
		`{"type":"subscribe","filters":["a"],"since":"x"}`:        "bad-request",
		`{"type":"unsubscribe","filters":["a"],"since":"x"}`:      "bad-request",
	} {
		c := open(t, g, gatewaytest.All(t), "")
		c.send(frame)
		c.wantError(frame, code)
		c.send(`{"type":"ping"}`) // one mistake does not end a client
		c.want("pong")
		_ = c.conn.CloseNow()
	}
	c := open(t, g, gatewaytest.All(t), "")
	for _, frame := range []string{
		`{"type":"connect","id":1,"session":"x"}`, `{"type":"connect","id":1,"will":{"topic":"a"}}`,
		`{"type":"ack","id":1,"cursor":"x"}`,
	} {
		c.send(frame)
		if f := c.wantError(frame, "bad-request"); !strings.Contains(f.Problem.Detail, "not supported yet") || string(f.ID) != "1" {
			t.Errorf("%s: %s", frame, f.Raw)
		}
	}
}

// A client that keeps on is ended.
func TestTooManyMistakes(t *testing.T) {
	g := gatewaytest.Start(t)
	binary := func(c *client) {
		if err := c.conn.Write(c.ctx, websocket.MessageBinary, []byte(`{"type":"ping"}`)); err != nil {
			t.Fatal(err)
		}
	}
	for what, wrong := range map[string]func(*client){
		"binary frames":       binary,
		"frames of no JSON":   func(c *client) { c.send("hello") },
		"frames of no type":   func(c *client) { c.send(`{"type":"frob"}`) },
		"subscriptions wrong": func(c *client) { c.send(`{"type":"subscribe"}`) },
	} {
		c := open(t, g, gatewaytest.All(t), "")
		for range ws.MaxComplaints {
			wrong(c)
			c.want("error")
		}
		c.send(`{"type":"ping"}`)
		c.want("pong")
		wrong(c)
		c.want("error")
		if end := c.wantEnd(what, 4400); end.Reconnect {
			t.Errorf("%s: %s", what, end.Raw)
		}
	}
}

func TestInvalidUTF8(t *testing.T) {
	g := gatewaytest.Start(t)
	c := open(t, g, gatewaytest.All(t), "")
	c.send("{\"type\":\"publish\",\"topic\":\"a\",\"text\":\"\xff\"}")
	if end := c.wantEnd("invalid UTF-8", 1007); end.Reconnect {
		t.Errorf("got %s", end.Raw)
	}
}

// The largest payload passes in its longest spelling; a frame beyond that is the
// end, also when it comes in pieces.
func TestOversize(t *testing.T) {
	g := gatewaytest.Start(t, "limits.payload_bytes=10000")
	c := open(t, g, gatewaytest.All(t), "")
	c.sendf(`{"type":"publish","topic":"a","text":"%s"}`, strings.Repeat(`\u0000`, 10000))
	c.want("puback")
	c.sendf(`{"type":"publish","topic":"a","text":"%s"}`, strings.Repeat("x", 10001))
	c.wantError("a payload too large", "too-large")
	c.send(`{"type":"publish","topic":"a","text":"` + strings.Repeat("x", 6*10000+64<<10) + `"}`)
	if end := c.wantEnd("a frame too large", 1009); end.Reconnect {
		t.Errorf("got %s", end.Raw)
	}

	c = open(t, g, gatewaytest.All(t), "")
	w, err := c.conn.Writer(c.ctx, websocket.MessageText)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if _, err := w.Write(bytes.Repeat([]byte(" "), 10000)); err != nil {
			break // the gateway has had enough
		}
	}
	_ = w.Close()
	c.wantEnd("a fragmented frame too large", 1009)
}

func TestPingAndDisconnect(t *testing.T) {
	g := gatewaytest.Start(t)
	c := open(t, g, gatewaytest.All(t), "")
	c.send(`{"type":"ping"}`)
	if f := c.want("pong"); f.Raw != `{"type":"pong"}` {
		t.Errorf("got %s", f.Raw)
	}
	c.send(`{"type":"disconnect"}`)
	if end := c.wantEnd("disconnect", 1000); end.Reconnect {
		t.Errorf("got %s", end.Raw)
	}
	// A client may also just close.
	c = open(t, g, gatewaytest.All(t), "")
	c.subscribe("a")
	if err := c.conn.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Error(err)
	}
	gatewaytest.Eventually(t, "no stream is open", func() bool { return metric(t, g, "flyscreen_stream_open") == "0" })
	// Or vanish.
	c = open(t, g, gatewaytest.All(t), "")
	c.subscribe("a")
	_ = c.conn.CloseNow()
	gatewaytest.Eventually(t, "no stream is open", func() bool { return metric(t, g, "flyscreen_stream_open") == "0" })
}

// In batch mode every frame is an array, and what waits comes together.
func TestBatch(t *testing.T) {
	g := gatewaytest.Start(t, "limits.publish_rate=100000", "limits.publish_burst=100000")
	byQuery := open(t, g, gatewaytest.All(t), "?batch=1")
	byConnect := open(t, g, gatewaytest.All(t), "")
	byConnect.send(`{"type":"connect","batch":true}`)
	for i, c := range []*client{byQuery, byConnect} {
		c.sendf(`{"type":"subscribe","filters":["b/%d"]}`, i)
		var body strings.Builder
		for n := range 500 {
			fmt.Fprintf(&body, `{"topic":"b/%d","payload":%d}`+"\n", i, n)
		}
		live, next, frames := false, 0, 0
		for next < 500 {
			data := c.raw()
			var objects []frame
			if err := json.Unmarshal(data, &objects); err != nil || len(objects) == 0 {
				t.Fatalf("not an array with something in it: %v %.200s", err, data)
			}
			frames++
			for _, f := range objects {
				switch f.Type {
				case "live":
					live = true
					if r, text := g.Do(t, gatewaytest.All(t), "POST", "/v1/messages", body.String(), "Content-Type: application/x-ndjson"); r.StatusCode != 200 || strings.Contains(text, "problem") {
						t.Fatalf("%d %s", r.StatusCode, text)
					}
				case "message":
					if !live || string(f.Payload) != fmt.Sprint(next) {
						t.Fatalf("client %d got %s where %d was due", i, f.Payload, next)
					}
					next++
				}
			}
		}
		t.Logf("client %d: %d frames", i, frames)
	}
	plain := open(t, g, gatewaytest.All(t), "?batch=0")
	plain.send(`{"type":"ping"}`)
	plain.want("pong")
}
