package upstream

import (
	"maps"
	"slices"
	"time"

	"flyscreen/gateway/mqtt"
)

// profile is what is known of a kind of broker beforehand. What is measured stands
// in ARCHITECTURE.md; EMQX, HiveMQ and AWS are after their documentation.
type profile struct {
	copies              copies
	lateRetained        bool // retained messages may come behind the marker that follows their SUBSCRIBE
	settleBefore        time.Duration
	filtersPerSubscribe int
	filtersPerLeg       int      // subscriptions of one connection; 0: no bound is known
	maxQoS              mqtt.QoS // of a publish
}

// copies is how often a broker delivers a message to a client whose subscriptions
// overlap on it.
type copies byte

const (
	copiesProbed copies = iota
	copiesOne           // once
	copiesEach          // once for each subscription
)

var profiles = map[string]profile{
	"":          {filtersPerSubscribe: 100, maxQoS: 2},
	"mosquitto": {copies: copiesOne, filtersPerSubscribe: 100, maxQoS: 2},
	"nats":      {copies: copiesEach, filtersPerSubscribe: 100, maxQoS: 2},
	"emqx":      {copies: copiesEach, lateRetained: true, filtersPerSubscribe: 100, maxQoS: 2},
	"hivemq":    {lateRetained: true, filtersPerSubscribe: 100, maxQoS: 2},
	// The service documents a delay between the SUBACK and the first delivery.
	"aws-iot": {copies: copiesEach, lateRetained: true, settleBefore: time.Second, filtersPerSubscribe: 8, filtersPerLeg: 50, maxQoS: 1},
}

// Profiles lists the names of the known kinds of broker.
func Profiles() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// FiltersPerSubscribe is how many filters go into one packet.
func (u *Upstream) FiltersPerSubscribe() int { return u.o.FiltersPerSubscribe }

// SettleBefore is how long this kind of broker needs from a SUBACK to the first
// delivery, and from a message to its retained copy; 0: nothing special is known.
func (u *Upstream) SettleBefore() time.Duration { return u.profile.settleBefore }
