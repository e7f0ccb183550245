package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"flyscreen/gateway/config"
)

const (
	secret32 = "0123456789abcdef0123456789abcdef"
	secret64 = secret32 + secret32
)

// write puts text into a file of a fresh directory.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load loads without an error.
func load(t *testing.T, s config.Sources) *config.Config {
	t.Helper()
	c, err := config.Load(s)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

// problems loads and returns what is wrong; nil is "nothing".
func problems(t *testing.T, s config.Sources) []config.Problem {
	t.Helper()
	c, err := config.Load(s)
	var p *config.Problems
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &p):
		t.Fatalf("Load: the error %T %v is not a *Problems", err, err)
	case c != nil:
		t.Error("Load returned a configuration beside its error")
	case len(p.List) == 0:
		t.Error("Load returned an empty list of problems")
	}
	return p.List
}

func TestNoSourcesGiveTheDefaults(t *testing.T) {
	c := load(t, config.Sources{})
	if !reflect.DeepEqual(c, config.Default()) {
		t.Errorf("got %+v, want %+v", c, config.Default())
	}
	if !c.UsesDevKey() {
		t.Error("without an issuer the development key must be in use")
	}
	if l := c.TopicLimits(); l.Bytes != 1024 || l.Levels != 32 {
		t.Errorf("topic limits %+v", l)
	}
}

// TestDocumentedFile holds the whole documented file to its meaning: it is the
// defaults.
func TestDocumentedFile(t *testing.T) {
	path := write(t, "flyscreen.yaml", `
data_dir: ./flyscreen-data            # keys made for development, outbox, embedded broker
http:
  listen: 127.0.0.1:8080              # --listen
  admin_listen: ""
  allowed_origins: []
  trusted_proxies: []
  tls: {cert: "", key: "", client_ca: ""}
upstream:
  url: ""
  username: ""
  password: ""
  client_id: ""
  connections: 1
  profile: ""
  tls: {ca: "", cert: "", key: "", server_name: "", alpn: []}
broker:
  listen: 127.0.0.1:1883
auth:
  issuers: []
  anonymous: {pub: [], sub: []}
  api_keys_file: ""
  passwords_file: ""
  acl_file: ""
  allow_token_in_query: false
outbox: {enabled: true, max_bytes: 256MiB, max_age: 24h}
limits: {}
routes: []
`)
	got := load(t, config.Sources{File: path})
	var a, b strings.Builder
	if err := errors.Join(got.Print(&a), config.Default().Print(&b)); err != nil {
		t.Fatal(err)
	}
	if a.String() != b.String() {
		t.Errorf("got\n%s\nwant\n%s", a.String(), b.String())
	}
}

func TestEveryKindOfValueArrives(t *testing.T) {
	keys := write(t, "keys.pem", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
	secret := write(t, "secret", secret64+"\n")
	path := write(t, "flyscreen.yaml", `
http:
  listen: 0.0.0.0:80
  allowed_origins: [https://App.example.com, "https://*.example.com"]
  trusted_proxies:
    - 10.1.2.3/8
    - 192.0.2.1
upstream:
  url: mqtts://broker.example.com
  username: gate
  password: s3cret
  dollar_topics: [$aws/]
auth:
  allow_token_in_query: true
  anonymous: {sub: ["public/#"]}
  issuers:
    - issuer: https://id.example.com
      audience: [flyscreen]
      keys_file: `+keys+`
    - secret_file: `+secret+`
      algorithms: [HS512]
limits:
  payload_bytes: 128KiB
  queue_bytes: 3000000
  publish_rate: 0.5
  drain_timeout: 1m30s
log: {format: json, level: debug}
`)
	c := load(t, config.Sources{File: path})
	checks := []struct {
		what      string
		got, want any
	}{
		{"origins", c.HTTP.AllowedOrigins, []string{"https://app.example.com", "https://*.example.com"}},
		{"proxy range", c.HTTP.TrustedProxies[0].String(), "10.0.0.0/8"},
		{"proxy address", c.HTTP.TrustedProxies[1].String(), "192.0.2.1/32"},
		{"url", c.Upstream.URL, "mqtts://broker.example.com:8883"},
		{"password", string(c.Upstream.Password), "s3cret"},
		{"dollar topics", c.Upstream.DollarTopics, []string{"$aws/"}},
		{"anonymous", len(c.Auth.Anonymous.Sub), 1},
		{"query", c.Auth.AllowTokenInQuery, true},
		{"issuers", len(c.Auth.Issuers), 2},
		{"keys", strings.HasPrefix(string(c.Auth.Issuers[0].Keys), "-----BEGIN"), true},
		{"secret without its line break", string(c.Auth.Issuers[1].Secret), secret64},
		{"payload", c.Limits.PayloadBytes, 128 << 10},
		{"queue", c.Limits.QueueBytes, 3_000_000},
		{"rate", c.Limits.PublishRate, 0.5},
		{"drain", c.Limits.DrainTimeout, 90 * time.Second},
		{"log", c.Log, config.Log{Format: "json", Level: "debug", Audit: "all"}},
	}
	for _, check := range checks {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("%s: got %v, want %v", check.what, check.got, check.want)
		}
	}
	if c.UsesDevKey() {
		t.Error("with issuers the development key must not be in use")
	}
}

func TestFlagsBeatEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	path := write(t, "flyscreen.yaml", "http: {listen: 127.0.0.1:1}\nlimits: {streams: 1}\nlog: {level: debug}\n")
	env := []string{"FLYSCREEN_HTTP_LISTEN=127.0.0.1:2", "FLYSCREEN_LIMITS_STREAMS=2"}
	flags := map[string]string{"http.listen": "127.0.0.1:3"}
	c := load(t, config.Sources{File: path, Env: env, Flags: flags})
	if c.HTTP.Listen != "127.0.0.1:3" || c.Limits.Streams != 2 || c.Log.Level != "debug" || c.Log.Format != "text" {
		t.Errorf("got listen %s, streams %d, log %+v", c.HTTP.Listen, c.Limits.Streams, c.Log)
	}
}

func TestStrongerSourceChoosesHowThePasswordIsGiven(t *testing.T) {
	inFile := write(t, "flyscreen.yaml", "upstream: {username: u, password: from-the-file}\n")
	secret := write(t, "password", "from-the-secret-file\n")
	c := load(t, config.Sources{File: inFile, Env: []string{"FLYSCREEN_UPSTREAM_PASSWORD_FILE=" + secret}})
	if string(c.Upstream.Password) != "from-the-secret-file" {
		t.Errorf("got %q from the weaker source", string(c.Upstream.Password))
	}
	both := []string{"FLYSCREEN_UPSTREAM_USERNAME=u", "FLYSCREEN_UPSTREAM_PASSWORD=x", "FLYSCREEN_UPSTREAM_PASSWORD_FILE=" + secret}
	if got := problems(t, config.Sources{Env: both}); len(got) != 1 || got[0].Key != "upstream.password" {
		t.Errorf("both in one source: got %v", got)
	}
}

func TestPrintedConfigurationLoadsAgain(t *testing.T) {
	env := []string{
		"FLYSCREEN_HTTP_ALLOWED_ORIGINS=https://a.example, https://b.example:8443", "FLYSCREEN_AUTH_ANONYMOUS_SUB=a/#,+/b",
		"FLYSCREEN_UPSTREAM_CLIENT_ID=no: \"yes\" #", "FLYSCREEN_LIMITS_LEEWAY=5m", "FLYSCREEN_UPSTREAM_DOLLAR_TOPICS=$aws/",
	}
	first := load(t, config.Sources{Env: env})
	var text strings.Builder
	if err := first.Print(&text); err != nil {
		t.Fatal(err)
	}
	again := load(t, config.Sources{File: write(t, "printed.yaml", text.String())})
	again.HTTP.TrustedProxies, again.Upstream.TLS.ALPN = nil, nil // an empty list that was written
	again.Auth.Issuers, again.Auth.Anonymous.Pub = nil, again.Auth.Anonymous.Pub[:0:0]
	first.Auth.Anonymous.Pub = again.Auth.Anonymous.Pub
	if !reflect.DeepEqual(first, again) {
		t.Errorf("got  %+v\nwant %+v\nfrom\n%s", again, first, text.String())
	}
}

func TestKeysNameEverythingOnce(t *testing.T) {
	names, envs, flags := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, k := range config.Keys() {
		if names[k.Name] || envs[k.Env] || k.Flag != "" && flags[k.Flag] {
			t.Errorf("%+v is there twice", k)
		}
		names[k.Name], envs[k.Env], flags[k.Flag] = true, true, true
		if (k.Flag == "") != (k.Usage == "") {
			t.Errorf("%+v: flag and usage belong together", k)
		}
	}
	for _, want := range []string{"http.listen", "upstream.tls.alpn", "limits.snapshot_bytes", "routes"} {
		if !names[want] {
			t.Errorf("%s is missing", want)
		}
	}
	if !envs["FLYSCREEN_HTTP_TLS_CLIENT_CA"] || !flags["allowed-origin"] {
		t.Error("a variable or flag has another name than documented")
	}
}
