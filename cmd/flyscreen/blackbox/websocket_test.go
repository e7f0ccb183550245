package blackbox_test

import (
	"encoding/base64"
	"strings"
	"testing"
)

// A WebSocket client that asks for it gets frames that are arrays, and the same
// messages in the same order.
func TestFramesInBatches(t *testing.T) {
	onBoth(t, map[string]any{"limits.publish_rate": 100_000, "limits.publish_burst": 100_000}, func(t *testing.T, s *site) {
		token := everything(t)
		plain := s.followLive(t, "ws", token, "many/#")
		batched := &stream{door: "ws", process: launch(t, nil, "node", "clients/ws.mjs", s.webSocketURL(), "flyscreen.v1")}
		batched.process.send(t, frame("connect", "token", token, "batch", true))
		batched.process.send(t, frame("subscribe", "id", 1, "filters", []string{"many/#"}))
		batched.await(t, "live", func(all []event) bool { return count(all, "live") > 0 })
		const n = 500
		lines := strings.Repeat(`{"topic":"many/x","text":"x"}`+"\n", n)
		if a := s.do(t, "POST", "/v1/messages", token, []byte(lines), "Content-Type", "application/x-ndjson"); a.status != 200 {
			t.Fatalf("a batch: %d %s", a.status, short(a.body))
		}
		one, other := plain.messages(t, n), batched.messages(t, n)
		for i := range n {
			if one[i].object != other[i].object {
				t.Fatalf("message %d: %s and %s", i, one[i].object, other[i].object)
			}
		}
		all, _, _ := batched.process.out.snapshot()
		for _, line := range all {
			if frame, is := strings.CutPrefix(line, "frame "); is && !strings.HasPrefix(frame, "[") && !strings.HasPrefix(frame, `{"type":"connack"`) {
				t.Errorf("not an array: %.200s", frame)
			}
		}
		singles, _, _ := plain.process.out.snapshot()
		for _, line := range singles {
			if strings.HasPrefix(line, "frame [") {
				t.Errorf("an array without being asked for: %.200s", line)
			}
		}
	})
}

// The token may also come with the upgrade, and never goes back.
func TestTokenOfAWebSocket(t *testing.T) {
	s := boot(t, "embedded", nil)
	token := everything(t)
	for what, connect := range map[string]struct {
		env       []string
		protocols []string
		frames    []string
		code      int // it closes with, or is refused with 401; 0: it works
	}{
		"in a header":           {env: []string{"TOKEN=" + token}},
		"in the first frame":    {frames: []string{frame("connect", "token", token)}},
		"missing in connect":    {frames: []string{frame("connect")}, code: 4401},
		"missing altogether":    {frames: []string{`{"type":"publish","id":1,"topic":"a","text":"x"}`}, code: 4401},
		"bad in connect":        {frames: []string{frame("connect", "token", "garbage")}, code: 4401},
		"as a subprotocol":      {protocols: []string{"bearer." + base64.RawURLEncoding.EncodeToString([]byte(token))}},
		"bad, as a subprotocol": {protocols: []string{"bearer." + base64.RawURLEncoding.EncodeToString([]byte("garbage"))}, code: 4401},
	} {
		args := append([]string{"clients/ws.mjs", s.webSocketURL(), "flyscreen.v1"}, connect.protocols...)
		st := &stream{door: "ws", process: launch(t, connect.env, "node", args...)}
		for _, f := range append(connect.frames, `{"type":"subscribe","id":7,"filters":["a"]}`) {
			st.process.send(t, f)
		}
		all := st.await(t, what, func(all []event) bool {
			return count(all, "live")+count(all, "closed")+count(all, "refused") > 0
		})
		last := all[len(all)-1]
		if connect.code == 0 && last.Type != "live" || connect.code != 0 && last.Code != connect.code && last.Code != 401 {
			t.Errorf("%s: %+v", what, last)
		}
		for _, e := range pick(all, "open") {
			if *e.Text != "flyscreen.v1" {
				t.Errorf("%s: the subprotocol is %q", what, *e.Text)
			}
		}
		st.process.kill()
	}
}
