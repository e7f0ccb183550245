package config

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"time"

	"flyscreen/gateway/mqtt"
)

// check judges what keys say together, once each of them was judged alone.
func (l *loader) check(c *Config) {
	l.checkSecretPairs()
	l.checkListeners(c)
	l.checkServerTLS(c.HTTP.TLS)
	l.checkUpstream(c.Upstream)
	l.checkProfile(c)
	l.checkAnonymous(c)
	l.checkAuth(c)
	l.checkLimits(c.Limits)
}

func (l *loader) checkSecretPairs() {
	for _, pair := range secretPairs {
		a, first := l.given[pair[0]]
		b, second := l.given[pair[1]]
		if first && second && a.text != "" && b.text != "" {
			l.complain(pair[0], wrong("keep one of them", "is given beside %s", pair[1]))
		}
	}
}

func (l *loader) checkListeners(c *Config) {
	if c.UsesDevKey() && !isLoopback(c.HTTP.Listen) {
		l.complain("http.listen", wrong("add an issuer to auth.issuers, or listen on 127.0.0.1",
			"%s can be reached from other machines, and no issuer is configured: the development key is for this machine only", c.HTTP.Listen))
	}
	if same(c.HTTP.AdminListen, c.HTTP.Listen) {
		l.complain("http.admin_listen", wrong("choose another port or leave it empty", "is the same address as http.listen"))
	}
	if c.Upstream.URL != "" {
		return
	}
	if same(c.Broker.Listen, c.HTTP.Listen) || same(c.Broker.Listen, c.HTTP.AdminListen) {
		l.complain("broker.listen", wrong("choose another port", "%s is already taken by HTTP", c.Broker.Listen))
	}
}

// same reports whether two addresses ask for the same fixed port of one host.
func same(a, b string) bool {
	_, port, err := net.SplitHostPort(a)
	return err == nil && port != "0" && a == b
}

func (l *loader) checkServerTLS(t ServerTLS) {
	l.checkPair("http.tls", t.Cert, t.Key)
	if t.ClientCA == "" {
		return
	}
	if t.Cert == "" {
		l.complain("http.tls.client_ca", wrong("set http.tls.cert and http.tls.key", "has no effect without TLS: only then do clients show a certificate"))
		return
	}
	pem, err := readFile(t.ClientCA)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
		err = wrong("name a file of PEM certificates", "the file %s holds no certificate", t.ClientCA)
	}
	l.complain("http.tls.client_ca", err)
}

// checkPair checks a certificate and its key under section.
func (l *loader) checkPair(section, cert, key string) {
	switch {
	case cert == "" && key == "":
		return
	case key == "":
		l.complain(section+".cert", wrong("add "+section+".key", "has no key beside it"))
		return
	case cert == "":
		l.complain(section+".key", wrong("add "+section+".cert", "has no certificate beside it"))
		return
	}
	_, certErr := readFile(cert)
	_, keyErr := readFile(key)
	l.complain(section+".cert", certErr)
	l.complain(section+".key", keyErr)
	if certErr != nil || keyErr != nil {
		return
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		l.complain(section+".cert", wrong("name a PEM certificate and the PEM key that belongs to it", "%s and %s do not fit: %v", cert, key, err))
	}
}

func (l *loader) checkUpstream(u Upstream) {
	if u.Password != "" && u.Username == "" {
		key := "upstream.password"
		if _, ok := l.given[key]; !ok {
			key = "upstream.password_file"
		}
		// MQTT 3.1.1 [MQTT-3.1.2-22]: without a user name there is no password.
		l.complain(key, wrong("set upstream.username", "has no user name beside it, and MQTT cannot send a password alone"))
	}
	t := u.TLS
	if u.URL != "" && !usesTLS(u.URL) || u.URL == "" && l.given["upstream.url"].text == "" {
		for _, f := range []struct{ key, text string }{{"ca", t.CA}, {"cert", t.Cert}, {"key", t.Key}, {"server_name", t.ServerName}} {
			if f.text != "" {
				l.complain("upstream.tls."+f.key, wrong("write mqtts://… or wss://…, or leave it out", "has no effect, since upstream.url does not use TLS"))
			}
		}
		return
	}
	l.checkPair("upstream.tls", t.Cert, t.Key)
	if t.CA == "" {
		return
	}
	pem, err := readFile(t.CA)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
		err = wrong("name a file of PEM certificates", "the file %s holds no certificate", t.CA)
	}
	l.complain("upstream.tls.ca", err)
}

// checkAuth finds rules that nobody could fall under.
func (l *loader) checkAuth(c *Config) {
	if c.Auth.ACL.Path != "" && c.Auth.APIKeys.Path == "" && c.Auth.Passwords.Path == "" && c.HTTP.TLS.ClientCA == "" {
		l.complain("auth.acl_file", wrong("set auth.passwords_file, auth.api_keys_file or http.tls.client_ca, or leave it out",
			"has no effect: it is for the names of passwords, API keys and client certificates, and none of them is accepted"))
	}
}

// checkAnonymous holds the filters to the configured limits.
func (l *loader) checkAnonymous(c *Config) {
	check := func(key string, filters []mqtt.Filter) {
		for _, f := range filters {
			if _, err := mqtt.ParseFilter(string(f), c.TopicLimits()); err != nil {
				l.complain(key, wrong("shorten it or raise limits.topic_bytes and limits.topic_levels", "the filter %q: %v", f, err))
			}
		}
	}
	check("auth.anonymous.pub", c.Auth.Anonymous.Pub)
	check("auth.anonymous.sub", c.Auth.Anonymous.Sub)
}

func (l *loader) checkLimits(m Limits) {
	if m.QueueBytes < m.PayloadBytes {
		l.complain(l.either("limits.queue_bytes", "limits.payload_bytes"), wrong("raise limits.queue_bytes or lower limits.payload_bytes",
			"a client's queue of %s cannot hold one payload of %s", formatBytes(m.QueueBytes), formatBytes(m.PayloadBytes)))
	}
	if m.UpstreamBackoffMin > m.UpstreamBackoffMax {
		l.complain(l.either("limits.upstream_backoff_min", "limits.upstream_backoff_max"), wrong("raise limits.upstream_backoff_max",
			"the shortest wait, %s, is longer than the longest, %s", formatDuration(m.UpstreamBackoffMin), formatDuration(m.UpstreamBackoffMax)))
	}
	if m.RequestFilters > m.ConnectionFilters {
		l.complain(l.either("limits.request_filters", "limits.connection_filters"), wrong("raise limits.connection_filters",
			"one request may bring %d filters, and a connection may hold only %d", m.RequestFilters, m.ConnectionFilters))
	}
	if m.UpstreamKeepAlive%time.Second != 0 {
		l.complain("limits.upstream_keep_alive", wrong("write whole seconds, as MQTT counts it", "%s is not a number of whole seconds", formatDuration(m.UpstreamKeepAlive)))
	}
}

// either is the first of the keys that was given, so that a complaint about both
// stands where somebody wrote something.
func (l *loader) either(a, b string) string {
	if _, ok := l.given[a]; ok {
		return a
	}
	return b
}
