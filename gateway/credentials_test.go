package gateway_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/gatewaytest/mosquitto"

	"github.com/go-jose/go-jose/v4"
)

func writeFile(t testing.TB, path, text string) string {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "file")
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// A gateway comes up while its key server is down, says in /readyz what is
// missing, and heals by itself.
func TestKeyServerComesLater(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var up atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: private.Public(), KeyID: "one", Use: "sig", Algorithm: "ES256"}}})
	}))
	defer server.Close()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: "one"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(fmt.Appendf(nil, `{"sub":"a","exp":%d,"scope":"mqtt:pub:a"}`, time.Now().Add(time.Hour).Unix()))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}

	g := gatewaytest.StartCold(t, `auth.issuers=[{"jwks_url":"`+server.URL+`/keys"}]`)
	gatewaytest.Eventually(t, "a red /readyz that names the key server", func() bool {
		r, body := g.Do(t, "", "GET", "/readyz", "")
		return r.StatusCode == 503 && strings.Contains(body, "are not there yet") && strings.Contains(body, "503 Service Unavailable") && !strings.Contains(body, "broker")
	})
	r, body := g.Do(t, token, "POST", "/v1/topics/a", "x")
	if r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !strings.Contains(body, "could not be fetched yet") {
		t.Errorf("a token before its keys: %d %s", r.StatusCode, body)
	}
	up.Store(true)
	gatewaytest.Eventually(t, "a green /readyz", func() bool {
		r, _ := g.Do(t, "", "GET", "/readyz", "")
		return r.StatusCode == 200
	})
	if r, body := g.Do(t, token, "POST", "/v1/topics/a", "x"); r.StatusCode != 200 {
		t.Errorf("a token: %d %s", r.StatusCode, body)
	}
	if r, body := g.Do(t, token, "POST", "/v1/topics/b", "x"); r.StatusCode != 403 {
		t.Errorf("beyond its scope: %d %s", r.StatusCode, body)
	}
}

// One set of rules for passwords and API keys, with rules that deny: at every
// operation.
func TestDenyRules(t *testing.T) {
	key, line, err := auth.NewAPIKey(auth.APIKey{Subject: "device", All: []string{"home/#"}})
	if err != nil {
		t.Fatal(err)
	}
	password, err := auth.NewPassword("alice", "x", 10)
	if err != nil {
		t.Fatal(err)
	}
	g := gatewaytest.Start(t,
		"auth.passwords_file="+writeFile(t, "", password+"\n"), "auth.api_keys_file="+writeFile(t, "", line+"\n"),
		"auth.acl_file="+writeFile(t, "", "user alice\ntopic readwrite home/#\npattern deny home/safe/#\npattern deny +/%u/secret\n"))
	for _, topic := range []string{"home/hall", "home/safe/code", "home/alice/secret", "home/device/secret"} {
		g.Retain(t, topic, "1")
	}
	for user, c := range map[string]struct{ credential, own, others string }{
		"alice":  {basic("alice", "x"), "home/alice/secret", "home/device/secret"},
		"device": {"X-Api-Key: " + key, "home/device/secret", "home/alice/secret"},
	} {
		for topic, allowed := range map[string]bool{"home/hall": true, "home/safe/code": false, c.own: false, c.others: true} {
			for method, body := range map[string]string{"GET": "", "PUT": "1"} {
				want := map[bool]int{true: 200, false: 403}[allowed]
				r, text := g.Do(t, "", method, "/v1/topics/"+topic, body, c.credential)
				if r.StatusCode != want {
					t.Errorf("%s: %s %s: %d %s", user, method, topic, r.StatusCode, text)
				}
			}
			_, text := g.Do(t, "", "POST", "/v1/authz/explain", `{"action":"publish","topic":"`+topic+`"}`, c.credential, "Content-Type: application/json")
			if !strings.Contains(text, fmt.Sprintf(`"allowed":%v`, allowed)) || strings.Contains(text, "denies") == allowed {
				t.Errorf("%s: explain %s: %s", user, topic, text)
			}
		}
		_, text := g.Do(t, "", "GET", "/v1/topics?filter=%23", "", c.credential)
		if !strings.Contains(text, `"home/hall"`) || !strings.Contains(text, c.others) || strings.Contains(text, c.own) || strings.Contains(text, "safe") {
			t.Errorf("%s: the list is %s", user, text)
		}
		for filter, allowed := range map[string]bool{"home/safe/+": false, "home/#": true} {
			_, text := g.Do(t, "", "POST", "/v1/authz/explain", `{"action":"subscribe","filter":"`+filter+`"}`, c.credential, "Content-Type: application/json")
			if !strings.Contains(text, fmt.Sprintf(`"allowed":%v`, allowed)) || !strings.Contains(text, "home/safe/#") {
				t.Errorf("%s: explain %s: %s", user, filter, text)
			}
		}
	}
	for _, bad := range []string{basic("alice", "y"), basic("bob", "x"), "X-Api-Key: " + key + "A"} {
		r, body := g.Do(t, "", "GET", "/v1/topics/home/hall", "", bad)
		if r.StatusCode != 401 || !strings.Contains(body, "/problems/unauthenticated") || r.Header.Get("WWW-Authenticate") != `Bearer realm="flyscreen"` {
			t.Errorf("%s: %d %s", bad, r.StatusCode, body)
		}
	}
	if r, body := g.Do(t, "", "POST", "/v1/tickets", "", basic("alice", "x")); r.StatusCode != 200 || !strings.Contains(body, `"expires_in":30}`) || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("a ticket: %d %s", r.StatusCode, body)
	}
	if log := g.Log.String(); strings.Contains(log, key) || strings.Contains(log, basic("alice", "x")[21:]) {
		t.Error("the log holds a credential")
	}
}

