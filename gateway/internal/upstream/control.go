package upstream

import (
	"context"
	"fmt"

	paho "github.com/eclipse/paho.mqtt.golang"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// controlPrefix is where gateways that share a broker tell each other what they must
// all know, as retained messages. It lies in the reserved part of the tree: no client
// is granted it, and nothing of it reaches a stream.
const controlPrefix = reserved + "control/"

func (u *Upstream) subscribeControl(ctx context.Context, s *session) error {
	answers, err := u.subscribe(ctx, s, []mqtt.Filter{controlPrefix + "#"}, 1)
	if err == nil {
		err = answers[0]
	}
	if err != nil {
		return fmt.Errorf("the broker does not let this user subscribe to %s#: %w", controlPrefix, err)
	}
	return nil
}

// PublishControl keeps payload at the broker under name, for all gateways, and
// returns when the broker has acknowledged it. The error is UpstreamUnavailable or,
// when the outcome is not known, UpstreamTimeout.
func (u *Upstream) PublishControl(ctx context.Context, name string, payload []byte) error {
	sessions := u.live.sessions()
	if sessions == nil {
		return unavailable("the other gateways were not told", u.live.ready())
	}
	_, err := sessions[0].place(ctx, func(c paho.Client) paho.Token { return c.Publish(controlPrefix+name, 1, true, payload) })
	if err != nil {
		return fault.New(fault.UpstreamTimeout, "the broker did not acknowledge; whether the other gateways know is unknown").Because(err)
	}
	return nil
}
