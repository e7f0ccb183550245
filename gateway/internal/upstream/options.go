package upstream

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flyscreen/gateway/mqtt"
)

// Options says which broker to use and how patient to be with it. The zero value
// of every field but URL means its default.
type Options struct {
	// URL is scheme://host[:port][/path]; the scheme is tcp or mqtt (port 1883),
	// ssl, tls or mqtts (8883), ws (80) or wss (443). A path is for ws and wss
	// only and defaults to /mqtt.
	URL string
	// Username and Password go into each CONNECT; a password needs a username.
	Username, Password string
	// ClientID is the prefix of the client identifiers: each connection appends
	// "-live", "-publish" or "-snapshot", and a number from the second of a kind on. Default "flyscreen-" and six random
	// characters. Two gateways with one prefix throw each other out for ever.
	ClientID string
	// TLS is used for ssl and wss; nil means the system's defaults.
	TLS *tls.Config
	// KeepAlive is how long a silent link is trusted before it is pinged (default
	// 5 s, in whole seconds, rounded up), PingTimeout how long an answer may take
	// (2 s). A link on which nothing at all was read for 1.25 KeepAlive (at most
	// 5 s more than it) + PingTimeout is given up: by default 8.25 s.
	KeepAlive, PingTimeout time.Duration
	// ConnectTimeout bounds name lookup, dialling, TLS, the MQTT handshake and the
	// first subscription together (default 5 s); WriteTimeout each write (5 s).
	ConnectTimeout, WriteTimeout time.Duration
	// BackoffMin and BackoffMax bound the full-jitter wait between connection
	// attempts (defaults 200 ms and 5 s).
	BackoffMin, BackoffMax time.Duration
	// MaxPacket is the largest packet accepted from the broker, in bytes (default
	// 1 MiB + 64 KiB). A larger message is thrown away as it comes in, acknowledged,
	// and told by Missed or an incomplete snapshot.
	MaxPacket int
	// Publishers is how many connections publish (default 1, at most 16); a topic
	// always takes the same one.
	Publishers int
	// MaxInflight is how many publishes of one connection may wait for the broker's
	// answer (default 4,096, at most 60,000); beyond it, and beyond 4 MiB that wait to
	// be written, Publish fails with fault.Overloaded.
	MaxInflight int
	// SnapshotMessages and SnapshotBytes (of topics and payloads) cap one Retained
	// call (defaults 10,000 and 16 MiB).
	SnapshotMessages, SnapshotBytes int
	// Profile names the kind of broker (Profiles); "" is one about which nothing is
	// known: what matters is found out, and the rest is as MQTT 3.1.1 has it.
	Profile string
	// FiltersPerSubscribe bounds the filters of one SUBSCRIBE or UNSUBSCRIBE (default
	// the profile's, at most 500).
	FiltersPerSubscribe int
	// Logger gets the room's log lines; nil discards them.
	Logger *slog.Logger
	// Metrics gets the room's metrics; nil means none are exposed.
	Metrics prometheus.Registerer
	// Deliver gets the live messages, in the broker's order. It is never called
	// concurrently with itself, Link, Missed or a Barrier's reached, and must
	// neither block nor call this package.
	Deliver func(mqtt.Message)
	// Link says that the live connection came (true) or went (false), under
	// Deliver's rules: false comes after the last Deliver of the connection that
	// went, true before the first of the one that came.
	Link func(up bool)
	// Missed tells, under Deliver's rules and in its order, that the live message
	// on topic was larger than MaxPacket.
	Missed func(topic mqtt.Topic)
	// Control gets, under Deliver's rules, what gateways that share the broker tell
	// each other (PublishControl), with what is retained each time the live connection
	// comes, before Link; nil: nothing is asked for. name is the topic's last part.
	Control func(name string, payload []byte)
	// PublishLink says that a connection that publishes came or went, after all
	// publishes of one that went have ended. survived says of one that came that the
	// broker, which ended the one before, had been there all the time: something that
	// was under way is to blame. It must not block.
	PublishLink func(line int, up, survived bool)
}

// Protocol maxima (3.1.1 section 2.2.3) and the room's own fixed bounds.
const (
	maxRemaining   = 268_435_455
	maxPublishers  = 16
	maxInflightCap = 60_000           // packet identifiers end at 65,535
	drainLimit     = 5 * time.Second  // how long Run waits for publishes when it stops
	answerLimit    = 10 * time.Second // SUBACK and UNSUBACK
	barrierLimit   = 5 * time.Second  // one snapshot round
	linkPatience   = 5 * time.Second  // for the snapshot connection while the live one is there
	snapshotQueue  = 10_000           // distinct filters waiting for a snapshot round
	roundsTogether = 16               // snapshot rounds that share their packets
	quietTime      = 200 * time.Millisecond
	quietLimit     = 2 * time.Second // for a broker that sends retained messages late
	maxFilters     = 500             // of one packet: its answer must stay below maxControl

	// At most 50 SUBSCRIBE in any second, whatever they are for.
	subscribeBurst  = 10
	subscribeSecond = 40
)

// endpoint is a checked URL.
type endpoint struct {
	secure, web bool
	host        string // host:port
	name        string // the host alone, for TLS
	url         string // in the form that is logged and dialled by ws
}