// Files made here work with Mosquitto, and those made by Mosquitto work here.
func TestPasswordFilesOfMosquitto(t *testing.T) {
	line, err := auth.NewPassword("gateway", "s3cret", 5000)
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, "", line+"\n")
	if out, err := exec.Command("mosquitto_passwd", "-b", file, "alice", "wonder land").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	broker := mosquitto.Start(t, "password_file "+file, "user root") // who stays root, if it is root, may read the file
	right := writeFile(t, "", "s3cret")
	g := gatewaytest.Start(t, "upstream.url="+broker.URL(), "upstream.username=gateway", "upstream.password_file="+right, "auth.passwords_file="+file,
		"auth.acl_file="+writeFile(t, "", "user alice\ntopic a"))
	if r, body := g.Do(t, "", "POST", "/v1/topics/a", "x", basic("alice", "wonder land")); r.StatusCode != 200 {
		t.Errorf("%d %s", r.StatusCode, body)
	}
	wrong := gatewaytest.StartCold(t, "upstream.url="+broker.URL(), "upstream.username=gateway", "upstream.password_file="+writeFile(t, "", "other"))
	gatewaytest.Eventually(t, "Mosquitto refuses another password", func() bool {
		_, body := wrong.Do(t, "", "GET", "/readyz", "")
		return strings.Contains(strings.ToLower(body), "not authori") || strings.Contains(body, "bad user name or password")
	})
}

