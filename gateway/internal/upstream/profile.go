package upstream

import (
	"maps"
	"slices"
)

// profile is what is known of a kind of broker beforehand.
type profile struct {
	copies              copies
	lateRetained        bool // retained messages may come behind the marker that follows their SUBSCRIBE
	filtersPerSubscribe int
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
	"":          {filtersPerSubscribe: 100},
	"mosquitto": {copies: copiesOne, filtersPerSubscribe: 100},
	"nats":      {copies: copiesEach, filtersPerSubscribe: 100},
	"emqx":      {copies: copiesEach, lateRetained: true, filtersPerSubscribe: 100},
	"hivemq":    {lateRetained: true, filtersPerSubscribe: 100},
	"aws-iot":   {copies: copiesEach, lateRetained: true, filtersPerSubscribe: 8},
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
