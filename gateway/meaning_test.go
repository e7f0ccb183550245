package gateway_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/gatewaytest/mosquitto"
	"flyscreen/gateway/mqtt"

	"pgregory.net/rapid"
)

// What is delivered is what the filter matches and a grant allows, and what is
// published is what a grant allows: for any grants, filters and topics, through a
// running gateway.
func TestDeliveredMeans(t *testing.T) {
	broker := mosquitto.Start(t) // the embedded one does not deliver c/a to c/+/#
	g := gatewaytest.Start(t, "upstream.url="+broker.URL(), "limits.publish_rate=1000000", "limits.publish_burst=1000000")
	word := rapid.SampledFrom([]string{"a", "b", "c"})
	aTopic := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(word, 1, 3).Draw(t, "levels"), "/")
	})
	aFilter := rapid.Custom(func(t *rapid.T) string {
		levels := rapid.SliceOfN(rapid.OneOf(word, rapid.Just("+")), 0, 3).Draw(t, "levels")
		if len(levels) == 0 || rapid.Bool().Draw(t, "tail") {
			levels = append(levels, "#")
		}
		return strings.Join(levels, "/")
	})
	matches := func(filters []string, topic string) bool {
		return slices.ContainsFunc(filters, func(f string) bool { return mqtt.Filter(f).Matches(mqtt.Topic(topic)) })
	}
	round := 0
	rapid.Check(t, func(r *rapid.T) {
		round++
		last := fmt.Sprint("last/", round)
		claims := auth.Claims{
			Subject: fmt.Sprint("reader", round),
			Sub:     append(rapid.SliceOfN(aFilter, 0, 4).Draw(r, "sub"), last),
			Pub:     rapid.SliceOfN(aFilter, 0, 4).Draw(r, "pub"),
		}
		filter := aFilter.Draw(r, "filter")
		topics := rapid.SliceOfN(aTopic, 1, 8).Draw(r, "topics")
		token := gatewaytest.Token(t, claims)
		s := g.Follow(t, token, "snapshot=false&filter="+url.QueryEscape(last)+"&filter="+strings.NewReplacer("#", "%23").Replace(filter))
		defer s.Close()
		var want []string
		for n, topic := range append(topics, last) {
			answer, body := g.Do(t, token, "POST", "/v1/topics/"+topic, fmt.Sprint(n))
			if granted := matches(claims.Pub, topic); (answer.StatusCode == 200) != granted || !granted && answer.StatusCode != 403 {
				r.Fatalf("%q may publish to %q: %v, got %d %s", claims.Pub, topic, granted, answer.StatusCode, body)
			}
			if answer.StatusCode != 200 { // the message itself is for everybody
				if answer, body := g.Do(t, gatewaytest.All(t), "POST", "/v1/topics/"+topic, fmt.Sprint(n)); answer.StatusCode != 200 {
					r.Fatalf("%d %s", answer.StatusCode, body)
				}
			}
			if topic == last || matches([]string{filter}, topic) && matches(claims.Sub, topic) {
				want = append(want, fmt.Sprint(topic, " ", n))
			}
		}
		var got []string
		for len(got) == 0 || !strings.HasPrefix(got[len(got)-1], last) {
			l := s.Next()
			if l.Type != "message" {
				r.Fatalf("the stream got %s", l.Raw)
			}
			got = append(got, fmt.Sprint(l.Topic, " ", string(l.Bytes(t))))
		}
		if !slices.Equal(got, want) {
			r.Fatalf("%q of the grants %q delivers %q, want %q", filter, claims.Sub, got, want)
		}
	})
}
