package auth_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

// shown is a request over a connection whose client showed a certificate that the
// server has verified.
func shown(t *testing.T, template x509.Certificate) *http.Request {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	if template.NotAfter.IsZero() {
		template.NotAfter = clock.Add(time.Hour)
	}
	key := keys().ed
	leaf := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key))))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
	return r
}

func TestCertificate(t *testing.T) {
	a := withOptions(t, auth.Options{
		Issuers: []auth.Issuer{{Secret: secret}}, ACL: []byte("user tracker 7\ntopic pets/7/#\npattern read in/%u"), Now: now,
		Anonymous: auth.Grants{Sub: filters("news")},
	})
	for want, template := range map[string]x509.Certificate{
		"tracker 7":       {Subject: pkix.Name{CommonName: "tracker 7", Organization: []string{"x"}}, DNSNames: []string{"other"}},
		"t.example":       {DNSNames: []string{"t.example", "u.example"}, EmailAddresses: []string{"a@b"}},
		"a@b":             {EmailAddresses: []string{"a@b"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}},
		"urn:tracker:7":   {URIs: []*url.URL{{Scheme: "urn", Opaque: "tracker:7"}}},
		"192.0.2.1":       {IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}},
		"no rules for it": {Subject: pkix.Name{CommonName: "no rules for it"}},
	} {
		p, err := a.Request(shown(t, template))
		if err != nil || p.Kind != auth.KindCertificate || p.Subject != want || p.Anonymous || !p.Expires.Equal(clock.Add(time.Hour)) || !p.Ends.Equal(clock.Add(time.Hour+30*time.Second)) {
			t.Errorf("%s: %+v, %v", want, p, err)
			continue
		}
		if want == "tracker 7" {
			wantFilters(t, want, p.Grants.Sub, "pets/7/#", "in/tracker 7")
		} else {
			wantFilters(t, want, p.Grants.Sub, "in/"+want)
		}
	}
	for what, row := range map[string]struct {
		template x509.Certificate
		code     fault.Code
	}{
		"no name":               {x509.Certificate{}, fault.Unauthenticated},
		"a control character":   {x509.Certificate{Subject: pkix.Name{CommonName: "a\x00b"}}, fault.Unauthenticated},
		"too long":              {x509.Certificate{Subject: pkix.Name{CommonName: strings.Repeat("x", 256)}}, fault.Unauthenticated},
		"breaks out of the ACL": {x509.Certificate{Subject: pkix.Name{CommonName: "#"}}, fault.Unauthenticated},
		"expired meanwhile":     {x509.Certificate{Subject: pkix.Name{CommonName: "a"}, NotAfter: clock.Add(-30 * time.Second)}, fault.TokenExpired},
	} {
		if p, err := a.Request(shown(t, row.template)); !fault.Is(err, row.code) {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
	// What the request itself brings counts more, and when it is bad the certificate
	// does not heal it.
	r := shown(t, x509.Certificate{Subject: pkix.Name{CommonName: "tracker 7"}})
	r.Header.Set("Authorization", "Bearer "+hs(hs256, good))
	if p, err := a.Request(r); err != nil || p.Kind != auth.KindToken || p.Subject != "dash" {
		t.Errorf("with a token: %+v, %v", p, err)
	}
	r.Header.Set("Authorization", "Bearer x")
	if p, err := a.Request(r); !fault.Is(err, fault.TokenInvalid) {
		t.Errorf("with a bad token: %+v, %v", p, err)
	}
	// One that nobody has verified is none.
	r = shown(t, x509.Certificate{Subject: pkix.Name{CommonName: "tracker 7"}})
	r.TLS.VerifiedChains = nil
	if p, err := a.Request(r); err != nil || !p.Anonymous {
		t.Errorf("not verified: %+v, %v", p, err)
	}
}
