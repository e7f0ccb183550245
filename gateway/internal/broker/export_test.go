package broker

import (
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// SetWaits replaces the time for a CONNECT and for one write; before Start.
func (b *Broker) SetWaits(connect, write time.Duration) {
	b.wait.connect, b.wait.write = connect, write
}

// Age makes the retained message of topic older by d, and reports whether there
// is one.
func (b *Broker) Age(topic string, d time.Duration) bool {
	pk, ok := b.server.Topics.Retained.Get(topic)
	if ok {
		pk.Created -= int64(d / time.Second)
		b.server.Topics.Retained.Add(topic, pk)
	}
	return ok
}

// RetainExpired plants a retained message that mochi's housekeeping removes in
// its next round, whatever the options are.
func (b *Broker) RetainExpired(topic string) {
	b.server.Topics.Retained.Add(topic, packets.Packet{TopicName: topic, ProtocolVersion: 5, Created: 1, Expiry: 1})
}

// HasRetained reports whether topic has a retained message.
func (b *Broker) HasRetained(topic string) bool {
	_, ok := b.server.Topics.Retained.Get(topic)
	return ok
}

// Knows reports whether the client has a session, and whether a publish to topic
// would be handed to it.
func (b *Broker) Knows(client, topic string) (session, subscribed bool) {
	_, session = b.server.Clients.Get(client)
	_, subscribed = b.server.Topics.Subscribers(topic).Subscriptions[client]
	return session, subscribed
}
