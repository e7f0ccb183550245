//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// target says how to subscribe and publish at a server. In its URLs and in Hello,
// {topic} stands for the topic's name, {k} for its index and {c} for the stream's.
// A file for -target holds one as JSON.
type target struct {
	Name string `json:"name"` // in the table

	// Topic is the name of a topic, with {k}.
	Topic string `json:"topic"`

	// Door is how streams are read: "sse", "ws", or "mqtt" for MQTT over WebSocket.
	Door          string   `json:"door"`
	StreamURL     string   `json:"stream_url"`     // http://… for all
	StreamHeaders []string `json:"stream_headers"` // "Name: value"
	Subprotocol   string   `json:"subprotocol"`    // of the WebSocket; may be empty
	Hello         []string `json:"hello"`          // text frames that a "ws" client sends first
	// Ready is text that the server sends when the stream is live; empty: it is
	// live when the answer's head has come.
	Ready string `json:"ready"`

	Publish        string   `json:"publish"`         // "mqtt" (QoS 0) or "http" (POST, the payload as the body)
	PublishURL     string   `json:"publish_url"`     // tcp://host:port or http://…
	PublishHeaders []string `json:"publish_headers"` // "Name: value"
}

func readTarget(path string) (target, error) {
	var t target
	b, err := os.ReadFile(path) //nolint:gosec // the user named it
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

// validate returns all complaints joined, and fills in what MQTT has only one of.
func (t *target) validate() error {
	var wrong []error
	switch t.Door {
	case "sse", "ws":
	case "mqtt":
		t.Subprotocol, t.Ready = "mqtt", subAck
	default:
		wrong = append(wrong, fmt.Errorf(`door %q: must be "sse", "ws" or "mqtt"`, t.Door))
	}
	if t.Publish != "mqtt" && t.Publish != "http" {
		wrong = append(wrong, fmt.Errorf(`publish %q: must be "mqtt" or "http"`, t.Publish))
	}
	if t.Topic == "" {
		wrong = append(wrong, errors.New("topic: must not be empty"))
	}
	for name, raw := range map[string]string{"stream_url": t.StreamURL, "publish_url": t.PublishURL} {
		if u, err := url.Parse(t.fill(raw, 0, 0)); err != nil || u.Port() == "" || !loopback(u.Hostname()) {
			wrong = append(wrong, fmt.Errorf("%s %q: must be a URL with a port on 127.0.0.1", name, raw))
		}
	}
	return errors.Join(wrong...)
}

// loopback keeps the load off any network.
func loopback(host string) bool { return host == "127.0.0.1" || host == "::1" }

func (t *target) topic(k int) string {
	return strings.ReplaceAll(t.Topic, "{k}", strconv.Itoa(k))
}

// fill is text for stream c and topic k.
func (t *target) fill(text string, c, k int) string {
	if !strings.Contains(text, "{") {
		return text
	}
	return strings.NewReplacer("{topic}", t.topic(k), "{k}", strconv.Itoa(k), "{c}", strconv.Itoa(c)).Replace(text)
}
