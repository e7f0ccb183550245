// Package config turns a file, the environment and the command line into one
// checked Config. Every setting has one line in the table in keys.go; its name,
// its environment variable, its flag, its default and its rule all come from
// there. Load reads files and writes nothing.
package config

import (
	"net/netip"
	"time"

	"flyscreen/gateway/mqtt"
)

// Config is what a gateway runs by. One that came from Load is complete and
// checked; nobody changes it afterwards, so it may be shared.
type Config struct {
	DataDir  string // where what must survive a restart is kept; need not exist yet
	HTTP     HTTP
	Upstream Upstream
	Broker   Broker
	Auth     Auth
	Outbox   Outbox
	Limits   Limits
	Log      Log
}

// HTTP says where and for whom the gateway listens.
type HTTP struct {
	Listen         string   // host:port
	AdminListen    string   // host:port of /metrics; "" is the main listener, for loopback peers only
	AllowedOrigins []string // lower case: scheme://host[:port] or https://*.example.com; none is "same origin only"
	TrustedProxies []netip.Prefix
	TLS            ServerTLS
	PProf          bool // profiles at /debug/pprof/, where /metrics is
}

// ServerTLS names PEM files. Cert and Key are both set or both empty.
type ServerTLS struct {
	Cert, Key string
	ClientCA  string // PEM file of the authorities whose client certificates count; "" asks for none
}

// Upstream is the broker behind the gateway.
type Upstream struct {
	URL          string // scheme://host:port[/path], the port always present; "" is the embedded broker
	Username     string
	Password     Secret
	ClientID     string   // the connections' common prefix; "" lets the gateway draw one
	Connections  int      // on which the gateway publishes; a topic always takes the same one
	Profile      string   // the kind of broker; "" is an unknown one
	DollarTopics []string // prefixes such as "$aws/" under which "$" topics may be published to
	TLS          ClientTLS
}

// ClientTLS is how the broker is recognised, and how the gateway shows itself.
type ClientTLS struct {
	CA         string // PEM file; "" is the system's authorities
	Cert, Key  string // PEM files, both set or both empty
	ServerName string // the name in the broker's certificate; "" is the URL's host
	ALPN       []string
}

// Broker is the embedded broker, which runs while Upstream.URL is empty.
type Broker struct {
	Listen string // host:port, a loopback address
}

// Outbox keeps on disk, in DataDir, what cannot be delivered to the broker now.
type Outbox struct {
	Enabled  bool
	MaxBytes int           // of all messages in it; beyond it they are refused
	MaxAge   time.Duration // after which a message goes to quarantine
}

// Auth says who may do what.
type Auth struct {
	Issuers           []Issuer
	Anonymous         Anonymous
	APIKeys           File // made by flyscreen key new
	Passwords         File // in the format of mosquitto_passwd
	ACL               File // in the format of Mosquitto's acl_file
	AllowTokenInQuery bool
	Cookie            string // the name of one that may hold a token; "" for none
}

// File is a file whose content is read again when it changes; the zero value is
// none.
type File struct {
	Path string
	Text []byte // what it held when the configuration was loaded; not nil for a path
}

// Issuer is one source of tokens. Exactly one of Secret, Keys, JWKSURL and OIDC is
// set.
type Issuer struct {
	Issuer     string // the token's iss; "" takes the tokens that no other issuer takes
	Audience   []string
	Algorithms []string // none: HS256 for a secret, the asymmetric ones for keys
	Secret     Secret
	SecretFile string // where Secret was read from; "" if it stands in the configuration itself
	KeysFile   string
	Keys       []byte // what KeysFile holds: PEM or a JWKS document
	JWKSURL    string // of a JWKS document
	OIDC       string // of an OpenID provider; it is the issuer too
}

// Anonymous is what requests without a credential may do; both empty refuses them.
type Anonymous struct {
	Pub, Sub []mqtt.Filter
}

// Limits bounds what clients and the broker can make the gateway hold or wait
// for. Bytes counts are in bytes.
type Limits struct {
	PayloadBytes        int
	TopicBytes          int
	TopicLevels         int
	TokenBytes          int
	TokenGrants         int
	RequestFilters      int
	ConnectionFilters   int
	StreamsPerSubject   int
	StreamsPerAddress   int
	Streams             int
	PublishRate         float64 // publishes a second for one principal
	PublishBurst        int
	QueueMessages       int // messages waiting for one client
	WindowAge           time.Duration
	WindowBytes         int
	QueueBytes          int
	WriteTimeout        time.Duration
	AuthTimeout         time.Duration // how long a WebSocket may stay without a credential
	HeaderTimeout       time.Duration
	BodyTimeout         time.Duration
	PublishTimeout      time.Duration
	UpstreamKeepAlive   time.Duration // whole seconds, as MQTT counts it
	UpstreamPingTimeout time.Duration
	UpstreamBackoffMin  time.Duration
	UpstreamBackoffMax  time.Duration
	DrainTimeout        time.Duration // how long Stop waits for requests and streams
	BatchMessages       int           // messages in one POST /v1/messages
	SnapshotMessages    int
	SnapshotBytes       int
	Linger              time.Duration // of a filter at the broker after its last stream left; 0 is none
	Leeway              time.Duration // how far clocks may differ when a token's times are checked
}

// Log is how the gateway talks on standard error.
type Log struct {
	Format string // json or text
	Level  string // debug, info, warn or error
	Audit  string // all, refusals or off: which decisions get a line
}

// UsesDevKey reports whether tokens are checked with the development key, because
// no issuer is configured. It is for this machine only: where others can come it
// does not count beside API keys, passwords or certificates, and Load refuses a
// configuration that has none of them either.
func (c *Config) UsesDevKey() bool {
	others := c.Auth.APIKeys.Path != "" || c.Auth.Passwords.Path != "" || c.HTTP.TLS.ClientCA != ""
	return len(c.Auth.Issuers) == 0 && (!others || isLoopback(c.HTTP.Listen))
}

// TopicLimits is what topics and filters from clients are held to.
func (c *Config) TopicLimits() mqtt.Limits {
	return mqtt.Limits{Bytes: c.Limits.TopicBytes, Levels: c.Limits.TopicLevels}
}
