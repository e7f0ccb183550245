package ws_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"flyscreen/gateway/gatewaytest"

	"github.com/coder/websocket"
)

// Over TLS a write may wait, so a goroutine makes it: nothing is lost or reordered,
// and batches are as good as single frames.
func TestTLS(t *testing.T) {
	for _, query := range []string{"", "?batch=1"} {
		g, h := gatewaytest.StartTLS(t, "limits.publish_rate=100000", "limits.publish_burst=100000")
		config := h.Transport.(*http.Transport).TLSClientConfig.Clone()
		config.NextProtos = []string{"http/1.1"}
		transport := &http.Transport{TLSClientConfig: config}
		ctx, cancel := context.WithTimeout(t.Context(), gatewaytest.Patience)
		defer cancel()
		header := http.Header{"Authorization": {"Bearer " + gatewaytest.All(t)}}
		conn, answer, err := websocket.Dial(ctx, g.URL()+"/v1/ws"+query, &websocket.DialOptions{
			HTTPClient: &http.Client{Transport: transport}, HTTPHeader: header, Subprotocols: []string{"flyscreen.v1"},
		})
		if err != nil {
			t.Fatal(err, answer)
		}
		defer transport.CloseIdleConnections()
		defer func() { _ = conn.CloseNow() }()
		conn.SetReadLimit(64 << 20)
		if err := conn.Write(ctx, websocket.MessageText, []byte(`{"type":"subscribe","filters":["t"]}`)); err != nil {
			t.Fatal(err)
		}
		var seen strings.Builder
		until := func(text string) {
			for !strings.Contains(seen.String(), text) {
				_, data, err := conn.Read(ctx)
				if err != nil {
					t.Fatalf("%v, before %q came", err, text)
				}
				seen.Write(data)
			}
		}
		until(`"type":"live"`)
		const messages = 200
		for n := range messages {
			body := strings.NewReader(fmt.Sprintf(`{"n":"<%d>","fill":"%s"}`, n, strings.Repeat("x", 3000)))
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL()+"/v1/topics/t", body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = header
			published, err := h.Do(r)
			if err != nil || published.StatusCode != http.StatusOK {
				t.Fatal(err, published)
			}
			_ = published.Body.Close()
		}
		until(fmt.Sprintf("<%d>", messages-1))
		all, at := seen.String(), 0
		for n := range messages {
			next := strings.Index(all[at:], fmt.Sprintf("<%d>", n))
			if next < 0 {
				t.Fatalf("%q: message %d is missing or out of order", query, n)
			}
			at += next
		}
	}
}
