package upstream_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
)

func drawFilter(t *rapid.T) mqtt.Filter {
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "$x", "+"}), 1, 4).Draw(t, "filter")
	if rapid.Bool().Draw(t, "deep") {
		parts = append(parts, "#")
	}
	f, err := mqtt.ParseFilter(strings.Join(parts, "/"), mqtt.Limits{})
	if err != nil {
		return "#"
	}
	return f
}

// Under any order of coming and going no two subscriptions on one leg overlap, a
// filter is refused only when it overlaps one on each, and the owner of a topic is the
// oldest that matches it.
func TestOwnersLikeEachPairAlone(t *testing.T) {
	type held struct {
		filter mqtt.Filter
		leg    int
	}
	rapid.Check(t, func(t *rapid.T) {
		o := upstream.NewOwners()
		var all []held // the oldest first
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			f := drawFilter(t)
			at := -1
			taken := map[int]bool{}
			for n, h := range all {
				if h.filter == f {
					at = n
				}
				if _, overlap := h.filter.Intersect(f); overlap {
					taken[h.leg] = true
				}
			}
			switch {
			case at < 0:
				leg, placed := o.Place(f, 3)
				// "+" and "/#" share only the empty topic, which is none; to keep them apart does no harm.
				if placed && taken[leg] {
					t.Fatalf("%q was placed on leg %d beside %v", f, leg, all)
				}
				if !placed && len(taken) < 3 && !strings.Contains(string(f)+"+", "+") {
					t.Fatalf("%q was refused beside %v", f, all)
				}
				if placed {
					all = append(all, held{f, leg})
				}
			case rapid.Bool().Draw(t, "remove"):
				o.Remove(f)
				all = append(all[:at:at], all[at+1:]...)
			}
			topic := mqtt.Topic(strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "$x"}), 1, 5).Draw(t, "topic"), "/"))
			want := mqtt.Filter("")
			for _, h := range all {
				if h.filter.Matches(topic) {
					want = h.filter
					break
				}
			}
			if got := o.Owner(topic); got != want {
				t.Fatalf("the owner of %q is %q, want %q of %v", topic, got, want, all)
			}
		}
		for _, h := range all {
			o.Remove(h.filter)
		}
		if !o.Empty() {
			t.Fatal("nodes are left after the last filter")
		}
	})
}
