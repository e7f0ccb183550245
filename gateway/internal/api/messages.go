package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/publish"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/labstack/echo/v4"
)

const (
	// batchWorkers is how many topics of a batch are published at once.
	batchWorkers = 16
	// batchPatience is how long a message of a batch waits for the rate limit.
	batchPatience = 10 * time.Second
	// batchTimeout bounds a whole batch.
	batchTimeout = 30 * time.Second
)

// result is the answer to one message of a batch.
type result struct {
	Delivery mqtt.Delivery `json:"delivery,omitempty"`
	Problem  *wire.Problem `json:"problem,omitempty"`
}

// Batch publishes up to a limit of messages and answers for each. Messages of one
// topic are published one after the other, in order. With an idempotency key a
// repetition publishes what failed the first time, and only that.
func (d *Door) Batch(c echo.Context, p auth.Principal) error {
	if err := noOptions(c); err != nil {
		return err
	}
	if err := noHeaders(c.Request()); err != nil {
		return err
	}
	key, err := idempotencyKey(c.Request())
	if err != nil {
		return err
	}
	messages, err := d.parseBatch(c, &key)
	if err != nil {
		return err
	}
	if n := len(messages); n == 0 || n > d.options.BatchMessages {
		return fault.New(fault.BadRequest, "a batch has 1 to %d messages", d.options.BatchMessages)
	}
	client := d.client(c, p)
	client.Patience = batchPatience
	if key.Text != "" {
		if err := d.options.Publish.CheckParts(client, key, len(messages)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), batchTimeout)
	defer cancel()
	return answer(c, http.StatusOK, map[string][]result{"results": d.publishAll(ctx, client, key, messages)})
}

// parseBatch reads the body, of which key gets the digest.
func (d *Door) parseBatch(c echo.Context, key *publish.Key) ([]wire.Publish, error) {
	media := mediaType(c.Request())
	if media != echo.MIMEApplicationJSON && media != "application/x-ndjson" {
		return nil, fault.New(fault.UnsupportedMedia, "a batch is application/json or application/x-ndjson")
	}
	data, err := d.body(c, d.options.BatchBytes, fault.New(fault.TooLarge, "the batch has more than %d bytes", d.options.BatchBytes))
	if err != nil {
		return nil, err
	}
	key.Of = sha256.Sum256(data)
	if media == echo.MIMEApplicationJSON {
		var batch struct {
			Messages []wire.Publish `json:"messages"`
		}
		return batch.Messages, wire.Decode(data, &batch)
	}
	var messages []wire.Publish
	for n, line := range bytes.Split(data, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var m wire.Publish
		if err := wire.Decode(line, &m); err != nil {
			return nil, fault.New(fault.InvalidPayload, "line %d: %s", n+1, fault.From(err).Detail)
		}
		if messages = append(messages, m); len(messages) > d.options.BatchMessages {
			break // the caller refuses so many
		}
	}
	return messages, nil
}

// publishAll keeps the order of each topic and runs different topics side by side.
func (d *Door) publishAll(ctx context.Context, client publish.Client, key publish.Key, messages []wire.Publish) []result {
	results := make([]result, len(messages))
	queues := make(chan []int, len(messages))
	byTopic := map[string][]int{}
	var order []string
	for i, m := range messages {
		if byTopic[m.Topic] == nil {
			order = append(order, m.Topic)
		}
		byTopic[m.Topic] = append(byTopic[m.Topic], i)
	}
	for _, topic := range order {
		queues <- byTopic[topic]
	}
	close(queues)
	var wg sync.WaitGroup
	for range min(batchWorkers, len(order)) {
		wg.Go(func() {
			for queue := range queues {
				for _, i := range queue {
					part := key
					part.Part = i + 1
					results[i] = d.publishOne(ctx, client, part, &messages[i])
				}
			}
		})
	}
	wg.Wait()
	return results
}

func (d *Door) publishOne(ctx context.Context, client publish.Client, key publish.Key, p *wire.Publish) result {
	delivery, err := d.options.Publish.PublishWireKeyed(ctx, client, key, p)
	if err != nil {
		problem := wire.ProblemFrom(err)
		return result{Problem: &problem}
	}
	return result{Delivery: delivery}
}
