package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/config"
	"flyscreen/gateway/internal/api"
	"flyscreen/gateway/internal/audit"
	"flyscreen/gateway/internal/broker"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/outbox"
	"flyscreen/gateway/internal/publish"
	"flyscreen/gateway/internal/sse"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/internal/ws"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// brokerExtra is what a packet needs beyond the largest payload.
const brokerExtra = 128 << 10

// batchPayloads is how many of the largest payloads a batch's body may hold.
const batchPayloads = 16

// Options are what a gateway needs besides its configuration.
type Options struct {
	Logger  *slog.Logger
	Version string
	// DevKey checks tokens while no issuer is configured.
	DevKey []byte
}

// Gateway is one running gateway. New checks, Start runs, Stop drains; its
// methods are safe for concurrent use.
type Gateway struct {
	config  *config.Config
	options Options
	log     *slog.Logger
	metrics *prometheus.Registry
	auth    *auth.Authenticator
	audit   *audit.Log
	origins origins
	proxies proxies
	tls     *tls.Config // for clients; nil without

	broker   *broker.Broker // nil in front of a broker of its own
	upstream *upstream.Upstream
	outbox   *outbox.Outbox // nil when it is off
	hub      *hub.Hub
	streams  *stream.Registry
	api      *api.Door
	sse      *sse.Door
	ws       *ws.Door

	main, admin listener
	draining    atomic.Bool
	doors       sync.WaitGroup // requests being served, hijacked ones too
	failed      chan error     // the first fatal error of a running room
	stopped     chan struct{}  // closed at the end of Stop
	rights      chan struct{}  // says that credentials may be worth less
	reload      chan struct{}  // asks for the files to be read now

	mu    sync.Mutex // guards what follows
	steps []step
	done  bool
}

