//go:build linux

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// leaky is a server that pushes what is posted to it to all streams, with faults.
type leaky struct {
	// tamper makes of the nth message (from 1) what the streams get instead; nil
	// passes all on.
	tamper func(n int, message string) []string

	mu      sync.Mutex // guards what follows
	posted  int
	streams map[chan string]struct{}
}

func (l *leaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		l.post(w, r)
		return
	}
	queue := make(chan string, 1000)
	l.mu.Lock()
	l.streams[queue] = struct{}{}
	l.mu.Unlock()
	send := func(s string) {
		_, _ = io.WriteString(w, s)
		_ = http.NewResponseController(w).Flush()
	}
	send("event: live\n\n")
	for {
		select {
		case m := <-queue:
			if m == "end" {
				return
			}
			send("data: " + m + "\n\n")
		case <-r.Context().Done():
			return
		}
	}
}

func (l *leaky) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posted++
	messages := []string{string(body)}
	if l.tamper != nil {
		messages = l.tamper(l.posted, string(body))
	}
	for queue := range l.streams {
		for _, m := range messages {
			queue <- m
		}
	}
	w.Header().Set("Content-Length", "0")
}

// measured opens three streams and a publisher at a server with the fault and
// measures one step; the first message is the warm-up's.
func measured(t *testing.T, tamper func(int, string) []string) step {
	t.Helper()
	l := &leaky{streams: map[chan string]struct{}{}, tamper: tamper}
	web := httptest.NewServer(l)
	defer web.Close()
	described := target{Topic: "any", Door: "sse", StreamURL: web.URL + "/", Ready: "event: live\n", Publish: "http", PublishURL: web.URL + "/"}
	if err := described.validate(); err != nil {
		t.Fatal(err)
	}
	r := &rig{server: &server{target: described, workers: []int{os.Getpid()}}, patience: 2 * stallTime,
		load: load{streams: 3, topics: 1, publishers: 1, payload: 120, p99: time.Minute}}
	defer r.close() // before the server, which waits for its streams
	if err := r.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := r.measure(t.Context(), 300, 200*time.Millisecond) // 20 messages
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStepOfAGoodServer(t *testing.T) {
	s := measured(t, nil)
	if s.bad != "" || s.published != 20 || s.tally.delivered != 60 {
		t.Errorf("%d published, %d delivered, %q; want 20, 60 and nothing bad", s.published, s.tally.delivered, s.bad)
	}
	if s.p50 <= 0 || s.p999 < s.p50 {
		t.Errorf("latencies from %v to %v", s.p50, s.p999)
	}
}

func TestStepTellsFaults(t *testing.T) {
	held := ""
	for _, test := range []struct {
		name   string
		tamper func(n int, message string) []string
		want   string
	}{
		{"one lost", func(n int, m string) []string {
			if n == 5 {
				return nil
			}
			return []string{m}
		}, "3 of 60 deliveries missing"},
		{"the last one lost", func(n int, m string) []string {
			if n == 21 {
				return nil
			}
			return []string{m}
		}, "3 of 60 deliveries missing"},
		{"one repeated", func(n int, m string) []string {
			if n == 5 {
				return []string{m, m}
			}
			return []string{m}
		}, "3 deliveries repeated or out of order"},
		{"two swapped", func(n int, m string) []string {
			switch n {
			case 5:
				held = m
				return nil
			case 6:
				return []string{m, held}
			}
			return []string{m}
		}, "deliveries missing"}, // the late one does not count as delivered
		{"streams ended", func(n int, m string) []string {
			if n == 10 {
				return []string{m, "end"}
			}
			return []string{m}
		}, "3 streams ended"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if s := measured(t, test.tamper); !strings.Contains(s.bad, test.want) {
				t.Errorf("the step says %q, want %q", s.bad, test.want)
			}
		})
	}
}
