//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
)

// target says how to subscribe and publish at a server. All streams follow one
// topic. A file for -target holds one as JSON.
type target struct {
	Name string `json:"name"` // in the table

	Door          string   `json:"door"`           // how streams are read: "sse" or "ws"
	StreamURL     string   `json:"stream_url"`     // http://… for both
	StreamHeaders []string `json:"stream_headers"` // "Name: value"
	Subprotocol   string   `json:"subprotocol"`    // of the WebSocket; may be empty
	Hello         []string `json:"hello"`          // text frames that the client sends first
	// Ready is text that the server sends when the stream is live; empty: it is
	// live when the answer's head has come.
	Ready string `json:"ready"`

	Publish        string   `json:"publish"`         // "mqtt" (QoS 0) or "http" (POST, the payload as the body)
	PublishURL     string   `json:"publish_url"`     // tcp://host:port or http://…
	PublishHeaders []string `json:"publish_headers"` // "Name: value"
	Topic          string   `json:"topic"`           // for mqtt
}

func readTarget(path string) (target, error) {
	var t target
	b, err := os.ReadFile(path)
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	if err := t.validate(); err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// validate returns all complaints joined.
func (t target) validate() error {
	var wrong []error
	if t.Door != "sse" && t.Door != "ws" {
		wrong = append(wrong, fmt.Errorf(`door %q: must be "sse" or "ws"`, t.Door))
	}
	if t.Publish != "mqtt" && t.Publish != "http" {
		wrong = append(wrong, fmt.Errorf(`publish %q: must be "mqtt" or "http"`, t.Publish))
	}
	if t.Publish == "mqtt" && t.Topic == "" {
		wrong = append(wrong, errors.New("topic: must not be empty"))
	}
	for name, raw := range map[string]string{"stream_url": t.StreamURL, "publish_url": t.PublishURL} {
		if u, err := url.Parse(raw); err != nil || u.Port() == "" || !loopback(u.Hostname()) {
			wrong = append(wrong, fmt.Errorf("%s %q: must be a URL with a port on 127.0.0.1", name, raw))
		}
	}
	return errors.Join(wrong...)
}

// loopback keeps the load off any network.
func loopback(host string) bool { return host == "127.0.0.1" || host == "::1" }
