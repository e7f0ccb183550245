package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const (
	// fetchTimeout bounds everything that one refresh of a key set asks for.
	fetchTimeout = 5 * time.Second
	// maxRedirects within one origin.
	maxRedirects = 3
)

// fetcher gets documents from key servers. Whoever can change such a document
// can sign any token, so it is only taken from where the operator said: over TLS
// or from this machine, and no redirect leads to another origin.
type fetcher struct{ client *http.Client }

// newFetcher makes a fetcher; a nil transport means one of its own.
func newFetcher(transport http.RoundTripper) fetcher {
	if transport == nil {
		transport = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
			MaxIdleConns:        8,
			IdleConnTimeout:     30 * time.Second,
			TLSHandshakeTimeout: fetchTimeout,
			ForceAttemptHTTP2:   true,
			// The bound on the body counts what comes out of the decoder; this is for
			// the rest.
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	return fetcher{&http.Client{Transport: transport, CheckRedirect: sameOriginOnly}}
}

func sameOriginOnly(to *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("too many redirects")
	}
	if from := via[0].URL; to.URL.Scheme != from.Scheme || to.URL.Host != from.Host {
		return errors.New("redirects to another origin, which is not followed")
	}
	return nil
}

// get fetches one JSON document of at most maxKeysBytes.
func (f fetcher) get(ctx context.Context, address string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	r.Header.Set("User-Agent", "flyscreen")
	answer, err := f.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, answer.Status)
	}
	if kind := answer.Header.Get("Content-Type"); !mayBeJSON(kind) {
		return nil, fmt.Errorf("%s answers with the type %.100q instead of JSON", address, kind)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxKeysBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", address, err)
	case len(text) > maxKeysBytes:
		return nil, fmt.Errorf("%s answers with more than %d bytes", address, maxKeysBytes)
	}
	return text, nil
}

// mayBeJSON lets the types of RFC 7517 section 8.5 and RFC 8259 pass, and those
// of servers that know no better; a page in HTML is a login form or an error.
func mayBeJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case contentType == "", media == "application/json", media == "text/plain", media == "application/octet-stream":
		return true
	}
	return err == nil && strings.HasSuffix(media, "+json")
}

// discover asks an OpenID provider where its keys are (OpenID Connect Discovery
// 1.0 section 4).
func (f fetcher) discover(ctx context.Context, provider string) (keysURL string, err error) {
	text, err := f.get(ctx, strings.TrimSuffix(provider, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	document, err := parseObject(text)
	if err != nil {
		return "", fmt.Errorf("the provider's description %w", err)
	}
	// Section 4.3: "The issuer value returned MUST be identical to the Issuer URL
	// that was used as the prefix".
	if document["issuer"] != provider {
		return "", errors.New(`the provider's description is of another issuer (its "issuer" is not the configured URL)`)
	}
	keysURL, ok := document["jwks_uri"].(string)
	if !ok {
		return "", errors.New(`the provider's description has no "jwks_uri"`)
	}
	if err := checkKeyURL(keysURL); err != nil {
		return "", fmt.Errorf(`the provider's "jwks_uri" %w`, err)
	}
	return keysURL, nil
}

// checkKeyURL says what is wrong with the address of a key server.
func checkKeyURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("is not an https URL")
	case u.User != nil:
		return errors.New("holds a user name or password, which would show up in logs")
	case u.Fragment != "":
		return errors.New("has a fragment")
	case u.Scheme == "http" && !loopbackHost(u.Hostname()):
		return errors.New("is without TLS, so that anybody on the way could put keys of his own in; only this machine may be asked without https")
	}
	return nil
}

func loopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// explained says in words that the time was over.
func explained(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s: %w", fetchTimeout, err)
	}
	return err
}
