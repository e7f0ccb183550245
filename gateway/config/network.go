package config

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"flyscreen/gateway/mqtt"
)

// address checks host:port. The host may be empty (all addresses); port 0 lets
// the system choose.
func address(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", wrong("write host:port, such as 127.0.0.1:8080 or [::1]:8080", "%q is not an address", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", wrong("write a number from 0 to 65535", "%q is not a port", port)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return unicode.IsSpace(r) || r == '/' }) {
		return "", wrong("write host:port without a scheme", "%q is not a host", host)
	}
	return s, nil
}

// loopbackAddress checks an address that only this machine can reach.
func loopbackAddress(s string) (string, error) {
	if _, err := address(s); err != nil {
		return "", err
	}
	if !isLoopback(s) {
		return "", wrong("write 127.0.0.1:1883; for other machines run a broker with access control and set upstream.url",
			"%s can be reached from other machines, and the embedded broker has no access control", s)
	}
	return s, nil
}

// isLoopback reports whether a checked address is reachable from this machine
// only. Names other than localhost are not looked up and count as reachable.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// schemes of brokers, with their default ports, in the order in which people are
// told of them.
var schemes = []struct{ name, port string }{
	{"tcp", "1883"}, {"mqtt", "1883"}, {"mqtts", "8883"}, {"ssl", "8883"}, {"ws", "80"}, {"wss", "443"},
}

// brokerURL checks a broker's URL and completes its port.
func brokerURL(s string) (string, error) {
	const example = "write tcp://host:1883"
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		if err == nil && u.Scheme != "" && strings.Contains(s, "://") {
			return "", wrong(example, "%q has no host", s)
		}
		if _, addrErr := address(s); addrErr == nil {
			return "", wrong("write tcp://"+s, "has no scheme")
		}
		return "", wrong(example, "%s is not a URL", quoteURL(s))
	}
	port, err := schemePort(u.Scheme, example)
	if err != nil {
		return "", err
	}
	switch {
	case u.User != nil:
		return "", wrong("use upstream.username and upstream.password_file", "holds a user name or password, which would show up in logs")
	case u.Hostname() == "":
		return "", wrong(example, "has no host")
	case u.Fragment != "":
		return "", wrong("leave out what follows #", "has a fragment")
	case !isWebSocket(u.Scheme) && (u.Path != "" && u.Path != "/" || u.RawQuery != ""):
		return "", wrong("leave the path out, or use ws or wss", "has a path, which only ws and wss use")
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	} else if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
		return "", wrong("write a number from 1 to 65535", "%q is not a port", u.Port())
	}
	if !isWebSocket(u.Scheme) {
		u.Path = ""
	}
	return u.String(), nil
}

func schemePort(scheme, fix string) (string, error) {
	names := make([]string, len(schemes))
	for i, s := range schemes {
		if s.name == scheme {
			return s.port, nil
		}
		names[i] = s.name
	}
	return "", wrong(fix, "scheme %q is not one of %s", scheme, strings.Join(names, ", "))
}

// quoteURL quotes what may be a URL with a password in it.
func quoteURL(s string) string {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		s = "…" + s[at:]
	}
	return strconv.Quote(s)
}

func isWebSocket(scheme string) bool { return scheme == "ws" || scheme == "wss" }

// usesTLS reports whether a checked broker URL is one with TLS.
func usesTLS(broker string) bool {
	scheme, _, _ := strings.Cut(broker, "://")
	return slices.Contains([]string{"mqtts", "ssl", "wss"}, scheme)
}

// origin checks a web origin as browsers send it (RFC 6454 section 6.2), or one
// with a wildcard for the first label.
func origin(s string) (string, error) {
	if s == "*" || s == "null" {
		return "", wrong("name each origin, such as https://app.example.com or https://*.example.com", "%q would let every web page in", s)
	}
	u, err := url.Parse(strings.ToLower(s))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", wrong("write scheme://host[:port], such as https://app.example.com", "%q is not a web origin", s)
	}
	if u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.ForceQuery {
		return "", wrong("write "+u.Scheme+"://"+u.Host, "%q has more than scheme, host and port", s)
	}
	host, stars := strings.CutPrefix(u.Hostname(), "*.")
	switch {
	case strings.Contains(host, "*") || stars && !strings.Contains(host, "."):
		return "", wrong("write https://*.example.com", "%q has a wildcard that is not the first label before a domain", s)
	case stars && u.Scheme != "https":
		return "", wrong("write https://*."+host, "%q has a wildcard without https", s)
	case strings.ContainsFunc(host, func(r rune) bool { return r >= utf8.RuneSelf }):
		return "", wrong("write the host as browsers send it, xn--…", "%q holds letters that browsers encode", s)
	case u.Port() == "443" && u.Scheme == "https", u.Port() == "80" && u.Scheme == "http":
		return "", wrong("leave the port out", "%q names the default port, which browsers leave out", s)
	case strings.HasSuffix(u.Host, ":"):
		return "", wrong("write a port or leave the colon out", "%q has no port after its colon", s)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return "", wrong("write a number from 1 to 65535", "%q has no port that exists", s)
	}
	return u.Scheme + "://" + u.Host, nil
}

// mqttString checks a text that goes into a CONNECT packet.
func mqttString(s string) (string, error) {
	switch {
	case len(s) > mqtt.MaxBytes:
		return "", wrong("", "has %d bytes, more than %d", len(s), mqtt.MaxBytes)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return "", wrong("", "holds control characters or is not UTF-8, which brokers refuse")
	}
	return s, nil
}

// maxClientID leaves room for what tells the connections apart.
const maxClientID = 200

func clientID(s string) (string, error) {
	if len(s) > maxClientID {
		return "", wrong("", "has %d bytes, more than %d", len(s), maxClientID)
	}
	return mqttString(s)
}

// dollarPrefix checks the beginning of topics that start with "$". It must end
// at a level, or "$aws" would open "$awsome/…" too.
func dollarPrefix(s string) (string, error) {
	topic, err := mqtt.ParseTopic(s, mqtt.Limits{})
	switch {
	case err != nil:
		return "", wrong(`write a prefix such as "$aws/"`, "the prefix %q: %v", s, err)
	case !topic.IsDollar():
		return "", wrong("leave it out: other topics need no entry", `the prefix %q does not begin with "$"`, s)
	case !strings.HasSuffix(s, "/"):
		return "", wrong("write "+strconv.Quote(s+"/"), `the prefix %q does not end with "/"`, s)
	case strings.HasPrefix(s, "$share/"):
		return "", wrong("leave it out", "nobody can publish to $share/…")
	}
	return s, nil
}

func alpn(s string) (string, error) {
	if s == "" || len(s) > 255 { // RFC 7301 section 3.1
		return "", wrong("write a protocol name such as mqtt", "%q is not a protocol name of 1 to 255 bytes", s)
	}
	return s, nil
}
