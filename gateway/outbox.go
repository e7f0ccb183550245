package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"flyscreen/gateway/config"
	"flyscreen/gateway/internal/outbox"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// newOutbox makes the outbox in front of the broker.
func (g *Gateway) newOutbox() *outbox.Outbox {
	o := outboxOptions(g.config, g.upstream, g.options.Logger)
	o.Metrics = g.metrics
	return outbox.New(o)
}

func outboxOptions(cfg *config.Config, b outbox.Broker, log *slog.Logger) outbox.Options {
	return outbox.Options{Broker: b, Dir: cfg.DataDir, MaxBytes: cfg.Outbox.MaxBytes, MaxAge: cfg.Outbox.MaxAge, Logger: log}
}

// publishLink passes the state of the publishing connections on.
func (g *Gateway) publishLink(line int, up, survived bool) {
	if g.outbox != nil {
		g.outbox.PublishLink(line, up, survived)
	}
}

// upstreamState is what operators see of the broker's side.
func (g *Gateway) upstreamState() wire.UpstreamState {
	state := wire.UpstreamState{Broker: g.BrokerURL()}
	for _, c := range g.upstream.Connections() {
		state.Connections = append(state.Connections, connectionState(c))
	}
	if g.outbox != nil {
		s := &wire.OutboxState{}
		s.Queued, s.Quarantined = g.outbox.Counts()
		if err := g.outbox.Broken(); err != nil {
			s.Error = err.Error()
		}
		state.Outbox = s
	}
	return state
}

func connectionState(c upstream.Connection) wire.Connection {
	w := wire.Connection{Role: c.Role, ClientID: c.ClientID, State: "down", Since: c.Since.UTC()}
	if c.Up {
		ms := float64(c.RTT.Round(time.Microsecond)) / float64(time.Millisecond)
		w.State, w.RTT = "up", &ms
		if c.Silent {
			w.State = "silent"
		}
	}
	if c.Cause != nil {
		failed := c.Failed.UTC()
		w.LastError, w.LastErrorAt = c.Cause.Error(), &failed
	}
	return w
}

// OutboxFile is the outbox of a gateway that does not run, for the command line.
type OutboxFile struct {
	box    *outbox.Outbox
	cancel context.CancelFunc
	ended  chan error
}

// OpenOutbox opens the outbox in cfg's data directory. It fails while a gateway has
// it open, and where there is none: it makes nothing.
func OpenOutbox(cfg *config.Config, log *slog.Logger) (*OutboxFile, error) {
	if err := outbox.Exists(cfg.DataDir); err != nil {
		return nil, err
	}
	f := &OutboxFile{box: outbox.New(outboxOptions(cfg, nowhere{}, log)), ended: make(chan error, 1)}
	if err := f.box.Open(); err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	go func() { f.ended <- f.box.Run(ctx) }()
	return f, nil
}

// Close finishes the changes and closes the file.
func (f *OutboxFile) Close() error {
	f.cancel()
	return <-f.ended
}

// List returns what the outbox holds.
func (f *OutboxFile) List(limit int) (wire.OutboxList, error) {
	items, queued, quarantined, err := f.box.List(limit)
	list := wire.OutboxList{Queued: queued, Quarantined: quarantined}
	for _, i := range items {
		list.Messages = append(list.Messages, outboxMessage(i))
	}
	return list, err
}

// Show returns one message and its payload.
func (f *OutboxFile) Show(id uint64) (wire.OutboxMessage, []byte, error) {
	i, err := f.box.Show(id)
	return outboxMessage(i), i.Message.Payload, err
}

// Drop deletes a message.
func (f *OutboxFile) Drop(ctx context.Context, id uint64) error { return f.box.Drop(ctx, id) }

// Retry takes a message out of quarantine.
func (f *OutboxFile) Retry(ctx context.Context, id uint64) error { return f.box.Retry(ctx, id) }

func outboxMessage(i outbox.Item) wire.OutboxMessage {
	return wire.NewOutboxMessage(i.ID, i.Quarantined, i.Message, i.Accepted, i.Reason)
}

// nowhere is the broker of an outbox that delivers nothing.
type nowhere struct{}

var errNowhere = errors.New("there is no broker here")

func (nowhere) Publish(context.Context, mqtt.Message) (mqtt.Delivery, error) { return "", errNowhere }
func (nowhere) Send(m mqtt.Message, _ func(mqtt.Delivery, error)) error {
	return fmt.Errorf("%s: %w", m.Topic, errNowhere)
}
func (nowhere) Lines() int          { return 1 }
func (nowhere) Line(mqtt.Topic) int { return 0 }
