package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

const keyURL = "https://id.example/keys"

// keyServer plays the servers of issuers, without a network: so time can be that
// of a synctest bubble.
type keyServer struct {
	mu     sync.Mutex // guards what follows
	answer func(*http.Request) (*http.Response, error)
	asked  []string
}

func (s *keyServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r.URL.String())
	answer := s.answer
	s.mu.Unlock()
	response, err := answer(r)
	if response != nil {
		response.Request = r
	}
	return response, err
}

// show changes what the server answers.
func (s *keyServer) show(answer func(*http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *keyServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// says answers 200 with a JSON document.
func says(text string) func(*http.Request) (*http.Response, error) {
	return reply(http.StatusOK, "application/json", text)
}

func reply(status int, contentType, text string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)), ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(text)),
		}, nil
	}
}

func down(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }

func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// oneKey is a set of one Ed25519 key.
func oneKey(kid string, key ed25519.PrivateKey) string {
	return string(jwks(jwk(key.Public(), fmt.Sprintf(`,"kid":%q`, kid))))
}

// edKey makes the same key for the same letter.
func edKey(letter string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte(letter), ed25519.SeedSize))
}

// byKid is a good token for the next hour, signed with key and naming it kid; "" names none.
func byKid(kid string, key ed25519.PrivateKey) string {
	header := `{"alg":"EdDSA"}`
	if kid != "" {
		header = fmt.Sprintf(`{"alg":"EdDSA","kid":%q}`, kid)
	}
	return signed("EdDSA", key, header, fmt.Sprintf(`{"sub":"dash","exp":%d,"acl":{"sub":["pets/#"]}}`, time.Now().Unix()+3600))
}

// remote runs an authenticator whose one issuer has its keys at the server.
type remote struct {
	*auth.Authenticator
	server  *keyServer
	changes chan struct{}
	log     *bytes.Buffer
}

// withRemote runs test in a bubble in which time is not waited for. The server
// shows answer first.
func withRemote(t *testing.T, answer func(*http.Request) (*http.Response, error), test func(t *testing.T, r *remote)) {
	withIssuer(t, auth.Issuer{JWKSURL: keyURL}, answer, test)
}

