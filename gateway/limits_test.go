package gateway_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
)

// openRaw opens a stream on a connection of its own and returns it with the status
// of the answer.
func openRaw(t *testing.T, g *gatewaytest.Gateway, path, token string, header ...string) (net.Conn, *http.Response) {
	t.Helper()
	conn := dial(t, g)
	lines := append([]string{"GET " + path + " HTTP/1.1", "Host: " + strings.TrimPrefix(g.URL(), "http://"), "Authorization: Bearer " + token}, header...)
	if _, err := fmt.Fprint(conn, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection is closed
	if err != nil {
		t.Fatal(err)
	}
	return conn, answer
}

// The places of clients that vanish without a word are free again: of the subject,
// of the address, and in all, whichever door they came by.
func TestPlacesReturnAfterAbruptCloses(t *testing.T) {
	const places = 4
	limit := fmt.Sprint("=", places)
	for what, setting := range map[string]string{"subject": "limits.streams_per_subject" + limit, "address": "limits.streams_per_address" + limit, "all": "limits.streams" + limit} {
		t.Run(what, func(t *testing.T) {
			g := gatewaytest.Start(t, setting, "limits.streams_per_subject=100")
			if what == "subject" {
				g = gatewaytest.Start(t, setting)
			}
			token := gatewaytest.Token(t, auth.Claims{Subject: "crowd", Sub: []string{"#"}})
			upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: flyscreen.v1"}
			for round := range 3 {
				var all []net.Conn
				for n := range places {
					path, header, want := "/v1/stream?filter=a", []string(nil), http.StatusOK
					if n%2 == 1 {
						path, header, want = "/v1/ws", upgrade, http.StatusSwitchingProtocols
					}
					gatewaytest.Eventually(t, fmt.Sprintf("place %d of round %d", n, round), func() bool {
						conn, answer := openRaw(t, g, path, token, header...)
						if answer.StatusCode != want {
							_ = conn.Close()
							return false
						}
						all = append(all, conn)
						return true
					})
				}
				gatewaytest.Eventually(t, "all places are taken", func() bool {
					_, body := g.Do(t, "", "GET", "/metrics", "")
					return strings.Contains(body, fmt.Sprintf("\nflyscreen_stream_open %d\n", places))
				})
				_, answer := openRaw(t, g, "/v1/stream?filter=a", token)
				want := map[string]int{"subject": 429, "address": 429, "all": 503}[what]
				if after, err := strconv.Atoi(answer.Header.Get("Retry-After")); answer.StatusCode != want || err != nil || after < 1 {
					t.Errorf("one more: %s, Retry-After %q", answer.Status, answer.Header.Get("Retry-After"))
				}
				for _, conn := range all { // a reset, as of a client whose machine is gone
					if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
						t.Fatal(err)
					}
					_ = conn.Close()
				}
			}
		})
	}
}

// How fast somebody may publish is counted for each principal, and for those
// without a name by their address: which only trusted proxies can tell.
func TestPublishLimits(t *testing.T) {
	settings := []string{"limits.publish_rate=0.01", "limits.publish_burst=2", "auth.anonymous.pub=#"}
	publish := func(g *gatewaytest.Gateway, token, from string) int {
		t.Helper()
		r, body := g.Do(t, token, "POST", "/v1/topics/a", "x", "X-Forwarded-For: "+from)
		if after, err := strconv.Atoi(r.Header.Get("Retry-After")); r.StatusCode == 429 && (err != nil || after < 1 || !strings.Contains(body, "rate-limited")) {
			t.Errorf("%s, Retry-After %q: %s", r.Status, r.Header.Get("Retry-After"), body)
		}
		return r.StatusCode
	}
	behind, direct := gatewaytest.Start(t, append(settings, "http.trusted_proxies=127.0.0.1")...), gatewaytest.Start(t, settings...)
	a, b := gatewaytest.Token(t, auth.Claims{Subject: "a", Pub: []string{"#"}}), gatewaytest.Token(t, auth.Claims{Subject: "b", Pub: []string{"#"}})
	for n, c := range []struct {
		g           *gatewaytest.Gateway
		token, from string
		want        int
	}{
		{behind, a, "192.0.2.1", 200}, {behind, a, "192.0.2.2", 200}, {behind, a, "192.0.2.3", 429}, // one subject, wherever it is
		{behind, b, "192.0.2.1", 200},
		{behind, "", "192.0.2.1", 200}, {behind, "", "192.0.2.1", 200}, {behind, "", "192.0.2.1", 429},
		{behind, "", "192.0.2.9, 192.0.2.1", 429}, // what stands on the left is what the client says
		{behind, "", "192.0.2.2", 200},
		{direct, "", "192.0.2.1", 200}, {direct, "", "192.0.2.2", 200}, {direct, "", "192.0.2.3", 429}, // nobody is trusted
	} {
		if got := publish(c.g, c.token, c.from); got != c.want {
			t.Errorf("%d: from %s: %d, want %d", n, c.from, got, c.want)
		}
	}
}

// Wrong passwords are counted for the address, with a Retry-After.
func TestWrongPasswordsAreLimited(t *testing.T) {
	line, err := auth.NewPassword("alice", "x", 10)
	if err != nil {
		t.Fatal(err)
	}
	g := gatewaytest.Start(t, "auth.passwords_file="+writeFile(t, "", line), "http.trusted_proxies=127.0.0.1")
	try := func(password, from string) *http.Response {
		t.Helper()
		r, _ := g.Do(t, "", "GET", "/v1/topics/a", "", basic("alice", password), "X-Forwarded-For: "+from)
		return r
	}
	for n := range 10 {
		if r := try(fmt.Sprint(n), "192.0.2.1"); r.StatusCode != 401 {
			t.Errorf("wrong password %d: %s", n, r.Status)
		}
	}
	if r := try("y", "192.0.2.1"); r.StatusCode != 429 || r.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %s, Retry-After %q", r.Status, r.Header.Get("Retry-After"))
	}
	if r := try("x", "192.0.2.2"); r.StatusCode != 403 { // nothing is granted, but it is she
		t.Errorf("from elsewhere: %s", r.Status)
	}
}
