package gateway

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"flyscreen/gateway/config"
)

// Routes are the main listener's routes, as "METHOD path".
func Routes(t *testing.T) (all []string) {
	t.Helper()
	cfg := config.Default()
	cfg.Broker.Listen = "127.0.0.1:0"
	g, err := New(cfg, Options{Logger: slog.New(slog.DiscardHandler), DevKey: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.broker.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.broker.Stop(context.Background()) }()
	if err := g.build(); err != nil {
		t.Fatal(err)
	}
	for _, r := range g.router().Routes() {
		all = append(all, r.Method+" "+r.Path)
	}
	return all
}

func init() { watchEvery = 20 * time.Millisecond }