func (o Options) withDefaults() Options {
	setDefault(&o.KeepAlive, 5*time.Second)
	setDefault(&o.PingTimeout, 2*time.Second)
	setDefault(&o.ConnectTimeout, 5*time.Second)
	setDefault(&o.WriteTimeout, 5*time.Second)
	setDefault(&o.BackoffMin, 200*time.Millisecond)
	setDefault(&o.BackoffMax, max(o.BackoffMin, 5*time.Second))
	setDefault(&o.MaxPacket, 1<<20+64<<10)
	setDefault(&o.MaxInflight, 4096)
	setDefault(&o.Publishers, 1)
	setDefault(&o.FiltersPerSubscribe, profiles[o.Profile].filtersPerSubscribe)
	setDefault(&o.SnapshotMessages, 10_000)
	setDefault(&o.SnapshotBytes, 16<<20)
	setDefault(&o.ClientID, "flyscreen-"+randomHex(3))
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("room", "upstream")
	if o.Deliver == nil {
		o.Deliver = func(mqtt.Message) {}
	}
	if o.Link == nil {
		o.Link = func(bool) {}
	}
	if o.PublishLink == nil {
		o.PublishLink = func(int, bool, bool) {}
	}
	if o.Missed == nil {
		o.Missed = func(mqtt.Topic) {}
	}
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate returns all complaints about o, which has its defaults, joined.
func (o Options) validate() (endpoint, error) {
	ep, err := parseEndpoint(o.URL)
	complaints := []error{err}
	complain := func(bad bool, format string, args ...any) {
		if bad {
			complaints = append(complaints, fmt.Errorf(format, args...))
		}
	}
	complain(o.Password != "" && o.Username == "", "a password needs a username (MQTT 3.1.1 section 3.1.2.9)")
	complain(len(o.ClientID) > 200 || strings.ContainsRune(o.ClientID, 0), "client id must have at most 200 bytes and no NUL")
	complain(len(o.Username) > mqtt.MaxBytes || len(o.Password) > mqtt.MaxBytes, "username and password must have at most %d bytes", mqtt.MaxBytes)
	complain(o.KeepAlive < 0 || o.KeepAlive > time.Hour, "keep alive %s is outside 0 to 1h", o.KeepAlive)
	for name, d := range map[string]time.Duration{"ping timeout": o.PingTimeout, "connect timeout": o.ConnectTimeout, "write timeout": o.WriteTimeout, "backoff min": o.BackoffMin} {
		complain(d < 0, "%s %s is negative", name, d)
	}
	complain(o.BackoffMin > time.Hour, "backoff min %s is more than 1h", o.BackoffMin)
	complain(o.BackoffMax < o.BackoffMin, "backoff max %s is less than backoff min %s", o.BackoffMax, o.BackoffMin)
	complain(o.MaxPacket < 1024 || o.MaxPacket > maxRemaining, "max packet %d is outside 1,024 to %d", o.MaxPacket, maxRemaining)
	complain(o.MaxInflight < 0 || o.MaxInflight > maxInflightCap, "max inflight %d is outside 1 to %d", o.MaxInflight, maxInflightCap)
	complain(o.Publishers < 0 || o.Publishers > maxPublishers, "publishers %d is outside 1 to %d", o.Publishers, maxPublishers)
	_, known := profiles[o.Profile]
	complain(!known, "the profile %q is none of %s", o.Profile, strings.Join(Profiles(), ", "))
	complain(known && (o.FiltersPerSubscribe < 1 || o.FiltersPerSubscribe > maxFilters), "filters per subscribe %d is outside 1 to %d", o.FiltersPerSubscribe, maxFilters)
	complain(o.SnapshotMessages < 0 || o.SnapshotBytes < 0, "snapshot caps must not be negative")
	return ep, errors.Join(complaints...)
}

func parseEndpoint(raw string) (endpoint, error) {
	if raw == "" {
		return endpoint{}, errors.New("the broker's url is missing")
	}
	u, err := url.Parse(raw)
	if err != nil { // its text would repeat the URL, which may hold a password
		return endpoint{}, errors.New("the broker's url does not parse; want scheme://host[:port][/path]")
	}
	ep := endpoint{name: u.Hostname()}
	var port string
	switch u.Scheme {
	case "tcp", "mqtt":
		port = "1883"
	case "ssl", "tls", "mqtts":
		port, ep.secure = "8883", true
	case "ws":
		port, ep.web = "80", true
	case "wss":
		port, ep.web, ep.secure = "443", true, true
	default:
		return endpoint{}, fmt.Errorf("the broker url's scheme %q is none of tcp, mqtt, ssl, tls, mqtts, ws, wss", u.Scheme)
	}
	if u.User != nil {
		return endpoint{}, errors.New("the broker's url must not hold a username or password; they have options of their own")
	}
	if ep.name == "" {
		return endpoint{}, errors.New("the broker's url has no host")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	ep.host = net.JoinHostPort(ep.name, port)
	if !ep.web && u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return endpoint{}, fmt.Errorf("the broker url's path %q means nothing for the scheme %q", u.Path, u.Scheme)
	}
	ep.url = u.Scheme + "://" + ep.host
	if ep.web {
		if u.Path == "" {
			u.Path = "/mqtt"
		}
		u.Host = ep.host
		ep.url = u.String()
	}
	return ep, nil
}

// randomHex returns n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // documented never to return an error
	return hex.EncodeToString(b)
}
