package config

import "strconv"

// brokerProfile is what a kind of broker bounds of our own limits; zero is no bound.
type brokerProfile struct {
	payloadBytes, topicBytes, topicLevels int
	unusable                              string // why the gateway cannot work with it
}

var brokerProfiles = map[string]brokerProfile{
	"mosquitto": {topicLevels: 200},
	"emqx":      {},
	"hivemq":    {},
	"nats":      {},
	"aws-iot":   {payloadBytes: 128 * kib, topicBytes: 256, topicLevels: 8},
	"azure-iot-hub": {unusable: "names a service that has fixed topics for its devices and no retained messages, " +
		"so that topics of your own cannot be published or followed there"},
}

var profileNames = []string{"mosquitto", "emqx", "hivemq", "nats", "aws-iot", "azure-iot-hub"}

// checkProfile holds the limits to what the broker takes: it would end the
// connection for what is beyond, and with it everybody's.
func (l *loader) checkProfile(c *Config) {
	name := c.Upstream.Profile
	p, known := brokerProfiles[name]
	if !known {
		return
	}
	if p.unusable != "" {
		l.complain("upstream.profile", wrong("use a general MQTT 3.1.1 broker", "%s %s", name, p.unusable))
		return
	}
	if c.Upstream.URL == "" {
		l.complain("upstream.profile", wrong("set upstream.url or leave it out", "is about a broker of your own, and the embedded one runs"))
	}
	for _, bound := range []struct {
		key         string
		value, most int
		say         func(int) string
	}{
		{"limits.payload_bytes", c.Limits.PayloadBytes, p.payloadBytes, formatBytes},
		{"limits.topic_bytes", c.Limits.TopicBytes, p.topicBytes, formatBytes},
		{"limits.topic_levels", c.Limits.TopicLevels, p.topicLevels, nil},
	} {
		if bound.most == 0 || bound.value <= bound.most {
			continue
		}
		say := bound.say
		if say == nil {
			say = strconv.Itoa
		}
		l.complain(l.either(bound.key, "upstream.profile"), wrong("set "+bound.key+" to "+say(bound.most),
			"a broker of the profile %s takes %s at most, and %s is %s", name, say(bound.most), bound.key, say(bound.value)))
	}
}
