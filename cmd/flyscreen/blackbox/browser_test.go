package blackbox_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sighting is what clients/browser.mjs saw.
type sighting struct {
	Complaints, Foreign, Topics           []string
	Address, Granted, OnTheMap, Published string
	Overflow                              int
	Stream                                struct {
		Status     int
		Type, Text string
	}
	Socket struct {
		Protocol string
		Types    []string
		Code     int
	}
}

// browse opens link in Chromium, does what a person does, and returns what was
// to be seen. Pictures are kept in a directory that is printed.
func browse(t *testing.T, link, filter string) sighting {
	t.Helper()
	dir, err := os.MkdirTemp("", "flyscreen-browser-")
	if err != nil {
		t.Fatal(err)
	}
	p := launch(t, nil, "node", "clients/browser.mjs", suite.chromium, link, filter, dir)
	code := p.wait(t)
	out, _, _ := p.out.snapshot()
	log, _, _ := p.log.snapshot()
	if err := os.RemoveAll(filepath.Join(dir, "profile")); err != nil {
		t.Error(err)
	}
	t.Logf("pictures of the page: %s", dir)
	var seen sighting
	if len(out) == 0 || json.Unmarshal([]byte(out[len(out)-1]), &seen) != nil || code != 0 {
		t.Fatalf("the browser: exit code %d\n%s\n%s", code, tail(out), tail(log))
	}
	return seen
}

// wantGood checks what holds for every good visit.
func (seen sighting) wantGood(t *testing.T) {
	t.Helper()
	if len(seen.Complaints) > 0 || len(seen.Foreign) > 0 {
		t.Errorf("the browser's console: %q; requests elsewhere: %q", seen.Complaints, seen.Foreign)
	}
	if strings.Contains(seen.Address, "token") {
		t.Errorf("the token stays in the address bar: %s", seen.Address)
	}
	if s := seen.Stream; s.Status != 200 || s.Type != "text/event-stream" || !strings.Contains(s.Text, "event: ready") {
		t.Errorf("fetch of the event stream: %+v", s)
	}
	if s := seen.Socket; s.Protocol != "flyscreen.v1" || s.Code != 1000 || !slices.Contains(s.Types, "message") || !slices.Contains(s.Types, "suback") {
		t.Errorf("WebSocket: %+v", s)
	}
	if seen.Overflow > 0 {
		t.Errorf("on a phone the page is %d pixels too wide", seen.Overflow)
	}
}

// The page in Chromium: it takes the token from the fragment, shows messages and
// a marker on the map, and Chromium's own fetch and WebSocket work from it.
func TestPageInChromium(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		tracker := launch(t, nil, "node", "clients/tracker.mjs", "mqtt://127.0.0.1:"+s.mqttPort, "rex")
		tracker.out.await(t, "the tracker is online", func(all []string) bool { return slices.Contains(all, "online") })
		s.mosquittoPub(t, "pets/markup/status", []byte(`<img src=x onerror="console.error('injected')"><b>`), "-r")
		s.mosquittoPub(t, "pets/cat/location", []byte(`{"latitude":52.52,"longitude":13.36}`), "-r")
		s.mosquittoPub(t, "elsewhere/dog/location", []byte(`{"lat":1,"lng":2}`), "-r")

		token := tokenFor(t, "person", grants{Sub: []string{"pets/#"}, Pub: []string{"pets/+/commands/#"}})
		seen := browse(t, s.url+"/#token="+token, "pets/#")
		seen.wantGood(t)
		if !strings.Contains(seen.OnTheMap, "2 on the map") || !strings.Contains(seen.Granted, "pets/#") {
			t.Errorf("the page shows %q and %q", seen.OnTheMap, seen.Granted)
		}
		for _, topic := range []string{"pets/rex/location", "pets/rex/status", "pets/markup/status", "pets/cat/location"} {
			if !slices.Contains(seen.Topics, topic) {
				t.Errorf("the page lists %q, not %s", seen.Topics, topic)
			}
		}
		if !strings.Contains(strings.ToLower(seen.Published), "acknowledged") {
			t.Errorf("the page says of a publish: %q", seen.Published)
		}
	})
}
