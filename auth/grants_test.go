package auth_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"flyscreen/auth"
	"flyscreen/gateway/mqtt"
)

func TestMayPublish(t *testing.T) {
	g := auth.Grants{Pub: filters("pets/+/location", "pets/1/#", "$aws/#"), Sub: filters("#")}
	for topic, want := range map[string]mqtt.Filter{
		"pets/1/location": "pets/+/location",
		"pets/1":          "pets/1/#",
		"pets/2":          "",
		"pets/2/status":   "",
		"news":            "", // a subscribe grant is none for publishing
		"$aws/x":          "$aws/#",
		"$SYS/x":          "",
	} {
		by, ok := g.MayPublish(mqtt.Topic(topic))
		if by != want || ok != (want != "") {
			t.Errorf("publish to %q: %q, %v, want %q", topic, by, ok, want)
		}
	}
	if _, ok := (auth.Grants{Pub: filters("#", "+/x")}).MayPublish("$SYS/x"); ok {
		t.Error("a wildcard reaches a $ topic")
	}
}

func TestCovers(t *testing.T) {
	g := auth.Grants{Pub: filters("#"), Sub: filters("pets/+", "pets/#", "a/+/b")}
	for filter, want := range map[string]mqtt.Filter{
		"pets/1": "pets/+", "pets/+": "pets/+", "pets/#": "pets/#", "pets": "pets/#",
		"a/#": "", "#": "", "a/+/b": "a/+/b", "a/+/+": "", "$SYS/#": "",
	} {
		by, ok := g.Covers(mqtt.Filter(filter))
		if by != want || ok != (want != "") {
			t.Errorf("covers %q: %q, %v, want %q", filter, by, ok, want)
		}
	}
}

func TestNarrow(t *testing.T) {
	for _, row := range []struct{ sub, filter, granted, by string }{
		{"pets/123/#", "pets/#", "pets/123/#", "pets/123/#"},
		{"pets/#", "pets/1/+", "pets/1/+", "pets/#"},
		{"a/# b/+", "#", "a/# b/+", "a/# b/+"},
		{"a/1 a/# a/2 b", "+/#", "a/# b", "a/# b"}, // a/1 and a/2 are in a/#
		{"a/+ a/+ +/b a/b", "a/b", "a/b", "a/+"},   // the same left by all: the first
		{"# +/#", "+/#", "+/#", "#"},               // two spellings of one set
		{"a/+ +/b", "+/+", "a/+ +/b", "a/+ +/b"},   // overlap, but neither holds the other
		{"a/#", "a", "a", "a/#"},
		{"a/#", "b/#", "", ""},
		{"/#", "+", "", ""}, // only the empty topic would be in both, and there is none
		{"#", "$SYS/#", "", ""},
		{"$SYS/#", "#", "", ""},
		{"$SYS/#", "$SYS/broker/+", "$SYS/broker/+", "$SYS/#"},
		{"#", "$share/g/a", "", ""},
		{"", "a", "", ""},
	} {
		g := auth.Grants{Sub: filters(strings.Fields(row.sub)...), Pub: filters("#")}
		granted, by := g.Narrow(mqtt.Filter(row.filter))
		wantFilters(t, row.sub+" narrows "+row.filter+" to", granted, strings.Fields(row.granted)...)
		wantFilters(t, row.sub+" narrows "+row.filter+" by", by, strings.Fields(row.by)...)
	}
}

// Two filters that each fit into a packet may meet in one that does not.
func TestNarrowTooLong(t *testing.T) {
	long := strings.Repeat("x", 40000)
	granted, _ := auth.Grants{Sub: filters(long + "/+")}.Narrow(mqtt.Filter("+/" + long))
	wantFilters(t, "too long", granted)
	granted, _ = auth.Grants{Sub: filters(long + "/+")}.Narrow("+/y")
	wantFilters(t, "long", granted, long+"/y")
}

var (
	word   = rapid.SampledFrom([]string{"", "a", "b", "$x", "$SYS"})
	aTopic = rapid.Custom(func(t *rapid.T) mqtt.Topic {
		return mqtt.Topic(strings.Join(rapid.SliceOfN(word, 1, 4).Draw(t, "levels"), "/"))
	}).Filter(func(t mqtt.Topic) bool { return t != "" })
	aFilter = rapid.Custom(func(t *rapid.T) mqtt.Filter {
		levels := rapid.SliceOfN(rapid.OneOf(word, rapid.Just("+")), 0, 3).Draw(t, "levels")
		if len(levels) == 0 || rapid.Bool().Draw(t, "tail") {
			levels = append(levels, "#")
		}
		return mqtt.Filter(strings.Join(levels, "/"))
	}).Filter(func(f mqtt.Filter) bool { return f != "" })
)

// The meaning of Narrow: what is left matches exactly what was asked for and
// granted, and nothing is left twice.
func TestNarrowMeans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := auth.Grants{Sub: rapid.SliceOfN(aFilter, 0, 5).Draw(t, "grants")}
		f := aFilter.Draw(t, "filter")
		granted, by := g.Narrow(f)
		for _, topic := range rapid.SliceOfN(aTopic, 1, 20).Draw(t, "topics") {
			matches := func(f mqtt.Filter) bool { return f.Matches(topic) }
			want := f.Matches(topic) && slices.ContainsFunc(g.Sub, matches)
			if got := slices.ContainsFunc(granted, matches); got != want {
				t.Fatalf("%q narrowed to %q reaches %q: %v, want %v", f, granted, topic, got, want)
			}
		}
		if len(granted) != len(by) {
			t.Fatalf("granted %q by %q: not one grant each", granted, by)
		}
		for i, left := range granted {
			if both, ok := f.Intersect(by[i]); !ok || both != left || !slices.Contains(g.Sub, by[i]) {
				t.Fatalf("%q was not left by %q", left, by[i])
			}
			if _, err := mqtt.ParseFilter(string(left), mqtt.Limits{}); err != nil {
				t.Fatalf("%q is not a filter: %v", left, err)
			}
			for j, other := range granted {
				if i != j && other.Contains(left) {
					t.Fatalf("%q is in %q", left, other)
				}
			}
		}
		if by, ok := g.Covers(f); ok && (!slices.Equal(granted, []mqtt.Filter{f}) && !granted[0].Contains(f)) {
			t.Fatalf("%q is covered by %q and narrowed to %q all the same", f, by, granted)
		}
	})
}
