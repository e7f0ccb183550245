package hub_test

import (
	"slices"
	"testing"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"

	"pgregory.net/rapid"
)

// above says by the sets of topics what "above" means: g contains f, and of two
// that mean the same the lesser spelling is above.
func above(g, f mqtt.Filter) bool {
	return g != f && g.Contains(f) && (!f.Contains(g) || g < f)
}

// The tree must find what comparing each pair finds, under any order of coming and
// going, each once, and leave nothing behind.
func TestCoverLikeEachPairAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := &hub.Cover{}
		present := map[mqtt.Filter]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			f := drawFilter(t)
			if short := rapid.SampledFrom([]mqtt.Filter{"", "", "", "#", "+/#", "/#", "/+/#", "+/+/#"}).Draw(t, "short"); short != "" {
				f = short
			}
			switch {
			case !present[f]:
				tree.Insert(f)
				present[f] = true
			case rapid.Bool().Draw(t, "remove"):
				tree.Remove(f)
				delete(present, f)
			}
			asked := drawFilter(t)
			if rapid.Bool().Draw(t, "own") {
				asked = f
			}
			var wantAbove, wantBelow []mqtt.Filter
			for g := range present {
				if above(g, asked) {
					wantAbove = append(wantAbove, g)
				}
				if above(asked, g) {
					wantBelow = append(wantBelow, g)
				}
			}
			same(t, asked, "above", tree.Above(asked), wantAbove)
			same(t, asked, "below", tree.Below(asked), wantBelow)
		}
		for f := range present {
			tree.Remove(f)
		}
		if !tree.Empty() {
			t.Fatal("nodes are left after the last filter")
		}
	})
}

func same(t *rapid.T, f mqtt.Filter, what string, got, want []mqtt.Filter) {
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("%s %q: got %q, want %q", what, f, got, want)
	}
}
