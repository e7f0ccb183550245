//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
)

func TestPayload(t *testing.T) {
	payload, at := markedPayload(120)
	if len(payload) != 120 || !json.Valid(payload) {
		t.Fatalf("the payload has %d bytes: %s", len(payload), payload)
	}
	want := marker{due: 1795406251123456789, publisher: 63, number: 0xdeadbeef, topic: 999}
	want.put(payload[at:])
	if !json.Valid(payload) || len(payload) != 120 {
		t.Fatalf("the marked payload is no JSON: %s", payload)
	}
	if got := markersIn(payload); !slices.Equal(got, []marker{want}) {
		t.Errorf("found %+v, want %+v", got, want)
	}
}

func markersIn(b []byte) (list []marker) {
	scan(b, func(m marker) { list = append(list, m) })
	return list
}

// TestScanFindsCutMarkers gives three markers to scan in two parts, cut at each
// byte.
func TestScanFindsCutMarkers(t *testing.T) {
	want := []marker{{due: 1, number: 1}, {due: 2, number: 2}, {due: 3, publisher: 1, number: 3}}
	text := []byte(`fLy7 is no marker, nor is fLy7ffffffffffffffffffffffffffffffXX: `)
	for _, m := range want {
		payload, at := markedPayload(120)
		m.put(payload[at:])
		text = append(text, payload...)
	}
	text = append(text, "fLy"...)
	for cut := range text {
		var got []marker
		see := func(m marker) { got = append(got, m) }
		rest := scan(text[:cut], see)
		rest = scan(append(bytes.Clone(rest), text[cut:]...), see)
		if !slices.Equal(got, want) {
			t.Fatalf("cut at %d: found %+v", cut, got)
		}
		if len(rest) >= markerLen {
			t.Fatalf("cut at %d: %d bytes are kept", cut, len(rest))
		}
	}
}

func TestCheckerSeesWhatWentWrong(t *testing.T) {
	type seen struct {
		publisher uint16
		number    uint32
	}
	for _, test := range []struct {
		name string
		seen []seen
		want tally
	}{
		{"all is well", []seen{{0, 1}, {1, 1}, {0, 2}, {0, 3}, {1, 2}}, tally{delivered: 5}},
		{"joined late", []seen{{0, 7}, {0, 8}}, tally{delivered: 2}},
		{"lost two", []seen{{0, 1}, {0, 4}, {0, 5}}, tally{delivered: 3, skipped: 2}},
		{"repeated", []seen{{0, 1}, {0, 2}, {0, 2}, {0, 3}}, tally{delivered: 3, late: 1}},
		{"out of order", []seen{{0, 1}, {0, 3}, {0, 2}, {0, 4}}, tally{delivered: 3, skipped: 1, late: 1}},
		{"a publisher that there is not", []seen{{0, 1}, {2, 1}, {0, 2}}, tally{delivered: 2, strange: 1}},
		{"a message that was not stamped", []seen{{0, 1}, {0, 0}}, tally{delivered: 1, strange: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, got := newChecker(0, 1, 2), tally{}
			for _, s := range test.seen {
				before := got.delivered
				counts := c.see(marker{publisher: s.publisher, number: s.number}, 0, &got)
				if counts != (got.delivered > before) {
					t.Errorf("%+v: see says %v", s, counts)
				}
			}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// Of many topics a stream has one, from one publisher.
func TestCheckerOfOneTopic(t *testing.T) {
	c, got := newChecker(7, 10, 4), tally{} // of the publisher 7 mod 4
	for _, m := range []marker{{topic: 7, publisher: 3, number: 1}, {topic: 7, publisher: 3, number: 2},
		{topic: 3, publisher: 3, number: 3}, {topic: 7, publisher: 2, number: 3}, {topic: 7, publisher: 0, number: 1}} {
		c.see(m, 0, &got)
	}
	if want := (tally{delivered: 2, strange: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !c.begun() || newChecker(7, 10, 4).begun() {
		t.Error("a stream has begun when it has had a message, not before")
	}
}

// What an earlier step left behind is checked, but does not count for this one.
func TestCheckerLeavesEarlierStepsOut(t *testing.T) {
	c, got := newChecker(0, 1, 1), tally{}
	for number, due := range []int64{90, 99, 100, 101} {
		if c.see(marker{due: due, number: uint32(number + 1)}, 100, &got) != (due >= 100) {
			t.Errorf("a message due at %d of 100", due)
		}
	}
	if want := (tally{delivered: 2, earlier: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
