package hub_test

import (
	"slices"
	"strings"
	"testing"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"

	"pgregory.net/rapid"
)

// named is a subscriber that is only a name.
type named string

func (named) Deliver(*hub.Frame) {}
func (named) Upstream(bool)      {}
func (named) Missed(mqtt.Topic)  {}

var levels = rapid.SampledFrom([]string{"a", "b", "", "$x", "+"})

func drawFilter(t *rapid.T) mqtt.Filter {
	parts := rapid.SliceOfN(levels, 1, 4).Draw(t, "filter")
	if rapid.Bool().Draw(t, "deep") {
		parts = append(parts, "#")
	}
	f, err := mqtt.ParseFilter(strings.Join(parts, "/"), mqtt.Limits{})
	if err != nil {
		return "a"
	}
	return f
}

func drawTopic(t *rapid.T) mqtt.Topic {
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "$x"}), 1, 5).Draw(t, "topic")
	return mqtt.Topic(strings.Join(parts, "/"))
}

// The tree must agree with matching each filter by itself, under any order of
// coming and going, and leave nothing behind.
func TestTreeMatchesLikeEachFilterAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := &hub.Tree{}
		present := map[mqtt.Filter]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			f := drawFilter(t)
			switch {
			case !present[f]:
				tree.Insert(f, named(f))
				present[f] = true
			case rapid.Bool().Draw(t, "remove"):
				tree.Remove(f)
				delete(present, f)
			}
			topic := drawTopic(t)
			var want, got []string
			for f := range present {
				if f.Matches(topic) {
					want = append(want, string(f))
				}
			}
			for _, s := range tree.Match(topic) {
				got = append(got, string(s.(named)))
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(want, got) {
				t.Fatalf("topic %q: got %q, want %q", topic, got, want)
			}
		}
		for f := range present {
			tree.Remove(f)
		}
		if !tree.Empty() {
			t.Fatal("nodes are left after the last filter")
		}
	})
}
