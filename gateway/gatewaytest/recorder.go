package gatewaytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Counter publishes numbers on its topics, on each 1, 2, 3 and so on, without a
// pause until Stop.
type Counter struct {
	Topics []string
	last   int // of every topic, after Stop
	stop   chan struct{}
	done   sync.WaitGroup
}

// perRequest is how many numbers of each topic a Counter puts into one request.
const perRequest = 4

// StartCounter starts a counter on the topics.
func (g *Gateway) StartCounter(t testing.TB, topics ...string) *Counter {
	c := &Counter{Topics: topics, stop: make(chan struct{})}
	token := All(t)
	c.done.Go(func() {
		for {
			select {
			case <-c.stop:
				return
			default:
			}
			if err := g.count(t.Context(), token, c); err != nil {
				t.Error(err)
				return
			}
		}
	})
	t.Cleanup(c.done.Wait)
	return c
}

func (g *Gateway) count(ctx context.Context, token string, c *Counter) error {
	var body bytes.Buffer
	for range perRequest {
		c.last++
		for _, topic := range c.Topics {
			fmt.Fprintf(&body, `{"topic":%q,"payload":%d}`+"\n", topic, c.last)
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL()+"/v1/messages", &body)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/x-ndjson")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	var results struct {
		Results []struct{ Problem json.RawMessage }
	}
	if err := json.NewDecoder(answer.Body).Decode(&results); err != nil {
		return err
	}
	for _, one := range results.Results {
		if one.Problem != nil {
			return fmt.Errorf("a number was not published: %s", one.Problem)
		}
	}
	return nil
}

// Stop ends the counter and returns the last number of every topic.
func (c *Counter) Stop() int {
	close(c.stop)
	c.done.Wait()
	return c.last
}

// Recorder holds what a client sees, over all its connections, against what a
// Counter sends: no number is missing and none comes twice.
type Recorder struct {
	Cursor string // the last one
	Seen   map[string]int
	Cuts   int
}

// Note takes one message or event. An error says what is wrong with it.
func (r *Recorder) Note(l Line) error {
	switch l.Type {
	case "message":
		n, err := strconv.Atoi(string(l.Payload))
		if err != nil || l.Cursor == nil || n != r.Seen[l.Topic]+1 {
			return fmt.Errorf("after %d cuts: %s behind number %d", r.Cuts, l.Raw, r.Seen[l.Topic])
		}
		r.Seen[l.Topic], r.Cursor = n, *l.Cursor
	case "gap", "end", "error", "upstream":
		return fmt.Errorf("after %d cuts: %s", r.Cuts, l.Raw)
	case "ready":
		if r.Cursor != "" && !l.Resumed {
			return fmt.Errorf("after %d cuts, from %s: %s", r.Cuts, r.Cursor, l.Raw)
		}
		r.Cursor = l.cursor()
	case "suback":
		if r.Cursor != "" && !l.Resumed {
			return fmt.Errorf("after %d cuts, from %s: %s", r.Cuts, r.Cursor, l.Raw)
		}
	}
	return nil
}

// cursor is the line's cursor, or "".
func (l Line) cursor() string {
	if l.Cursor == nil {
		return ""
	}
	return *l.Cursor
}

// Has reports whether every topic of c was seen up to last.
func (r *Recorder) Has(c *Counter, last int) bool {
	for _, topic := range c.Topics {
		if r.Seen[topic] < last {
			return false
		}
	}
	return true
}

// Connection is one of a recorded client's connections.
type Connection interface {
	// Next is the next object, or why there is none.
	Next() (Line, error)
	// Cut breaks the connection without a word.
	Cut()
}

// Record has clients, made by connect, follow the counter's topics and cuts each of
// them at random points so many times. connect gets the cursor to resume from, ""
// at first, and must have been granted its filters when it returns.
func (g *Gateway) Record(t *testing.T, clients, cuts int, topics []string, connect func(cursor string) (Connection, error)) {
	t.Helper()
	recorders := make([]*Recorder, clients)
	first := make([]Connection, clients)
	for n := range recorders {
		recorders[n] = &Recorder{Seen: map[string]int{}}
		var err error
		if first[n], err = connect(""); err != nil {
			t.Fatal(err)
		}
	}
	counter := g.StartCounter(t, topics...)
	var cutting sync.WaitGroup
	for n, r := range recorders {
		cutting.Go(func() {
			conn := first[n]
			for r.Cuts < cuts && !t.Failed() {
				if err := r.follow(conn, rand.IntN(60)); err != nil { //nolint:gosec // not a secret
					t.Error(err)
				}
				conn.Cut()
				r.Cuts++
				var err error
				if conn, err = connect(r.Cursor); err != nil {
					t.Error(err)
					return
				}
			}
			first[n] = conn
		})
	}
	cutting.Wait()
	last := counter.Stop()
	for n, r := range recorders {
		for deadline := time.Now().Add(Patience); !r.Has(counter, last) && !t.Failed(); {
			if err := r.follow(first[n], 1); err != nil || time.Now().After(deadline) {
				t.Errorf("at the end, of %d: %v %v", last, r.Seen, err)
			}
		}
		first[n].Cut()
	}
	t.Logf("%d clients, %d cuts each, %d numbers on each of %d topics", clients, cuts, last, len(topics))
}

// follow reads so many objects, or until there is a cursor.
func (r *Recorder) follow(c Connection, objects int) error {
	for ; objects > 0 || r.Cursor == ""; objects-- {
		l, err := c.Next()
		if err == nil {
			err = r.Note(l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
