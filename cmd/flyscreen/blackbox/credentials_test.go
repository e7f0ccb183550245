package blackbox_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func basicHeader(user, password string) []string {
	return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}
}

// mosquittoPasswords makes a file of passwords with Mosquitto's own tool.
func mosquittoPasswords(t *testing.T, users ...string) string {
	t.Helper()
	path := writeFile(t, "passwords", "")
	for _, user := range users {
		command(t, nil, "mosquitto_passwd", "-b", path, user, "password of "+user)
	}
	return path
}

// Passwords that Mosquitto's tool made, API keys that this program made, and
// Mosquitto's rules for both; a changed file counts without a restart.
func TestPasswordsAndAPIKeys(t *testing.T) {
	passwords := mosquittoPasswords(t, "alice")
	keys := writeFile(t, "api-keys", "")
	key := strings.TrimSpace(command(t, nil, suite.binary, "key", "new", "--subject", "tracker", "--pub", "pets/7/#", "--file", keys))
	acl := writeFile(t, "acl", "user alice\ntopic readwrite pets/#\ntopic deny pets/secret\nuser tracker\ntopic deny pets/7/secret\n")
	s := boot(t, "embedded", map[string]any{"auth.passwords_file": passwords, "auth.api_keys_file": keys, "auth.acl_file": acl})
	alice, tracker := basicHeader("alice", "password of alice"), []string{"X-API-Key", key}
	publish := func(topic string, header []string) int {
		t.Helper()
		return s.do(t, http.MethodPost, "/v1/topics/"+topic, "", []byte("x"), header...).status
	}
	for what, c := range map[string]struct {
		topic  string
		header []string
		want   int
	}{
		"alice": {"pets/1", alice, 200}, "alice, denied": {"pets/secret", alice, 403}, "alice, not granted": {"cats", alice, 403},
		"tracker": {"pets/7/location", tracker, 200}, "tracker, denied": {"pets/7/secret", tracker, 403}, "tracker, not granted": {"pets/8", tracker, 403},
		"wrong password": {"pets/1", basicHeader("alice", "x"), 401}, "wrong key": {"pets/7/x", []string{"X-API-Key", key + "A"}, 401},
		"both at once": {"pets/1", append(append([]string{}, alice...), tracker...), 400},
	} {
		if got := publish(c.topic, c.header); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
	command(t, []byte("another password\n"), suite.binary, "passwd", "--file", passwords, "--iterations", "101", "alice")
	if err := s.gateway.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new password counts", func() bool { return publish("pets/1", basicHeader("alice", "another password")) == 200 })
	if got := publish("pets/1", alice); got != 401 {
		t.Errorf("the old password: %d", got)
	}
	if err := os.WriteFile(acl, []byte("user alice\ntopic write cats\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new rules count, without a signal", func() bool { return publish("cats", basicHeader("alice", "another password")) == 200 })
	log, _, _ := s.gateway.log.snapshot()
	for _, line := range log {
		if strings.Contains(line, key) || strings.Contains(line, "another password") || strings.Contains(line, alice[1]) {
			t.Errorf("the log holds a credential: %.300s", line)
		}
	}
	s.wantUnharmed(t)
}

// Whoever guesses passwords is slowed down at every operation that takes one; the
// others are not, nor are probes.
func TestGuessedPasswords(t *testing.T) {
	s := boot(t, "embedded", map[string]any{"auth.passwords_file": mosquittoPasswords(t, "alice")})
	guesses := 0
	guess := func(method, target string) answer {
		guesses++
		return s.do(t, method, target, "", nil, basicHeader("alice", fmt.Sprint("guess ", guesses))...)
	}
	eventually(t, "guessing is slowed down", func() bool {
		return guess(http.MethodGet, "/v1/topics/a").status == http.StatusTooManyRequests
	})
	if guesses < 10 {
		t.Errorf("slowed down after %d guesses", guesses)
	}
	for path, item := range suite.document.model.Paths.PathItems.FromOldest() {
		target := strings.NewReplacer("{topic}", "a").Replace(path)
		for method, operation := range item.GetOperations().FromOldest() {
			if operation.Security != nil {
				continue // takes none
			}
			method = strings.ToUpper(method)
			a := guess(method, target)
			if a.status != http.StatusTooManyRequests {
				t.Errorf("%s %s: %d %s", method, path, a.status, short(a.body))
				continue
			}
			wantRetryAfter(t, method+" "+path, a)
		}
	}
	s.publish(t, everything(t), "a", []byte("x")) // a token from the same address
}

func TestTickets(t *testing.T) {
	s := boot(t, "embedded", nil)
	token := tokenFor(t, "many", grants{Sub: []string{"#"}})
	seen := map[string]bool{}
	for range 20 {
		a := s.do(t, http.MethodPost, "/v1/tickets", token, nil)
		var ticket struct {
			Ticket    string
			ExpiresIn int `json:"expires_in"`
		}
		if err := json.Unmarshal(a.body, &ticket); err != nil || a.status != http.StatusOK || ticket.Ticket == "" || ticket.ExpiresIn != 30 || seen[ticket.Ticket] || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		seen[ticket.Ticket] = true
	}
	a := s.do(t, http.MethodPost, "/v1/tickets", token, nil)
	wantProblem(t, "one more ticket", a, http.StatusTooManyRequests, "rate-limited")
	wantRetryAfter(t, "one more ticket", a)
	wantProblem(t, "a parameter", s.do(t, http.MethodPost, "/v1/tickets?ttl=5", token, nil), http.StatusBadRequest, "bad-request")
	wantProblem(t, "nobody", s.do(t, http.MethodPost, "/v1/tickets", "", nil), http.StatusUnauthorized, "unauthenticated")
}

// An identity provider that is down at first, comes up, and rotates its keys.
func TestIdentityProvider(t *testing.T) {
	var set atomic.Pointer[jose.JSONWebKeySet]
	provider := httptest.NewUnstartedServer(nil)
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": "http://" + r.Host, "jwks_uri": "http://" + r.Host + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		if keys := set.Load(); keys != nil {
			_ = json.NewEncoder(w).Encode(keys)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	provider.Config.Handler = mux
	provider.Start()
	defer provider.Close()
	key := func(kid string) (public jose.JSONWebKey, token string) {
		t.Helper()
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: kid}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(fmt.Appendf(nil, `{"iss":%q,"aud":"flyscreen","sub":"a","exp":%d,"scope":"openid mqtt:pub:a"}`, provider.URL, time.Now().Add(time.Hour).Unix()))
		if err != nil {
			t.Fatal(err)
		}
		if token, err = signed.CompactSerialize(); err != nil {
			t.Fatal(err)
		}
		return jose.JSONWebKey{Key: private.Public(), KeyID: kid, Use: "sig", Algorithm: "ES256"}, token
	}
	one, byOne := key("one")
	two, byTwo := key("two")

	s := &site{mqttPort: freePort(t)}
	port := freePort(t)
	s.url = "http://127.0.0.1:" + port
	s.gateway = launch(t, nil, suite.binary, "serve", "--config", configFile(t, map[string]any{
		"data_dir": t.TempDir(), "http.listen": "127.0.0.1:" + port, "broker.listen": "127.0.0.1:" + s.mqttPort,
		"auth.issuers": []any{map[string]any{"oidc": provider.URL, "audience": []string{"flyscreen"}}},
	}))
	t.Cleanup(func() { s.report(t) })
	eventually(t, "/readyz is red for want of keys", func() bool {
		if s.readiness(t) != http.StatusServiceUnavailable {
			return false
		}
		a := s.do(t, http.MethodGet, "/readyz", "", nil)
		return strings.Contains(string(a.body), "the keys of the issuer") && !strings.Contains(string(a.body), "broker")
	})
	publish := func(token string) answer {
		return s.do(t, http.MethodPost, "/v1/topics/a", token, []byte("x"))
	}
	a := publish(byOne)
	wantProblem(t, "before there are keys", a, http.StatusServiceUnavailable, "upstream-unavailable")
	wantRetryAfter(t, "before there are keys", a)
	set.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{one}})
	s.awaitReady(t)
	if a := publish(byOne); a.status != http.StatusOK {
		t.Errorf("the first key: %d %s", a.status, a.body)
	}
	wantProblem(t, "a key that is not there yet", publish(byTwo), http.StatusUnauthorized, "token-invalid")
	rotated := time.Now()
	set.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{one, two}})
	eventually(t, "the new key counts", func() bool { return publish(byTwo).status == http.StatusOK })
	if took := time.Since(rotated); took > 30*time.Second {
		t.Errorf("the new key took %s", took)
	}
	if a := publish(byOne); a.status != http.StatusOK {
		t.Errorf("the first key afterwards: %d %s", a.status, a.body)
	}
}