// New checks cfg as far as that goes without I/O other than reading key files.
func New(cfg *config.Config, o Options) (*Gateway, error) {
	o.Logger = slog.New(redactor{o.Logger.Handler()})
	g := &Gateway{
		config:  cfg,
		options: o,
		log:     o.Logger.With("room", "gateway"),
		audit:   audit.New(o.Logger, cfg.Log.Audit),
		metrics: prometheus.NewRegistry(),
		origins: origins(cfg.HTTP.AllowedOrigins),
		proxies: proxies(cfg.HTTP.TrustedProxies),
		failed:  make(chan error, 1),
		stopped: make(chan struct{}),
		rights:  make(chan struct{}, 1),
		reload:  make(chan struct{}, 1),
	}
	g.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var errs []error
	var err error
	g.auth, err = auth.New(g.authOptions())
	errs = append(errs, err)
	g.tls, err = serverTLS(cfg.HTTP.TLS)
	errs = append(errs, err)
	if cfg.Upstream.URL == "" {
		g.broker, err = broker.New(broker.Options{
			Listen:    cfg.Broker.Listen,
			MaxPacket: cfg.Limits.PayloadBytes + brokerExtra,
			Logger:    o.Logger,
			Metrics:   g.metrics,
		})
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Gateway) authOptions() auth.Options {
	cfg := g.config
	o := auth.Options{
		Anonymous:         auth.Grants{Pub: cfg.Auth.Anonymous.Pub, Sub: cfg.Auth.Anonymous.Sub},
		APIKeys:           cfg.Auth.APIKeys.Text,
		Passwords:         cfg.Auth.Passwords.Text,
		ACL:               cfg.Auth.ACL.Text,
		AllowTokenInQuery: cfg.Auth.AllowTokenInQuery,
		Cookie:            cfg.Auth.Cookie,
		MaxTokenBytes:     cfg.Limits.TokenBytes,
		MaxGrants:         cfg.Limits.TokenGrants,
		Leeway:            cfg.Limits.Leeway,
		Limits:            cfg.TopicLimits(),
		Address:           g.proxies.address,
		Changed:           g.rightsChanged,
		Logger:            g.options.Logger,
		Metrics:           g.metrics,
	}
	for _, i := range cfg.Auth.Issuers {
		o.Issuers = append(o.Issuers, auth.Issuer{
			Name: i.Issuer, Audience: i.Audience, Algorithms: i.Algorithms,
			Secret: []byte(i.Secret), Keys: i.Keys, JWKSURL: i.JWKSURL, OIDC: i.OIDC,
		})
	}
	if cfg.UsesDevKey() && g.options.DevKey != nil {
		o.Issuers = append(o.Issuers, auth.Issuer{Secret: g.options.DevKey})
	}
	return o
}

// build makes every room, in one straight line. The embedded broker runs already,
// because only then is its address known.
func (g *Gateway) build() error {
	cfg, limits, log := g.config, g.config.Limits, g.options.Logger
	clientTLS, err := cfg.Upstream.TLS.Config()
	if err != nil {
		return err
	}
	g.upstream, err = upstream.New(upstream.Options{
		URL:              g.BrokerURL(),
		Username:         cfg.Upstream.Username,
		Password:         string(cfg.Upstream.Password),
		ClientID:         cfg.Upstream.ClientID,
		Publishers:       cfg.Upstream.Connections,
		TLS:              clientTLS,
		KeepAlive:        limits.UpstreamKeepAlive,
		PingTimeout:      limits.UpstreamPingTimeout,
		BackoffMin:       limits.UpstreamBackoffMin,
		BackoffMax:       limits.UpstreamBackoffMax,
		MaxPacket:        max(1<<20, limits.PayloadBytes) + brokerExtra,
		Profile:          cfg.Upstream.Profile,
		SnapshotMessages: limits.SnapshotMessages,
		SnapshotBytes:    limits.SnapshotBytes,
		Logger:           log,
		Metrics:          g.metrics,
		Deliver:          func(m mqtt.Message) { g.hub.Deliver(m) },
		Link:             func(up bool) { g.hub.Link(up) },
		Missed:           func(t mqtt.Topic) { g.hub.Missed(t) },
		PublishLink:      g.publishLink,
		Control:          g.heed,
	})
	if err != nil {
		return err
	}
	g.hub = hub.New(hub.Options{
		Source:              g.upstream,
		Retainer:            g.upstream,
		SettleBefore:        g.upstream.SettleBefore(),
		WindowAge:           limits.WindowAge,
		WindowBytes:         limits.WindowBytes,
		Linger:              linger(limits.Linger),
		FiltersPerSubscribe: g.upstream.FiltersPerSubscribe(),
		Logger:              log,
		Metrics:             g.metrics,
	})
	g.streams = stream.NewRegistry(g.hub, stream.Limits{
		QueueMessages: limits.QueueMessages,
		QueueBytes:    limits.QueueBytes,
		Filters:       limits.ConnectionFilters,
		PerSubject:    limits.StreamsPerSubject,
		PerAddress:    limits.StreamsPerAddress,
		Total:         limits.Streams,
	}, log, g.metrics)
	g.streams.Trust(g.auth.Current)
	var target publish.Broker = g.upstream
	if cfg.Outbox.Enabled {
		g.outbox = g.newOutbox()
		target = g.outbox
	}
	desk := publish.New(publish.Options{
		Broker:       target,
		Topics:       cfg.TopicLimits(),
		PayloadBytes: limits.PayloadBytes,
		DollarTopics: cfg.Upstream.DollarTopics,
		Reserved:     upstream.Reserved,
		Rate:         limits.PublishRate,
		Burst:        limits.PublishBurst,
		Timeout:      limits.PublishTimeout,
		Audit:        g.audit,
		Metrics:      g.metrics,
	})
	g.api = api.New(api.Options{
		Publish:       desk,
		Retainer:      g.upstream,
		Streams:       g.streams,
		Topics:        cfg.TopicLimits(),
		MaxFilters:    limits.RequestFilters,
		BatchMessages: limits.BatchMessages,
		BatchBytes:    batchPayloads * limits.PayloadBytes,
		BodyTimeout:   limits.BodyTimeout,
		Timeout:       limits.PublishTimeout,
		Ready:         g.complaints,
		Ticket:        g.auth.IssueTicket,
		Revoke:        g.revoke,
		Audit:         g.audit,
		Outbox:        g.outbox,
		Upstream:      g.upstreamState,
		Logger:        log,
		Address:       g.proxies.address,
	})
	g.sse = sse.New(sse.Options{
		Streams:      g.streams,
		Hub:          g.hub,
		Audit:        g.audit,
		Filters:      cfg.TopicLimits(),
		MaxFilters:   limits.RequestFilters,
		WriteTimeout: limits.WriteTimeout,
		Logger:       log,
		Go:           g.doors.Go,
		Address:      g.proxies.address,
	})
	g.ws = ws.New(ws.Options{
		Auth:         g.auth,
		Streams:      g.streams,
		Hub:          g.hub,
		Audit:        g.audit,
		Go:           g.doors.Go,
		Publish:      desk,
		Filters:      cfg.TopicLimits(),
		MaxFilters:   limits.RequestFilters,
		AuthTimeout:  limits.AuthTimeout,
		WriteTimeout: limits.WriteTimeout,
		Limits: wire.Limits{
			PayloadBytes:   limits.PayloadBytes,
			TopicBytes:     limits.TopicBytes,
			RequestFilters: limits.RequestFilters,
			Filters:        limits.ConnectionFilters,
			QueueMessages:  limits.QueueMessages,
			QueueBytes:     limits.QueueBytes,
		},
		Logger:  log,
		Address: g.proxies.address,
	})
	return nil
}

// linger spells a wait for the hub, where zero means the default.
func linger(configured time.Duration) time.Duration {
	if configured == 0 {
		return -1
	}
	return configured
}

// complaints are the reasons why the gateway is not ready; none when it is.
func (g *Gateway) complaints() (all []error) {
	if g.draining.Load() {
		all = append(all, errors.New("the gateway is shutting down"))
	}
	var each interface{ Unwrap() []error }
	if err := g.upstream.Ready(); errors.As(err, &each) {
		all = append(all, each.Unwrap()...)
	} else if err != nil {
		all = append(all, err)
	}
	return append(all, g.auth.Ready()...)
}

// URL is where clients find the gateway, after Start.
func (g *Gateway) URL() string { return g.main.url }

// AdminURL is where the admin listener is; "" without one.
func (g *Gateway) AdminURL() string { return g.admin.url }

// BrokerURL is the broker behind the gateway; the embedded one's after Start.
func (g *Gateway) BrokerURL() string {
	if g.broker == nil {
		return g.config.Upstream.URL
	}
	if addr := g.broker.Addr(); addr != nil {
		return "tcp://" + addr.String()
	}
	return ""
}

// listener is an address that serves HTTP.
type listener struct {
	server *http.Server
	url    string
}

// listen opens address and serves handler there until the stop step that it adds.
func (g *Gateway) listen(ctx context.Context, address string, handler http.Handler, tlsConfig *tls.Config) (listener, error) {
	socket, err := (&net.ListenConfig{Control: giveUpOnTheDead}).Listen(ctx, "tcp", address)
	if err != nil {
		return listener{}, err
	}
	l := listener{url: "http://" + reachable(socket.Addr())}
	l.server = &http.Server{
		Handler:           handler,
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: g.config.Limits.HeaderTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	serve := func() error { return l.server.Serve(socket) }
	if tlsConfig != nil {
		l.url = "https://" + reachable(socket.Addr())
		serve = func() error { return l.server.ServeTLS(socket, "", "") }
	}
	var served sync.WaitGroup
	served.Go(func() {
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			g.fail(err)
		}
	})
	g.onStop("listener "+address, func(ctx context.Context) error {
		defer served.Wait()
		ctx, cancel := context.WithTimeout(ctx, g.config.Limits.DrainTimeout)
		defer cancel()
		if err := l.server.Shutdown(ctx); err != nil {
			return errors.Join(err, l.server.Close())
		}
		return nil
	})
	return l, nil
}

// reachable is an address at which this machine finds a listener that may listen
// on all.
func reachable(addr net.Addr) string {
	tcp, is := addr.(*net.TCPAddr)
	if !is || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
}