func withIssuer(t *testing.T, issuer auth.Issuer, answer func(*http.Request) (*http.Response, error), test func(t *testing.T, r *remote)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &remote{server: &keyServer{answer: answer}, changes: make(chan struct{}, 100), log: &bytes.Buffer{}}
		r.Authenticator = withOptions(t, auth.Options{
			Issuers: []auth.Issuer{issuer}, Transport: r.server, Changed: func() { r.changes <- struct{}{} },
			Logger: slog.New(slog.NewTextHandler(r.log, nil)),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		synctest.Wait()
		test(t, r)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// want checks one token: refused is the detail, "" when it is good.
func (r *remote) want(t *testing.T, what, token, refused string) {
	t.Helper()
	_, err := r.Bearer(t.Context(), token)
	switch {
	case refused == "" && err != nil:
		t.Errorf("%s, %s: %v", time.Now().Format("15:04:05"), what, err)
	case refused != "" && (err == nil || fault.From(err).Detail != refused):
		t.Errorf("%s, %s: %v, want %q", time.Now().Format("15:04:05"), what, err, refused)
	}
}

const (
	unknownKey = "the token names a key that its issuer does not have"
	noKeys     = "the keys of the token's issuer could not be fetched yet"
)

func TestRemoteKeys(t *testing.T) {
	a, b := edKey("a"), edKey("b")
	withRemote(t, says(oneKey("one", a)), func(t *testing.T, r *remote) {
		r.want(t, "its key", byKid("one", a), "")
		r.want(t, "without a name", byKid("", a), "")
		r.want(t, "another key under its name", byKid("one", b), "the token's signature does not fit")
		r.want(t, "another name", byKid("two", a), unknownKey)
		r.want(t, "a secret's algorithm", hs(`{"alg":"HS256","kid":"one"}`, good), "the token's algorithm is not allowed for its issuer")
		if len(r.Ready()) != 0 {
			t.Errorf("not ready: %v", r.Ready())
		}
		if p, err := r.Bearer(t.Context(), byKid("one", a)); err != nil || p.KeyID != "one" || p.Kind != auth.KindToken {
			t.Errorf("%+v %v", p, err)
		}
	})
}

// A flood of invented names neither touches those who use a known key nor holds a
// rotation back, and costs the server one request in ten seconds.
func TestRotationUnderFlood(t *testing.T) {
	a, b := edKey("a"), edKey("b")
	withRemote(t, says(oneKey("old", a)), func(t *testing.T, r *remote) {
		ctx, stop := context.WithCancel(t.Context())
		_, rest, _ := strings.Cut(byKid("x", b), ".")
		rest = "." + rest
		var flood sync.WaitGroup
		flood.Go(func() {
			tick := time.NewTicker(time.Second / 500)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-tick.C:
					bogus := b64(fmt.Appendf(nil, `{"alg":"EdDSA","kid":"bogus%d"}`, n)) + rest
					flood.Go(func() { _, _ = r.Bearer(ctx, bogus) })
				case <-ctx.Done():
					return
				}
			}
		})
		defer flood.Wait()
		defer stop()
		time.Sleep(17 * time.Second) // of the bubble's clock: somewhere in the rhythm
		both := string(jwks(jwk(a.Public(), `,"kid":"old"`), jwk(b.Public(), `,"kid":"new"`)))
		slow := func(q *http.Request) (*http.Response, error) {
			time.Sleep(2 * time.Second)
			return says(both)(q)
		}
		r.server.show(slow)
		rotated, before := time.Now(), r.server.count()
		for {
			asked := time.Now()
			r.want(t, "a known key", byKid("old", a), "")
			if took := time.Since(asked); took > 0 {
				t.Fatalf("a known key waited %s", took)
			}
			if _, err := r.Bearer(t.Context(), byKid("new", b)); err == nil {
				break
			}
			if time.Since(rotated) > 30*time.Second {
				t.Fatal("the rotated key does not work after 30 s")
			}
			time.Sleep(time.Second)
		}
		time.Sleep(20 * time.Second)
		if n, most := r.server.count()-before, int(time.Since(rotated)/(10*time.Second))+1; n > most {
			t.Errorf("%d fetches in %s, want at most %d", n, time.Since(rotated), most)
		}
	})
}

// Many who wait for a key share one fetch; each may leave before its end.
func TestSharedFetch(t *testing.T) {
	a, b := edKey("a"), edKey("b")
	withRemote(t, says(oneKey("old", a)), func(t *testing.T, r *remote) {
		time.Sleep(11 * time.Second)
		r.server.show(func(q *http.Request) (*http.Response, error) {
			time.Sleep(3 * time.Second)
			return says(oneKey("new", b))(q)
		})
		before := r.server.count()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { r.want(t, "a new key", byKid("new", b), "") })
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begun := time.Now()
			if _, err := r.Bearer(ctx, byKid("new", b)); err == nil || time.Since(begun) != time.Second {
				t.Errorf("who would wait a second: %v after %s", err, time.Since(begun))
			}
		})
		all.Wait()
		if n := r.server.count() - before; n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// A key that its issuer has withdrawn stops working within five minutes, for
// tokens that are remembered and principals that are kept, too.
func TestWithdrawnKey(t *testing.T) {
	a, b := edKey("a"), edKey("b")
	both := string(jwks(jwk(a.Public(), `,"kid":"bad"`), jwk(b.Public(), `,"kid":"good"`)))
	withRemote(t, says(both), func(t *testing.T, r *remote) {
		bad, good := byKid("bad", a), byKid("good", b)
		kept, err := r.Bearer(t.Context(), bad)
		if err != nil {
			t.Fatal(err)
		}
		other, err := r.Bearer(t.Context(), good)
		if err != nil {
			t.Fatal(err)
		}
		r.server.show(says(oneKey("good", b)))
		withdrawn := time.Now()
		<-r.changes
		if took := time.Since(withdrawn); took > 5*time.Minute || took < 4*time.Minute {
			t.Errorf("it took %s", took)
		}
		r.want(t, "the withdrawn key", bad, unknownKey)
		r.want(t, "the other", good, "")
		if _, err := r.Current(kept); !auth.Revoked(err) || !fault.Is(err, fault.TokenInvalid) {
			t.Errorf("whose key was withdrawn: %v", err)
		}
		if _, err := r.Current(other); err != nil {
			t.Errorf("the other: %v", err)
		}
		// One name for another key is another key.
		r.server.show(says(oneKey("good", a)))
		<-r.changes
		if _, err := r.Current(other); !auth.Revoked(err) {
			t.Errorf("whose key was exchanged: %v", err)
		}
		r.want(t, "the exchanged key", good, "the token's signature does not fit")
	})
}

// Whatever the server shows instead of a set, the old keys go on, and good ones
// are taken when they come.
func TestServerFaces(t *testing.T) {
	a, b := edKey("a"), edKey("b")
	set := oneKey("one", b)
	short := keys().rsaShort
	for what, face := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		says   string // in the log
	}{
		"down":                     {down, "connection refused"},
		"slow":                     {hang, "no answer within 5s"},
		"an error":                 {reply(500, "application/json", set), "answers 500 Internal Server Error"},
		"not modified":             {reply(304, "application/json", ""), "answers 304"},
		"empty":                    {says(``), "is not valid JSON"},
		"an empty set":             {says(`{"keys":[]}`), "no key for verifying signatures"},
		"a set of unfit keys":      {says(string(jwks(jwk(&short.PublicKey, `,"kid":"one"`)))), "RSA key of 1024 bits"},
		"HTML":                     {reply(200, "text/html; charset=utf-8", set), "instead of JSON"},
		"another document":         {says(`{"issuer":"x"}`), `has no array \"keys\"`},
		"half a set":               {says(set[:len(set)-3]), "is not valid JSON"},
		"huge":                     {says(set + strings.Repeat(" ", 1<<20)), "more than 1048576 bytes"},
		"more than a hundred keys": {says(string(jwks(strings.Split(strings.Repeat(jwk(a.Public(), "")+" ", 101), " ")[:101]...))), "more than 100"},
		"one key twice":            {says(string(jwks(jwk(b.Public(), `,"kid":"one"`), jwk(a.Public(), `,"kid":"one"`)))), "of an earlier one"},
	} {
		t.Run(what, func(t *testing.T) {
			withRemote(t, says(oneKey("one", a)), func(t *testing.T, r *remote) {
				r.server.show(face.answer)
				time.Sleep(11 * time.Minute)
				r.want(t, "the old key", byKid("one", a), "")
				if n := r.server.count(); n < 3 {
					t.Errorf("asked %d times", n)
				}
				if len(r.Ready()) != 0 {
					t.Errorf("not ready: %v", r.Ready())
				}
				if !strings.Contains(r.log.String(), face.says) || strings.Count(r.log.String(), "cannot be fetched") != 1 {
					t.Errorf("the log is %s, want once %q", r.log, face.says)
				}
				r.server.show(says(set))
				time.Sleep(time.Minute)
				r.want(t, "the new key", byKid("one", b), "")
			})
		})
	}
}

