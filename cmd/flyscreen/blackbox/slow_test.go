package blackbox_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// Readers that stop reading cost the others nothing, and are told what they
// missed, to the message, when they go on.
func TestStalledReadersAreToldAndHarmNobody(t *testing.T) {
	// More than the sockets' buffers can hide from the gateway.
	const batches, batch, size = 30, 8, 100 << 10
	limits := map[string]any{"limits.publish_rate": 1_000_000, "limits.publish_burst": 1_000_000, "limits.write_timeout": "2m"}
	onBoth(t, limits, func(t *testing.T, s *site) {
		token := everything(t)
		reading := s.followLive(t, "ndjson", token, "flood")
		var stalled []*stream
		for _, door := range doors {
			st := s.followLive(t, door, token, "flood")
			if err := st.process.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			stalled = append(stalled, st)
		}
		filler := strings.Repeat("x", size)
		for n := 0; n < batches*batch; {
			var body bytes.Buffer
			for range batch {
				n++
				fmt.Fprintf(&body, `{"topic":"flood","payload":{"n":%d,"filler":%q}}`+"\n", n, filler)
			}
			if a := s.do(t, http.MethodPost, "/v1/messages", token, body.Bytes(), "Content-Type", "application/x-ndjson"); a.status != http.StatusOK {
				t.Fatalf("a batch: %d %s", a.status, short(a.body))
			}
			// The reader that reads keeps up, whatever the others do.
			reading.messages(t, n)
		}
		wantWhole(t, "the reader that reads", reading.events(t), batches*batch, false)
		for _, st := range stalled {
			if err := st.process.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			all := st.await(t, "the last message", func(all []event) bool {
				return len(all) > 0 && all[len(all)-1].Type == "message" && flooded(all[len(all)-1]) == batches*batch
			})
			wantWhole(t, st.door, all, batches*batch, true)
		}
		s.wantUnharmed(t)
	})
}

// flooded is the number of a message of the flood.
func flooded(e event) int {
	var n int
	if _, err := fmt.Sscanf(string(e.Payload[:min(len(e.Payload), 20)]), `{"n":%d`, &n); err != nil {
		return -1
	}
	return n
}

// wantWhole checks that every message came in order or was told as missed, at
// its place.
func wantWhole(t *testing.T, what string, all []event, last int, gaps bool) {
	t.Helper()
	next, missed := 1, 0
	for _, e := range all {
		switch e.Type {
		case "gap":
			if e.Reason != "slow" || e.Missed == nil {
				t.Errorf("%s was told %s", what, e.object)
				return
			}
			missed += *e.Missed
			next += *e.Missed
		case "message":
			if got := flooded(e); got != next {
				t.Errorf("%s got message %d, want %d (%d told as missed so far)", what, got, next, missed)
				return
			}
			next++
		}
	}
	if next != last+1 {
		t.Errorf("%s: the stream ends at message %d of %d", what, next-1, last)
	}
	if (missed > 0) != gaps {
		t.Errorf("%s was told of %d missed messages", what, missed)
	}
}
