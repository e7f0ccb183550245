package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	// The fleet plays devices, which are on the broker's side of the gateway: it
	// speaks MQTT itself, not through the gateway's own connections.
	paho "github.com/eclipse/paho.mqtt.golang"

	"flyscreen/gateway/config"
)

const (
	// tick is how often a tracker tells where its pet is.
	tick = time.Second
	// actionTicks is how many ticks lie between two reports of the same activity.
	actionTicks = 5
	// goodbye is how long a tracker may take to say that it goes offline.
	goodbye = 2 * time.Second
)

// petNames are the ids of the first pets; more are numbered.
var petNames = []string{"rex", "luna", "milo", "bella", "oscar", "nala", "simba", "coco", "rocky", "kiki"}

// fleet is a number of simulated trackers.
type fleet struct {
	broker string
	access config.Upstream
	log    *slog.Logger
	pets   int
}

// run lets all trackers live until ctx ends, and waits for their goodbyes. It
// fails only if the broker's address or certificates cannot be used at all;
// trackers reconnect by themselves.
func (f *fleet) run(ctx context.Context) error {
	tls, err := f.access.TLS.Config()
	if err != nil {
		return fmt.Errorf("demo fleet: %w", err)
	}
	var trackers sync.WaitGroup
	for i := range f.pets {
		o := paho.NewClientOptions().AddBroker(f.broker).SetTLSConfig(tls).
			SetUsername(f.access.Username).SetPassword(string(f.access.Password)).
			SetConnectTimeout(5 * time.Second).SetWriteTimeout(5 * time.Second).
			SetConnectRetry(true).SetConnectRetryInterval(time.Second).SetMaxReconnectInterval(5 * time.Second)
		t := &tracker{pet: newPet(petName(i), uint64(i)+1), log: f.log, commands: make(chan command, 16)}
		trackers.Go(func() { t.run(ctx, o, i) })
	}
	trackers.Wait()
	return nil
}

func petName(i int) string {
	if i < len(petNames) {
		return petNames[i]
	}
	return fmt.Sprintf("pet-%d", i+1)
}

// tracker is the device on one pet's collar.
type tracker struct {
	pet      *pet
	log      *slog.Logger
	client   paho.Client
	commands chan command // filled by paho, emptied by run; what does not fit is lost, as on a real device
}

// command is a message below pets/<id>/commands/.
type command struct {
	name string
	body []byte
}

// topic is one of the pet's own.
func (t *tracker) topic(what string) string { return "pets/" + t.pet.id + "/" + what }

// run connects the tracker and lets it report once a tick.
func (t *tracker) run(ctx context.Context, o *paho.ClientOptions, number int) {
	o.SetClientID("demo-" + t.pet.id + "-" + strings.ToLower(rand.Text()[:8]))
	o.SetWill(t.topic("status"), `{"online":false}`, 1, true)
	o.SetOnConnectHandler(t.connected)
	o.SetConnectionLostHandler(func(_ paho.Client, err error) {
		t.log.Warn("demo tracker lost the broker", "pet", t.pet.id, "err", err)
	})
	t.client = paho.NewClient(o)
	t.client.Connect() // goes on trying until Disconnect
	defer t.disconnect()

	// The trackers do not all talk in the same moment.
	first := time.NewTimer(time.Duration(number%10) * tick / 10)
	defer first.Stop()
	select {
	case <-first.C:
	case <-ctx.Done():
		return
	}
	clock := time.NewTicker(tick)
	defer clock.Stop()
	for n := 0; ; n++ {
		changed := t.pet.step(tick)
		t.send("location", true, t.pet.location())
		if changed || n%actionTicks == 0 {
			t.send("activity", false, t.pet.action())
		}
		if !t.wait(ctx, clock.C) {
			return
		}
	}
}

// wait obeys commands until the next tick; false means that it is over.
func (t *tracker) wait(ctx context.Context, next <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-next:
			return true
		case c := <-t.commands:
			t.obey(c)
		}
	}
}

// connected runs on paho's goroutine at each connect.
func (t *tracker) connected(c paho.Client) {
	c.Subscribe(t.topic("commands/#"), 1, func(_ paho.Client, m paho.Message) {
		select {
		case t.commands <- command{strings.TrimPrefix(m.Topic(), t.topic("commands/")), m.Payload()}:
		default:
		}
	})
	t.send("status", true, map[string]any{"online": true, "firmware": "2.4.1", "name": t.pet.id})
}

// obey answers a command on pets/<id>/events.
func (t *tracker) obey(c command) {
	var order struct {
		Sound string   `json:"sound"`
		State activity `json:"state"`
	}
	err := json.Unmarshal(c.body, &order)
	_, knownState := habits[order.State]
	event := map[string]any{"command": c.name, "time": time.Now().UTC().Format(time.RFC3339)}
	switch {
	case err == nil && order.Sound != "":
		event["event"], event["sound"] = "played", order.Sound
	case err == nil && knownState:
		t.pet.begin(order.State)
		event["event"], event["state"] = "changed", order.State
		t.send("activity", false, t.pet.action())
	default:
		event["event"] = "not-understood"
		event["hint"] = `send {"sound":"beep"} or {"state":"playing"}`
	}
	t.send("events", false, event)
}

// send publishes one report with QoS 1. While there is no connection it is left
// out: where a pet was is of no use later.
func (t *tracker) send(what string, retain bool, report any) paho.Token {
	body, err := json.Marshal(report)
	if err != nil || !t.client.IsConnectionOpen() {
		return nil
	}
	return t.client.Publish(t.topic(what), 1, retain, body)
}

// disconnect says goodbye: a clean end drops the will, so the tracker publishes
// the same itself.
func (t *tracker) disconnect() {
	if token := t.send("status", true, map[string]any{"online": false}); token != nil && !token.WaitTimeout(goodbye) {
		t.log.Warn("demo tracker could not say goodbye", "pet", t.pet.id, "err", errors.Join(token.Error()))
	}
	t.client.Disconnect(100)
}
