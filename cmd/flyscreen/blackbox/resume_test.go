package blackbox_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// relay passes connections on until it is told to cut them.
type relay struct {
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l}
	r.running.Go(func() { r.serve(target) })
	t.Cleanup(func() {
		_ = l.Close()
		r.cut()
		r.running.Wait()
	})
	return r
}

func (r *relay) serve(target string) {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", target)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			r.running.Go(func() {
				_, _ = io.Copy(pair[0], pair[1]) // it ends when either side does
				_ = pair[0].Close()
			})
		}
	}
}

// cut breaks all connections, without a word to either side.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	r.conns = nil
}

// counted checks that the messages' payloads count from 1 to last.
func counted(t *testing.T, what string, all []event, last int) {
	t.Helper()
	for i, m := range pick(all, "message") {
		if got := string(m.bytes(t)); got != fmt.Sprint(i+1) {
			t.Fatalf("%s: message %d is %s", what, i+1, got)
		}
	}
	if n := count(all, "message"); n != last {
		t.Errorf("%s: %d messages, want %d", what, n, last)
	}
	if n := count(all, "gap"); n > 0 {
		t.Errorf("%s: told %d gaps", what, n)
	}
}

// A browser's EventSource comes back by itself when its connection breaks, and has
// missed nothing then.
func TestEventSourceComesBackByItself(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := everything(t)
		between := newRelay(t, strings.TrimPrefix(s.url, "http://"))
		behind := *s
		behind.url = "http://" + between.listener.Addr().String()
		st := behind.followLive(t, "sse", token, "count/#")
		n := 0
		send := func(times int) {
			for range times {
				n++
				s.publish(t, token, "count/a", fmt.Append(nil, n))
			}
		}
		for round := 1; round <= 2; round++ {
			send(5)
			st.messages(t, n)
			between.cut()
			send(5)
			st.await(t, "ready again", func(all []event) bool { return count(all, "ready") > round })
			send(5)
			st.messages(t, n)
		}
		all := st.events(t)
		counted(t, "sse", all, n)
		for i, ready := range pick(all, "ready") {
			if ready.Resumed != (i > 0) {
				t.Errorf("ready %d: %s", i, ready.object)
			}
		}
	})
}

// Every door resumes with a cursor of any other, and says so where it cannot.
func TestResume(t *testing.T) {
	s := boot(t, "embedded", nil)
	token := everything(t)
	s.retain(t, token, "count/kept", []byte(`"state"`))
	first := s.followLive(t, "ndjson", token, "count/+")
	for n := range 6 {
		s.publish(t, token, "count/a", fmt.Append(nil, n-1))
	}
	cursor := ""
	for _, m := range first.messages(t, 7) {
		if string(m.Payload) == "0" {
			cursor = m.Cursor
		}
	}
	first.process.kill()
	for _, door := range doors {
		counted(t, door, s.resumed(t, door, token, cursor, true, 4), 4)
		foreign := s.resumed(t, door, token, "00000000-5", false, 1)
		if gaps := pick(foreign, "gap"); len(gaps) != 1 || gaps[0].Reason != "node" || gaps[0].Missed != nil {
			t.Errorf("%s: a cursor of another process: %v", door, gaps)
		}
		if kept := pick(foreign, "message"); !kept[0].Retain {
			t.Errorf("%s: a cursor of another process: no snapshot but %s", door, kept[0].object)
		}
	}
	for _, path := range []string{"/v1/stream?filter=a&since=nonsense", "/v1/stream?filter=a&since="} {
		wantProblem(t, path, s.do(t, http.MethodGet, path, token, nil), http.StatusBadRequest, "bad-request")
	}
}

// resumed opens a stream that comes back with cursor, and returns what came up to
// live and that many messages.
func (s *site) resumed(t *testing.T, door, token, cursor string, resumed bool, messages int) []event {
	t.Helper()
	var st *stream
	answer := "ready"
	if door == "ws" {
		answer = "suback"
		st = &stream{door: door, process: launch(t, nil, "node", "clients/ws.mjs", s.webSocketURL(), "flyscreen.v1")}
		st.process.send(t, frame("connect", "token", token, "since", cursor))
		st.process.send(t, frame("subscribe", "id", 1, "filters", []string{"count/+"}))
	} else {
		st = s.open(t, door, token, "since="+url.QueryEscape(cursor), "count/+")
	}
	defer st.process.kill()
	all := st.await(t, "live and the messages", func(all []event) bool {
		return count(all, "live") > 0 && count(all, "message") >= messages
	})
	if a := pick(all, answer); a[0].Resumed != resumed {
		t.Errorf("%s: %s", door, a[0].object)
	}
	return all
}

// mode=latest leaves out what was replaced; the last value always comes.
func TestNewestOnly(t *testing.T) {
	s := boot(t, "embedded", map[string]any{"limits.publish_rate": 1_000_000, "limits.publish_burst": 1_000_000})
	token := everything(t)
	const last = 400
	streams := []*stream{
		s.open(t, "ndjson", token, "mode=latest&interval=500&on_slow=latest", "v"),
		s.open(t, "sse", token, "mode=latest&interval=500&on_slow=close", "v"),
	}
	ws := &stream{door: "ws", process: launch(t, nil, "node", "clients/ws.mjs", s.webSocketURL(), "flyscreen.v1")}
	ws.process.send(t, frame("connect", "token", token))
	ws.process.send(t, `{"type":"subscribe","id":1,"filters":[{"filter":"v","mode":"latest","interval":500}]}`)
	for _, st := range append(streams, ws) {
		st.await(t, "live", func(all []event) bool { return count(all, "live") > 0 })
	}
	begun := time.Now()
	for n := range last {
		s.publish(t, token, "v", fmt.Append(nil, n+1))
	}
	for _, st := range append(streams, ws) {
		all := pick(st.await(t, "the last value", func(all []event) bool {
			m := pick(all, "message")
			return len(m) > 0 && string(m[len(m)-1].Payload) == fmt.Sprint(last)
		}), "message")
		if most := int(time.Since(begun)/(500*time.Millisecond)) + 2; len(all) > most {
			t.Errorf("%s: %d messages in %s", st.door, len(all), time.Since(begun))
		}
	}
}
