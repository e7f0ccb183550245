package wire_test

import (
	"testing"

	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// The answer to a publish is what the shape says, though it is not encoded by it.
func TestAppendDelivery(t *testing.T) {
	for _, topic := range []mqtt.Topic{"a/b", `"quoted" \ <é>`, "tab\there"} {
		for qos, delivery := range []mqtt.Delivery{mqtt.Sent, mqtt.Acknowledged, mqtt.Queued} {
			want := string(wire.AppendJSON(nil, wire.Delivery{Topic: string(topic), QoS: mqtt.QoS(qos), Delivery: delivery}))
			if got := string(wire.AppendDelivery(nil, topic, mqtt.QoS(qos), delivery)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	}
}