// What must not be used is left out, the rest is.
func TestUnfitRemoteKeys(t *testing.T) {
	a, k := edKey("a"), keys()
	fit := jwk(a.Public(), `,"kid":"fit"`)
	for what, row := range map[string]struct{ unfit, token string }{
		"for encryption":         {jwk(&k.rsa.PublicKey, `,"kid":"x","use":"enc"`), signed("RS256", k.rsa, `{"alg":"RS256","kid":"x"}`, good)},
		"for other operations":   {jwk(&k.rsa.PublicKey, `,"kid":"x","key_ops":["encrypt","wrapKey"]`), signed("RS256", k.rsa, `{"alg":"RS256","kid":"x"}`, good)},
		"RSA of 1024 bits":       {jwk(&k.rsaShort.PublicKey, `,"kid":"x"`), signed("RS256", k.rsaShort, `{"alg":"RS256","kid":"x"}`, good)},
		"symmetric":              {fmt.Sprintf(`{"kty":"oct","kid":"x","k":%q}`, b64(secret)), signed("HS256", secret, `{"alg":"HS256","kid":"x"}`, good)},
		"a private key":          {jwk(edKey("b").Public(), fmt.Sprintf(`,"kid":"x","d":%q`, b64(edKey("b").Seed()))), byKidAt("x", edKey("b"))},
		"one of two of a name":   {jwk(edKey("b").Public(), `,"kid":"x"`) + "," + jwk(edKey("c").Public(), `,"kid":"x"`), byKidAt("x", edKey("b"))},
		"other of two of a name": {jwk(edKey("b").Public(), `,"kid":"x"`) + "," + jwk(edKey("c").Public(), `,"kid":"x"`), byKidAt("x", edKey("c"))},
		"alg of another kind":    {jwk(edKey("b").Public(), `,"kid":"x","alg":"ES256"`), byKidAt("x", edKey("b"))},
		"a kid without end":      {jwk(edKey("b").Public(), `,"kid":"`+strings.Repeat("x", 256)+`"`), byKidAt(strings.Repeat("x", 256), edKey("b"))},
	} {
		t.Run(what, func(t *testing.T) {
			withRemote(t, says(string(jwks(row.unfit, fit))), func(t *testing.T, r *remote) {
				if _, err := r.Bearer(t.Context(), row.token); !fault.Is(err, fault.TokenInvalid) {
					t.Errorf("a token of that key: %v", err)
				}
				r.want(t, "the control", byKid("fit", a), "")
			})
		})
	}
}