// Changed files count without a restart and without an open stream noticing; a bad
// one changes nothing and is told.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	password := func(user, secret string) string {
		line, err := auth.NewPassword(user, secret, 10)
		if err != nil {
			t.Fatal(err)
		}
		return line + "\n"
	}
	one, oneLine, err := auth.NewAPIKey(auth.APIKey{Subject: "one", All: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	two, twoLine, err := auth.NewAPIKey(auth.APIKey{Subject: "two", All: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	secret, other := strings.Repeat("s", 32), strings.Repeat("t", 32)
	token := func(secret string) string {
		token, err := auth.Mint([]byte(secret), auth.Claims{Subject: "x", All: []string{"a"}, TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return "Authorization: Bearer " + token
	}
	writeFile(t, in("passwords"), password("alice", "x"))
	writeFile(t, in("acl"), "user alice\ntopic a\n")
	writeFile(t, in("keys"), oneLine+"\n")
	writeFile(t, in("secret"), secret+"\n")
	g := gatewaytest.Start(t, "auth.passwords_file="+in("passwords"), "auth.acl_file="+in("acl"), "auth.api_keys_file="+in("keys"),
		`auth.issuers=[{"secret_file":"`+in("secret")+`"}]`, "auth.anonymous.sub=a")
	stream := g.Follow(t, "", "filter=a")
	status := func(topic, credential string) int {
		r, _ := g.Do(t, "", "POST", "/v1/topics/"+topic, "x", credential)
		return r.StatusCode
	}
	becomes := func(what string, want int, topic, credential string) {
		t.Helper()
		gatewaytest.Eventually(t, what, func() bool { return status(topic, credential) == want })
	}
	told := func(what string, texts ...string) {
		t.Helper()
		gatewaytest.Eventually(t, what+" is told", func() bool {
			for _, line := range strings.Split(g.Log.String(), "\n") {
				hits := 0
				for _, text := range texts {
					if strings.Contains(line, text) {
						hits++
					}
				}
				if hits == len(texts) {
					return true
				}
			}
			return false
		})
	}
	alice := basic("alice", "x")
	for what, credential := range map[string]string{"password": alice, "API key": "X-API-Key: " + one, "token": token(secret)} {
		if got := status("a", credential); got != 200 {
			t.Errorf("%s at first: %d", what, got)
		}
	}

	writeFile(t, in("acl"), "user alice\ntopic b\n")
	becomes("the new rule", 200, "b", alice)
	if got := status("a", alice); got != 403 {
		t.Errorf("the old rule: %d", got)
	}
	writeFile(t, in("acl"), "nonsense\n")
	g.Reload()
	told("a bad ACL file", "a file is bad", "auth.acl_file", "neither user, topic nor pattern")
	if got := status("b", alice); got != 200 {
		t.Errorf("with a bad ACL file: %d", got)
	}
	writeFile(t, in("keys"), twoLine+"\n")
	becomes("the new key", 200, "a", "X-API-Key: "+two)
	if got := status("a", "X-API-Key: "+one); got != 401 {
		t.Errorf("the old key: %d", got)
	}
	if err := os.Remove(in("keys")); err != nil {
		t.Fatal(err)
	}
	told("a file that is gone", "a file is bad", "auth.api_keys_file", "does not exist")
	if got := status("a", "X-API-Key: "+two); got != 200 {
		t.Errorf("without the file: %d", got)
	}
	writeFile(t, in("next"), password("alice", "y"))
	if err := os.Rename(in("next"), in("passwords")); err != nil {
		t.Fatal(err)
	}
	becomes("the new password", 200, "b", basic("alice", "y"))
	if got := status("b", alice); got != 401 {
		t.Errorf("the old password: %d", got)
	}
	writeFile(t, in("secret"), "short")
	told("a bad secret", "a file is bad", "secret_file", "5 bytes")
	writeFile(t, in("secret"), other)
	becomes("the new secret", 200, "a", token(other))
	if got := status("a", token(secret)); got != 401 {
		t.Errorf("the old secret: %d", got)
	}
	if log := g.Log.String(); strings.Contains(log, other) || strings.Contains(log, secret) {
		t.Error("the log holds a secret")
	}

	// The stream has all that was published to its topic, and no end.
	g.Do(t, "", "POST", "/v1/topics/a", "last", token(other))
	for {
		l := stream.Next()
		if l.Type != "message" {
			t.Fatalf("the stream got %s", l.Raw)
		}
		if string(l.Bytes(t)) == "last" {
			return
		}
	}
}

// A client's certificate says who it is, where its authority is known.
func TestClientCertificates(t *testing.T) {
	ca, caKey := newCertificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	foreign, foreignKey := newCertificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	caFile := writeFile(t, "", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})))
	g, client := gatewaytest.StartTLS(t, "http.tls.client_ca="+caFile, "auth.acl_file="+writeFile(t, "", "user tracker-7\ntopic pets/7/#\ntopic deny pets/7/secret"))
	leaf := func(name string, usage x509.ExtKeyUsage, by *x509.Certificate, key *ecdsa.PrivateKey) *tls.Certificate {
		c, own := newCertificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{usage}}, by, key)
		return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: own}
	}
	ask := func(certificate *tls.Certificate, path string, header ...string) (int, error) {
		t.Helper()
		transport := client.Transport.(*http.Transport).Clone()
		defer transport.CloseIdleConnections()
		if certificate != nil { // shown whatever authorities the server names
			transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL()+path, bytes.NewReader([]byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Set(name, value)
		}
		answer, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		return answer.StatusCode, nil
	}
	tracker := leaf("tracker-7", x509.ExtKeyUsageClientAuth, ca, caKey)
	for _, c := range []struct {
		what        string
		certificate *tls.Certificate
		path        string
		want        int
		header      []string
	}{
		{"its own topic", tracker, "/v1/topics/pets/7/location", 200, nil},
		{"another's topic", tracker, "/v1/topics/pets/8/location", 403, nil},
		{"a topic that is denied", tracker, "/v1/topics/pets/7/secret", 403, nil},
		{"nobody's name", leaf("tracker-8", x509.ExtKeyUsageClientAuth, ca, caKey), "/v1/topics/pets/7/location", 403, nil},
		{"no certificate", nil, "/v1/topics/pets/7/location", 401, nil},
		{"with a bad token", tracker, "/v1/topics/pets/7/location", 401, []string{"Authorization: Bearer x"}},
		{"with a token", tracker, "/v1/topics/anything", 200, []string{"Authorization: Bearer " + gatewaytest.All(t)}},
		{"a foreign authority", leaf("tracker-7", x509.ExtKeyUsageClientAuth, foreign, foreignKey), "/v1/topics/pets/7/location", 0, nil},
		{"a server's certificate", leaf("tracker-7", x509.ExtKeyUsageServerAuth, ca, caKey), "/v1/topics/pets/7/location", 0, nil},
	} {
		if got, err := ask(c.certificate, c.path, c.header...); got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("%s: %d, %v, want %d", c.what, got, err, c.want)
		}
	}
}

// newCertificate makes one, signed by itself without by.
func newCertificate(t *testing.T, template, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if by == nil {
		by, byKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}
