package mqtt_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"flyscreen/gateway/mqtt"
)

// Each bad input stands beside good ones that differ from it in one thing.
func TestParse(t *testing.T) {
	limits := mqtt.Limits{Bytes: 64, Levels: 4}
	both := func(s string) (topic, filter string) { return s, s }
	const wild = "holds the wildcard "
	for _, row := range []struct{ in, topic, filter string }{ // the errors, or empty
		{"", "is empty", "is empty"},
		{"a", "", ""},
		{"/", "", ""},
		{"a//b/", "", ""},
		{" a b ", "", ""},
		{"$SYS/x", "", ""},
		{"é/𝄞/\u00a0/\ufffd", "", ""},
		{"a/b/c/d", "", ""},
		{"a/b/c/d/", "has 5 levels, more than 4", "has 5 levels, more than 4"},
		{strings.Repeat("x", 64), "", ""},
		{strings.Repeat("x", 65), "has 65 bytes, more than 64", "has 65 bytes, more than 64"},
		{strings.Repeat("é", 33), "has 66 bytes, more than 64", "has 66 bytes, more than 64"},
		{"a\xff", "is not valid UTF-8", "is not valid UTF-8"},
		{"a\xed\xa0\x80", "is not valid UTF-8", "is not valid UTF-8"}, // a surrogate
		{"a\xc0\x80", "is not valid UTF-8", "is not valid UTF-8"},     // NUL, two bytes long
		{"a\x00", "holds the character U+0000, which brokers refuse", "holds the character U+0000, which brokers refuse"},
		{"a\n", "holds the character U+000A, which brokers refuse", "holds the character U+000A, which brokers refuse"},
		{"a\x1f", "holds the character U+001F, which brokers refuse", "holds the character U+001F, which brokers refuse"},
		{"a~", "", ""},
		{"a\x7f", "holds the character U+007F, which brokers refuse", "holds the character U+007F, which brokers refuse"},
		{"a\u009f", "holds the character U+009F, which brokers refuse", "holds the character U+009F, which brokers refuse"},
		{"a\ufdcf\ufdf0", "", ""},
		{"a\ufdd0", "holds the character U+FDD0, which brokers refuse", "holds the character U+FDD0, which brokers refuse"},
		{"a\ufdef", "holds the character U+FDEF, which brokers refuse", "holds the character U+FDEF, which brokers refuse"},
		{"a\ufffe", "holds the character U+FFFE, which brokers refuse", "holds the character U+FFFE, which brokers refuse"},
		{"a\U0010ffff", "holds the character U+10FFFF, which brokers refuse", "holds the character U+10FFFF, which brokers refuse"},
		{"+", wild + `'+'`, ""},
		{"#", wild + `'#'`, ""},
		{"a/+/b", wild + `'+'`, ""},
		{"a/#", wild + `'#'`, ""},
		{"+/+/#", wild + `'+'`, ""},
		{"a/#/b", wild + `'#'`, `"#" must be the last level`},
		{"#/", wild + `'#'`, `"#" must be the last level`},
		{"a/b#", wild + `'#'`, `the level "b#" mixes a wildcard with other characters`},
		{"a+/b", wild + `'+'`, `the level "a+" mixes a wildcard with other characters`},
		{"++", wild + `'+'`, `the level "++" mixes a wildcard with other characters`},
		{"a/+#", wild + `'+'`, `the level "+#" mixes a wildcard with other characters`},
	} {
		inTopic, inFilter := both(row.in)
		topic, err := mqtt.ParseTopic(inTopic, limits)
		want := row.topic
		if want != "" && strings.HasPrefix(want, wild) {
			want += ", which only filters may"
		}
		checkParse(t, "topic", row.in, string(topic), err, want)
		filter, err := mqtt.ParseFilter(inFilter, limits)
		checkParse(t, "filter", row.in, string(filter), err, row.filter)
	}
}

func checkParse(t *testing.T, kind, in, out string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && (err != nil || out != in):
		t.Errorf("%s %q became %q, error %v, want it unchanged", kind, in, out, err)
	case want != "" && (err == nil || err.Error() != want || out != ""):
		t.Errorf("%s %q became %q, error %v, want the error %s", kind, in, out, err, want)
	}
}

// Without limits MQTT's own bound stays, since longer strings are cut on the wire.
func TestParseWithoutLimits(t *testing.T) {
	for _, limits := range []mqtt.Limits{{}, {Bytes: 1 << 20}, {Bytes: -1, Levels: -1}} {
		long := strings.Repeat("/", mqtt.MaxBytes)
		if _, err := mqtt.ParseTopic(long, limits); err != nil {
			t.Errorf("%+v: topic of %d bytes: %v", limits, len(long), err)
		}
		if _, err := mqtt.ParseTopic(long+"/", limits); err == nil {
			t.Errorf("%+v: topic of %d bytes passed", limits, len(long)+1)
		}
		if _, err := mqtt.ParseFilter(long+"#", limits); err == nil {
			t.Errorf("%+v: filter of %d bytes passed", limits, len(long)+1)
		}
	}
}

func TestIsDollar(t *testing.T) {
	for topic, want := range map[mqtt.Topic]bool{"$": true, "$SYS/a": true, "a/$SYS": false, "/$SYS": false} {
		if got := topic.IsDollar(); got != want {
			t.Errorf("%q is a $ topic: %v, want %v", topic, got, want)
		}
	}
}

func FuzzParseTopic(f *testing.F) {
	for _, s := range []string{"a/b", "", "/", "a\x00", "\xff", "a/+", "$SYS", "\ufffe"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		topic, err := mqtt.ParseTopic(s, mqtt.Limits{})
		if err != nil {
			return
		}
		if string(topic) != s || s == "" || len(s) > mqtt.MaxBytes || !utf8.ValidString(s) || strings.ContainsAny(s, "+#\x00") {
			t.Fatalf("%q is a topic: %q", s, topic)
		}
		if !mqtt.Filter(s).Matches(topic) {
			t.Fatalf("%q does not match itself", s)
		}
	})
}

func FuzzParseFilter(f *testing.F) {
	f.Add("a/+/#", "a/b")
	f.Add("+/#", "#")
	f.Add("$x/#", "+")
	f.Add("a//", "/+/")
	f.Add("a/#/b", "\x00")
	f.Fuzz(func(t *testing.T, s, other string) {
		filter, err := mqtt.ParseFilter(s, mqtt.Limits{})
		if err != nil {
			return
		}
		if !filter.Contains(filter) {
			t.Fatalf("%q does not contain itself", s)
		}
		if topic, err := mqtt.ParseTopic(other, mqtt.Limits{}); err == nil && filter.Matches(topic) != naiveMatch(s, other) {
			t.Fatalf("%q matches %q: %v", s, other, !naiveMatch(s, other))
		}
		g, err := mqtt.ParseFilter(other, mqtt.Limits{})
		if err != nil {
			return
		}
		both, ok := filter.Intersect(g)
		if !ok {
			return
		}
		if len(both) <= mqtt.MaxBytes {
			if _, err := mqtt.ParseFilter(string(both), mqtt.Limits{}); err != nil {
				t.Fatalf("%q and %q meet in %q: %v", s, other, both, err)
			}
		}
		if !filter.Contains(both) || !g.Contains(both) {
			t.Fatalf("%q and %q meet in %q, which is not in both", s, other, both)
		}
	})
}