// byKidAt is byKid outside a bubble: good in the year 2000, at which bubbles begin.
func byKidAt(kid string, key ed25519.PrivateKey) string {
	return signed("EdDSA", key, fmt.Sprintf(`{"alg":"EdDSA","kid":%q}`, kid), good)
}

// A gateway starts while the server is down, says what is missing, and heals.
func TestStartWithoutServer(t *testing.T) {
	a := edKey("a")
	withRemote(t, down, func(t *testing.T, r *remote) {
		complaints := r.Ready()
		if len(complaints) != 1 || !strings.Contains(complaints[0].Error(), "are not there yet") || !strings.Contains(complaints[0].Error(), "connection refused") {
			t.Errorf("not ready because of %v", complaints)
		}
		_, err := r.Bearer(t.Context(), byKid("one", a))
		if !fault.Is(err, fault.UpstreamUnavailable) || fault.From(err).RetryAfter == 0 || fault.From(err).Detail != noKeys {
			t.Errorf("a token: %v", err)
		}
		time.Sleep(time.Hour)
		if n := r.server.count(); n > 130 {
			t.Errorf("asked %d times in an hour", n)
		}
		r.server.show(says(oneKey("one", a)))
		time.Sleep(31 * time.Second)
		r.want(t, "after healing", byKid("one", a), "")
		if len(r.Ready()) != 0 {
			t.Errorf("not ready: %v", r.Ready())
		}
	})
}

// A request that comes with the start waits for the first fetch.
func TestFirstFetchIsAwaited(t *testing.T) {
	a := edKey("a")
	slow := func(q *http.Request) (*http.Response, error) {
		time.Sleep(3 * time.Second)
		return says(oneKey("one", a))(q)
	}
	withRemote(t, slow, func(t *testing.T, r *remote) {
		r.want(t, "at the start", byKid("one", a), "")
	})
}

// Without Run nothing is waited for.
func TestNotRunning(t *testing.T) {
	a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{JWKSURL: keyURL}}, Transport: &keyServer{answer: down}})
	if _, err := a.Token(byKid("one", edKey("a"))); !fault.Is(err, fault.UpstreamUnavailable) {
		t.Errorf("got %v", err)
	}
	if len(a.Ready()) != 1 {
		t.Errorf("ready: %v", a.Ready())
	}
}

func FuzzKeySet(f *testing.F) {
	f.Add(oneKey("one", edKey("a")), "one")
	f.Add(string(jwks(jwk(&keys().rsa.PublicKey, `,"kid":"one","alg":"RS256"`), `{"kty":"oct","k":"AAAA"}`, jwk(&keys().p256.PublicKey, `,"use":"enc"`))), "one")
	f.Add(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"one"},1]}`, "")
	f.Fuzz(func(t *testing.T, text, kid string) {
		a, err := auth.New(auth.Options{Issuers: []auth.Issuer{{Keys: []byte(text)}}, Now: now})
		if err != nil {
			return
		}
		// A key that is not in the set never counts, whatever name it takes.
		token := signed("EdDSA", edKey("z"), fmt.Sprintf(`{"alg":"EdDSA","kid":%s}`, must(json.Marshal(kid))), good)
		if p, err := a.Token(token); err == nil || !fault.Is(err, fault.TokenInvalid) {
			t.Fatalf("%q lets %+v in: %v", text, p, err)
		}
	})
}
