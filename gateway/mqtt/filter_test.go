package mqtt_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"flyscreen/gateway/mqtt"
)

// naiveMatch says by recursion over split levels what section 4.7 says in words.
// It shares no code and no idea with the product's loops.
func naiveMatch(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && !strings.HasPrefix(filter, "$") {
		first := strings.Split(filter, "/")[0]
		if first == "+" || first == "#" {
			return false
		}
	}
	var match func(f, t []string) bool
	match = func(f, t []string) bool {
		switch {
		case len(f) == 0:
			return len(t) == 0
		case len(f) == 1 && f[0] == "#":
			return true // any number of levels, none included: the parent
		case len(t) == 0:
			return false
		}
		return (f[0] == "+" || f[0] == t[0]) && match(f[1:], t[1:])
	}
	return match(strings.Split(filter, "/"), strings.Split(topic, "/"))
}

// levelsOf returns all strings of 1 to n levels from words, but not the empty string.
func levelsOf(words []string, n int) (all []string) {
	last := []string{}
	for depth := range n {
		var next []string
		if depth == 0 {
			next = words
		}
		for _, prefix := range last {
			for _, w := range words {
				next = append(next, prefix+"/"+w)
			}
		}
		for _, s := range next {
			if s != "" {
				all = append(all, s)
			}
		}
		last = next
	}
	return all
}

// Every pair of filters of up to three levels against every topic of up to four:
// small enough to try all, large enough for each rule to meet each other one. "z"
// is in no filter, so that a "+" cannot pass for a list of words.
func TestFiltersExhaustively(t *testing.T) {
	topics := levelsOf([]string{"", "a", "$x", "z"}, 4)
	filters := levelsOf([]string{"", "a", "$x", "+"}, 3)
	for _, prefix := range append(levelsOf([]string{"", "a", "$x", "+"}, 2), "") {
		filters = append(filters, prefix+"/#")
	}
	filters = append(filters, "#")
	reach := map[mqtt.Filter][]bool{}
	for _, s := range filters {
		f := parseFilter(t, s)
		for _, topic := range topics {
			want := naiveMatch(s, topic)
			if got := f.Matches(mqtt.Topic(topic)); got != want {
				t.Errorf("%q matches %q: %v, want %v", f, topic, got, want)
			}
			reach[f] = append(reach[f], want)
		}
	}
	for f, reachF := range reach {
		for g, reachG := range reach {
			checkPair(t, topics, f, g, reachF, reachG)
		}
	}
}

func parseFilter(t interface{ Fatalf(string, ...any) }, s string) mqtt.Filter {
	f, err := mqtt.ParseFilter(s, mqtt.Limits{})
	if err != nil {
		t.Fatalf("filter %q: %v", s, err)
	}
	return f
}

// checkPair compares Contains and Intersect with the sets of topics they speak of.
func checkPair(t *testing.T, topics []string, f, g mqtt.Filter, reachF, reachG []bool) {
	contains, meet := true, false
	for i := range topics {
		contains = contains && (reachF[i] || !reachG[i])
		meet = meet || reachF[i] && reachG[i]
	}
	if got := f.Contains(g); got != contains {
		t.Errorf("%q contains %q: %v, want %v", f, g, got, contains)
	}
	both, ok := f.Intersect(g)
	if ok != meet {
		t.Errorf("%q and %q meet: %v (in %q), want %v", f, g, ok, both, meet)
		return
	}
	if !ok {
		return
	}
	parseFilter(t, string(both))
	for i, topic := range topics {
		if want := reachF[i] && reachG[i]; naiveMatch(string(both), topic) != want {
			t.Errorf("%q, the meeting of %q and %q, matches %q: %v, want %v", both, f, g, topic, !want, want)
		}
	}
}

var (
	word   = rapid.SampledFrom([]string{"", "a", "b", "ab", "$", "$x", "$SYS", "é"})
	aTopic = rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(word, 1, 7).Draw(t, "levels"), "/")
	}).Filter(func(s string) bool { return s != "" })
	aFilter = rapid.Custom(func(t *rapid.T) string {
		levels := rapid.SliceOfN(rapid.OneOf(word, rapid.Just("+")), 0, 6).Draw(t, "levels")
		if len(levels) == 0 || rapid.Bool().Draw(t, "tail") {
			levels = append(levels, "#")
		}
		return strings.Join(levels, "/")
	}).Filter(func(s string) bool { return s != "" })
)

