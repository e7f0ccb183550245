package blackbox_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRevocation(t *testing.T) {
	s := boot(t, "embedded", nil)
	const path = "/v1/revocations"
	admin := tokenFor(t, "admin", grants{Pub: []string{"flyscreen-barrier/control/revocations"}})
	thief := tokenFor(t, "thief", grants{All: []string{"#"}})
	body := []byte(`{"sub":"thief","until":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}`)
	kind := []string{"Content-Type", "application/json"}
	wantProblem(t, "nobody", s.do(t, http.MethodPost, path, "", body, kind...), http.StatusUnauthorized, "unauthenticated")
	wantProblem(t, "not an administrator", s.do(t, http.MethodPost, path, everything(t), body, kind...), http.StatusForbidden, "not-authorized")
	wantProblem(t, "nothing", s.do(t, http.MethodPost, path, admin, []byte("{}"), kind...), http.StatusBadRequest, "bad-request")
	wantProblem(t, "text", s.do(t, http.MethodPost, path, admin, body, "Content-Type", "text/plain"), http.StatusUnsupportedMediaType, "unsupported-media-type")
	wantProblem(t, "much", s.do(t, http.MethodPost, path, admin, []byte(strings.Repeat(" ", 20_000)), kind...), http.StatusRequestEntityTooLarge, "too-large")
	st := s.followLive(t, "sse", thief, "a")
	if a := s.do(t, http.MethodPost, path, admin, body, kind...); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	st.await(t, "the end", func(all []event) bool { return count(all, "end") > 0 && all[len(all)-1].Code == 4410 })
	wantProblem(t, "the thief", s.do(t, http.MethodGet, "/v1/topics/a", thief, nil), http.StatusUnauthorized, "token-invalid")
}
