package api_test

import (
	"net/http"
	"net/url"
	"testing"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/api"
)

func TestTopicName(t *testing.T) {
	for target, want := range map[string]string{
		"/v1/topics/a/b":         "a/b",
		"/v1/topics/a%2Fb":       "a/b",
		"/v1/topics/a%2fb":       "a/b",
		"/v1/topics/a%252Fb":     "a%2Fb",
		"/v1/topics/a%25252Fb":   "a%252Fb",
		"/v1/topics/%C3%A9":      "é",
		"/v1/topics/%c3%a9":      "é",
		"/v1/topics/é":           "é",
		"/v1/topics/a+b":         "a+b",
		"/v1/topics/a%20b":       "a b",
		"/v1/topics/a/./../b":    "a/./../b",
		"/v1/topics/..%2f..%2Fb": "../../b",
		"/v1/topics//a//b/":      "/a//b/",
		"/v1/topics/":            "",
		"/v1/topics/%00":         "\x00",
		"/v1/topics/%FF":         "\xff",
		"/v1/topics/a?b=c":       "a",
		"/v1/topics/a%3Fb=c":     "a?b=c",
		"/v1/topics/a%23b":       "a#b",
		"/v1/topics/a;b,c=d&e":   "a;b,c=d&e",
		"/v1/topics/a:b@c!$'()*": "a:b@c!$'()*",
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		got, err := api.TopicName(&http.Request{URL: u})
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", target, got, err, want)
		}
	}
	for _, target := range []string{"/", "/v1/topics", "/v1/topic/a", "/v1/topics%2Fa"} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		if name, err := api.TopicName(&http.Request{URL: u}); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %q, %v", target, name, err)
		}
	}
}

// However a topic is spelled, it is decoded exactly once.
func FuzzTopicPath(f *testing.F) {
	for _, topic := range []string{"a/b", "a%2Fb", "é/..//.", "", "\x00\xff", "a+b #?", "%", "a%zz"} {
		f.Add(topic, uint64(0x5555))
	}
	const hex, lower = "0123456789ABCDEF", "0123456789abcdef"
	f.Fuzz(func(t *testing.T, topic string, how uint64) {
		// Each byte that may stand for itself does, or not, as how says.
		var path []byte
		for i := range len(topic) {
			c, digits := topic[i], hex
			if how>>(i%60)&1 == 1 {
				digits = lower
			}
			plain := c == '/' || c == '-' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
			if plain && how>>((i+1)%60)&1 == 0 {
				path = append(path, c)
			} else {
				path = append(path, '%', digits[c>>4], digits[c&15])
			}
		}
		target := api.TopicsPrefix + string(path)
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		got, err := api.TopicName(&http.Request{URL: u})
		if err != nil || got != topic {
			t.Fatalf("%s: %q, %v; want %q", target, got, err, topic)
		}
	})
}