// topicOf draws a topic that is likely to be matched by filter.
func topicOf(filter string) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var levels []string
		for _, level := range strings.Split(filter, "/") {
			drawn := rapid.SliceOfN(word, 0, 3).Draw(t, "drawn")
			switch level {
			case "#":
				levels = append(levels, drawn...)
				continue
			case "+":
				level = strings.Join(drawn[:min(1, len(drawn))], "")
			}
			levels = append(levels, level)
		}
		return strings.Join(levels, "/")
	}).Filter(func(s string) bool { return s != "" })
}

func TestFiltersMean(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, g := aFilter.Draw(t, "f"), aFilter.Draw(t, "g")
		F, G := parseFilter(t, f), parseFilter(t, g)
		both, meet := F.Intersect(G)
		if turned, ok := G.Intersect(F); ok != meet || ok && (!turned.Contains(both) || !both.Contains(turned)) {
			t.Fatalf("%q meets %q in %q, and turned around in %q", f, g, both, turned)
		}
		if meet && (!F.Contains(both) || !G.Contains(both)) {
			t.Fatalf("%q is not in both %q and %q", both, f, g)
		}
		if F.Contains(G) && (!meet || !both.Contains(G)) {
			t.Fatalf("%q contains %q, but they meet in %q", f, g, both)
		}
		for _, topic := range rapid.SliceOfN(rapid.OneOf(aTopic, topicOf(f), topicOf(g)), 1, 20).Draw(t, "topics") {
			inF, inG := naiveMatch(f, topic), naiveMatch(g, topic)
			if F.Matches(mqtt.Topic(topic)) != inF {
				t.Fatalf("%q matches %q: %v", f, topic, !inF)
			}
			if (meet && both.Matches(mqtt.Topic(topic))) != (inF && inG) {
				t.Fatalf("%q and %q meet in %q (%v), and %q is in them: %v and %v", f, g, both, meet, topic, inF, inG)
			}
			if inG && !inF && F.Contains(G) {
				t.Fatalf("%q contains %q, but %q is only in the latter", f, g, topic)
			}
		}
	})
}

// The cases that people ask about, in plain sight.
func TestMatches(t *testing.T) {
	for _, row := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/#", "a", true}, {"a/#", "a/", true}, {"a/#", "a/b/c", true}, {"a/#", "ab", false},
		{"#", "a/b", true}, {"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"$SYS/#", "$SYS/x", true}, {"$SYS/+", "$SYS/x", true},
		{"a/+", "a/$x", true}, {"+", "a", true}, {"+", "/a", false}, {"+/+", "/a", true}, {"/+", "/a", true}, {"/a", "a", false},
		{"a/+", "a", false}, {"a/+", "a/", true}, {"a/+/c", "a//c", true}, {"+/#", "a", true}, {"+/+/#", "a", false}, {"a", "a/", false},
		{"A", "a", false}, {"é", "é", true}, {"é", "e\u0301", false}, // compared as bytes (1.5.3)
	} {
		if got := parseFilter(t, row.filter).Matches(mqtt.Topic(row.topic)); got != row.want {
			t.Errorf("%q matches %q: %v, want %v", row.filter, row.topic, got, row.want)
		}
	}
}

func TestIntersect(t *testing.T) {
	for _, row := range []struct{ f, g, both string }{ // both empty: they do not meet
		{"a/#", "+/b", "a/b"}, {"+/b", "a/+", "a/b"}, {"a/#", "a", "a"}, {"a/#", "+", "a"}, {"a/+", "a", ""},
		{"#", "+/a/#", "+/a/#"}, {"#", "$SYS/#", ""}, {"+/x", "$SYS/+", ""}, {"$SYS/#", "$SYS/+", "$SYS/+"},
		{"/#", "+", ""}, // "/#" has the empty topic for a parent, and no such topic exists
		{"/#", "+/+", "/+"},
	} {
		for range 2 {
			both, ok := parseFilter(t, row.f).Intersect(parseFilter(t, row.g))
			if string(both) != row.both || ok != (row.both != "") {
				t.Errorf("%q and %q meet in %q, %v, want %q", row.f, row.g, both, ok, row.both)
			}
			row.f, row.g = row.g, row.f
		}
	}
}
