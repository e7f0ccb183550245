package blackbox_test

import (
	"net/http"
	"strings"
	"testing"
)

// What the API will have but has not yet is refused in words, never ignored.
func TestWhatIsNotBuiltYetIsRefused(t *testing.T) {
	s := boot(t, "embedded", nil)
	token := everything(t)
	refused := func(what string, a answer) {
		t.Helper()
		if p := wantProblem(t, what, a, http.StatusBadRequest, "bad-request"); !strings.Contains(p.Detail, "not supported yet") {
			t.Errorf("%s: the detail %q does not say so", what, p.Detail)
		}
	}
	for _, option := range []string{"session=s"} {
		refused(option, s.do(t, http.MethodGet, "/v1/stream?filter=a&"+option, token, nil))
	}
	for _, option := range []string{"session=s"} {
		refused("ws "+option, s.do(t, http.MethodGet, "/v1/ws?"+option, token, nil))
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		refused(method+" with Prefer: wait", s.do(t, method, "/v1/topics/a", token, nil, "Prefer", "wait=5"))
	}
	refused("Prefer: wait", s.do(t, http.MethodGet, "/v1/topics/a", token, nil, "If-None-Match", `"x"`, "Prefer", "wait=5"))

	// The values that are built may be named.
	st := s.open(t, "ndjson", token, "mode=all&on_slow=gap", "a")
	st.await(t, "live", func(all []event) bool { return count(all, "live") > 0 })
}

// The same for frames.
func TestFramesThatAreNotBuiltYetAreRefused(t *testing.T) {
	s := boot(t, "embedded", nil)
	token := everything(t)
	for _, first := range []string{
		frame("connect", "token", token, "session", "s"),
		frame("connect", "token", token, "will", map[string]any{"topic": "a", "text": "x"}),
	} {
		s.wantNotYet(t, first)
	}
	for _, second := range []string{
		frame("ack", "cursor", "k-1"),
	} {
		s.wantNotYet(t, frame("connect", "token", token), second)
	}
}

// wantNotYet sends frames and wants a refusal that says so.
func (s *site) wantNotYet(t *testing.T, frames ...string) {
	t.Helper()
	st := &stream{door: "ws", process: launch(t, nil, "node", "clients/ws.mjs", s.webSocketURL(), "flyscreen.v1")}
	for _, f := range frames {
		st.process.send(t, f)
	}
	all := st.await(t, "a refusal of "+frames[len(frames)-1], func(all []event) bool { return len(refusals(all)) > 0 })
	if p := refusals(all)[0]; p.Status != http.StatusBadRequest || !strings.Contains(p.Detail, "not supported yet") {
		t.Errorf("%s: %+v", frames[len(frames)-1], p)
	}
	st.process.kill()
}
