//go:build linux

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// allow lets everybody do everything. The library's own such hook lives beside one
// that needs another YAML library.
type allow struct{ mqtt.HookBase }

// Provides says which hooks allow has.
func (*allow) Provides(b byte) bool { return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck }

// OnConnectAuthenticate takes every client.
func (*allow) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

// OnACLCheck takes every topic.
func (*allow) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

// startMochi runs this program as the broker that the gateway embeds, bare, with
// its own WebSocket listener.
func startMochi(ctx context.Context, e env, _ load) (*server, error) {
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	p, err := launch(e.dir, e.cores.server, "mochi", e.self, "mochi", addresses[0], addresses[1])
	if err != nil {
		return nil, err
	}
	return awaited(ctx, &server{target: mqttTarget(addresses[0], addresses[1]), parts: []*process{p}}, listens(addresses...))
}

// serveMochi runs until the process is ended.
func serveMochi(plain, web string) error {
	s := mqtt.New(&mqtt.Options{Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err := errors.Join(
		s.AddHook(&allow{}, nil),
		s.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: plain})),
		s.AddListener(listeners.NewWebsocket(listeners.Config{ID: "ws", Address: web})),
	); err != nil {
		return err
	}
	if err := s.Serve(); err != nil {
		return err
	}
	select {}
}
