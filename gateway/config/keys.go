package config

import (
	"strings"
	"time"
)

// key is one setting: the only place that knows its name and its rule.
type key struct {
	name  string
	flag  string // the flag for it alone, without dashes; most keys have none and are given by --set
	usage string
	kind  kind
	// set checks v and stores it. Its error is a complaint, or several joined.
	set func(c *Config, v value) error
	// show gives the value back as a string, a []string or a number; nil for
	// keys that hold nothing yet.
	show func(c *Config) any
}

// kind says which shape of value a key takes.
type kind int

const (
	scalar   kind = iota
	list          // in the environment and in flags separated by commas
	document      // any YAML; in the environment and in flags as text
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// keys is every setting, in the order of the documentation.
var keys = []key{
	text("data_dir", func(c *Config) *string { return &c.DataDir }, notEmpty).
		flagged("data-dir", "`directory` that keeps the development key and the outbox"),

	text("http.listen", func(c *Config) *string { return &c.HTTP.Listen }, address).
		flagged("listen", "`host:port` for HTTP"),
	text("http.admin_listen", func(c *Config) *string { return &c.HTTP.AdminListen }, optional(address)),
	texts("http.allowed_origins", func(c *Config) *[]string { return &c.HTTP.AllowedOrigins }, origin).
		flagged("allowed-origin", "web `origin` that may use the API (repeatable)"),
	prefixes("http.trusted_proxies"),
	text("http.tls.cert", func(c *Config) *string { return &c.HTTP.TLS.Cert }, nil),
	text("http.tls.key", func(c *Config) *string { return &c.HTTP.TLS.Key }, nil),
	text("http.tls.client_ca", func(c *Config) *string { return &c.HTTP.TLS.ClientCA }, nil),
	boolean("http.pprof", func(c *Config) *bool { return &c.HTTP.PProf }),

	text("upstream.url", func(c *Config) *string { return &c.Upstream.URL }, optional(brokerURL)).
		flagged("upstream", "`URL` of the broker, such as tcp://host:1883; empty is the embedded one"),
	text("upstream.username", func(c *Config) *string { return &c.Upstream.Username }, mqttString).
		flagged("upstream-username", "user `name` at the broker"),
	secret("upstream.password"),
	secretFile("upstream.password_file").
		flagged("upstream-password-file", "`file` that holds the password at the broker"),
	text("upstream.client_id", func(c *Config) *string { return &c.Upstream.ClientID }, clientID),
	connections("upstream.connections", 16),
	text("upstream.profile", func(c *Config) *string { return &c.Upstream.Profile }, optional(oneOf(profileNames...))),
	texts("upstream.dollar_topics", func(c *Config) *[]string { return &c.Upstream.DollarTopics }, dollarPrefix),
	text("upstream.tls.ca", func(c *Config) *string { return &c.Upstream.TLS.CA }, nil),
	text("upstream.tls.cert", func(c *Config) *string { return &c.Upstream.TLS.Cert }, nil),
	text("upstream.tls.key", func(c *Config) *string { return &c.Upstream.TLS.Key }, nil),
	text("upstream.tls.server_name", func(c *Config) *string { return &c.Upstream.TLS.ServerName }, nil),
	texts("upstream.tls.alpn", func(c *Config) *[]string { return &c.Upstream.TLS.ALPN }, alpn),

	text("broker.listen", func(c *Config) *string { return &c.Broker.Listen }, loopbackAddress).
		flagged("broker-listen", "loopback `host:port` for the embedded broker"),

	issuers("auth.issuers"),
	filters("auth.anonymous.pub", func(c *Config) *filterList { return &c.Auth.Anonymous.Pub }),
	filters("auth.anonymous.sub", func(c *Config) *filterList { return &c.Auth.Anonymous.Sub }),
	contents("auth.api_keys_file", func(c *Config) *File { return &c.Auth.APIKeys }),
	contents("auth.passwords_file", func(c *Config) *File { return &c.Auth.Passwords }),
	contents("auth.acl_file", func(c *Config) *File { return &c.Auth.ACL }),
	boolean("auth.allow_token_in_query", func(c *Config) *bool { return &c.Auth.AllowTokenInQuery }),
	text("auth.cookie", func(c *Config) *string { return &c.Auth.Cookie }, optional(cookieName)),

	boolean("outbox.enabled", func(c *Config) *bool { return &c.Outbox.Enabled }),
	outboxBytes("outbox.max_bytes", 64*kib, 64*1024*mib),
	outboxAge("outbox.max_age", time.Second, 365*24*time.Hour),

	size("limits.payload_bytes", func(l *Limits) *int { return &l.PayloadBytes }, 1, 16*mib),
	size("limits.topic_bytes", func(l *Limits) *int { return &l.TopicBytes }, 1, 65535),
	count("limits.topic_levels", func(l *Limits) *int { return &l.TopicLevels }, 1, 200),
	size("limits.token_bytes", func(l *Limits) *int { return &l.TokenBytes }, 64, 64*kib),
	count("limits.token_grants", func(l *Limits) *int { return &l.TokenGrants }, 1, 10_000),
	count("limits.request_filters", func(l *Limits) *int { return &l.RequestFilters }, 1, 1000),
	count("limits.connection_filters", func(l *Limits) *int { return &l.ConnectionFilters }, 1, 10_000),
	count("limits.streams_per_subject", func(l *Limits) *int { return &l.StreamsPerSubject }, 1, 1_000_000),
	count("limits.streams_per_address", func(l *Limits) *int { return &l.StreamsPerAddress }, 1, 1_000_000),
	count("limits.streams", func(l *Limits) *int { return &l.Streams }, 1, 1_000_000),
	rate("limits.publish_rate", func(l *Limits) *float64 { return &l.PublishRate }, 1_000_000),
	count("limits.publish_burst", func(l *Limits) *int { return &l.PublishBurst }, 1, 1_000_000),
	count("limits.queue_messages", func(l *Limits) *int { return &l.QueueMessages }, 1, 1_000_000),
	size("limits.queue_bytes", func(l *Limits) *int { return &l.QueueBytes }, 1*kib, 1024*mib),
	wait("limits.window_age", func(l *Limits) *time.Duration { return &l.WindowAge }, time.Second, 24*time.Hour),
	size("limits.window_bytes", func(l *Limits) *int { return &l.WindowBytes }, 1*kib, 64*1024*mib),
	wait("limits.write_timeout", func(l *Limits) *time.Duration { return &l.WriteTimeout }, time.Second, 5*time.Minute),
	wait("limits.auth_timeout", func(l *Limits) *time.Duration { return &l.AuthTimeout }, time.Second, time.Minute),
	wait("limits.header_timeout", func(l *Limits) *time.Duration { return &l.HeaderTimeout }, time.Second, 5*time.Minute),
	wait("limits.body_timeout", func(l *Limits) *time.Duration { return &l.BodyTimeout }, time.Second, time.Hour),
	wait("limits.publish_timeout", func(l *Limits) *time.Duration { return &l.PublishTimeout }, 100*time.Millisecond, time.Minute),
	wait("limits.upstream_keep_alive", func(l *Limits) *time.Duration { return &l.UpstreamKeepAlive }, time.Second, time.Hour),
	wait("limits.upstream_ping_timeout", func(l *Limits) *time.Duration { return &l.UpstreamPingTimeout }, 100*time.Millisecond, time.Minute),
	wait("limits.upstream_backoff_min", func(l *Limits) *time.Duration { return &l.UpstreamBackoffMin }, 10*time.Millisecond, time.Minute),
	wait("limits.upstream_backoff_max", func(l *Limits) *time.Duration { return &l.UpstreamBackoffMax }, 10*time.Millisecond, time.Hour),
	wait("limits.drain_timeout", func(l *Limits) *time.Duration { return &l.DrainTimeout }, 100*time.Millisecond, 10*time.Minute),
	count("limits.batch_messages", func(l *Limits) *int { return &l.BatchMessages }, 1, 10_000),
	count("limits.snapshot_messages", func(l *Limits) *int { return &l.SnapshotMessages }, 1, 1_000_000),
	size("limits.snapshot_bytes", func(l *Limits) *int { return &l.SnapshotBytes }, 1*kib, 1024*mib),
	wait("limits.linger", func(l *Limits) *time.Duration { return &l.Linger }, 0, time.Hour),
	wait("limits.leeway", func(l *Limits) *time.Duration { return &l.Leeway }, time.Second, 5*time.Minute),

	later("routes", document),

	text("log.format", func(c *Config) *string { return &c.Log.Format }, oneOf("text", "json")).
		flagged("log-format", "`format` of the log: text or json"),
	text("log.level", func(c *Config) *string { return &c.Log.Level }, oneOf("debug", "info", "warn", "error")).
		flagged("log-level", "least `level` that is logged: debug, info, warn or error"),
	text("log.audit", func(c *Config) *string { return &c.Log.Audit }, oneOf("all", "refusals", "off")),
}

// Default is the built-in configuration: the embedded broker, everything on
// loopback.
func Default() *Config {
	return &Config{
		DataDir:  "./flyscreen-data",
		HTTP:     HTTP{Listen: "127.0.0.1:8080"},
		Upstream: Upstream{Connections: 1},
		Broker:   Broker{Listen: "127.0.0.1:1883"},
		Outbox:   Outbox{Enabled: true, MaxBytes: 256 * mib, MaxAge: 24 * time.Hour},
		Limits: Limits{
			PayloadBytes: 256 * kib, TopicBytes: 1024, TopicLevels: 32, TokenBytes: 8 * kib, TokenGrants: 100,
			RequestFilters: 16, ConnectionFilters: 100, StreamsPerSubject: 20, StreamsPerAddress: 200, Streams: 20_000,
			PublishRate: 200, PublishBurst: 400, QueueMessages: 1000, QueueBytes: 1 * mib,
			WindowAge: 5 * time.Minute, WindowBytes: 64 * mib,
			WriteTimeout: 10 * time.Second, AuthTimeout: 5 * time.Second, HeaderTimeout: 10 * time.Second,
			BodyTimeout: 30 * time.Second, PublishTimeout: 5 * time.Second,
			UpstreamKeepAlive: 5 * time.Second, UpstreamPingTimeout: 2 * time.Second,
			UpstreamBackoffMin: 200 * time.Millisecond, UpstreamBackoffMax: 5 * time.Second,
			DrainTimeout: 20 * time.Second, BatchMessages: 1000,
			SnapshotMessages: 10_000, SnapshotBytes: 16 * mib, Linger: 5 * time.Minute, Leeway: 30 * time.Second,
		},
		Log: Log{Format: "text", Level: "info", Audit: "all"},
	}
}

// Key is what people are told about a setting.
type Key struct {
	Name  string // dotted, as in the file: "http.listen"
	Env   string // FLYSCREEN_HTTP_LISTEN
	Flag  string // "listen", or "" when only --set reaches it
	Usage string // a few words, the value's name in backquotes; only for keys with a flag
	List  bool   // several values: a YAML list, or separated by commas
}

// Keys lists every setting in the order of the documentation.
func Keys() []Key {
	out := make([]Key, len(keys))
	for i, k := range keys {
		out[i] = Key{Name: k.name, Env: envName(k.name), Flag: k.flag, Usage: k.usage, List: k.kind == list}
	}
	return out
}

// envName is the environment variable of a key.
func envName(key string) string {
	return "FLYSCREEN_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// flagged gives the key its own flag.
func (k key) flagged(name, usage string) key {
	k.flag, k.usage = name, usage
	return k
}

// byName finds a key.
func byName(name string) (key, bool) {
	for _, k := range keys {
		if k.name == name {
			return k, true
		}
	}
	return key{}, false
}
