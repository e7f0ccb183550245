package blackbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"
)

// secret is the gateways' HS256 secret.
const secret = "a secret that only these black-box tests use"

// signer makes tokens with npm's jose, in one node process for all tests.
type signer struct {
	process *process

	mu   sync.Mutex // one request at a time; guards made
	made int
}

func startSigner() (*signer, error) {
	p, err := startProcess(nil, "node", "clients/sign.mjs")
	if err != nil {
		return nil, fmt.Errorf("starting the signer: %w", err)
	}
	return &signer{process: p}, nil
}

func (s *signer) stop() { s.process.kill() }

func (s *signer) sign(t *testing.T, alg, secret string, claims map[string]any) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	request, err := json.Marshal(map[string]any{"claims": claims, "secret": secret, "alg": alg})
	if err = errors.Join(err); err != nil {
		t.Fatal(err)
	}
	s.process.send(t, string(request))
	s.made++
	all := s.process.out.await(t, "a signed token", func(all []string) bool { return len(all) >= s.made })
	return all[s.made-1]
}

// grants is a token's acl claim.
type grants struct {
	Pub []string `json:"pub,omitempty"`
	Sub []string `json:"sub,omitempty"`
	All []string `json:"all,omitempty"`
}

// tokenFor is a token for subject with these grants, good for an hour; more
// claims replace the usual ones.
func tokenFor(t *testing.T, subject string, acl grants, more ...map[string]any) string {
	t.Helper()
	claims := map[string]any{"sub": subject, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "acl": acl}
	for _, m := range more {
		maps.Copy(claims, m)
	}
	return suite.signer.sign(t, "HS256", secret, claims)
}

// everything may publish and subscribe to all topics.
func everything(t *testing.T) string {
	t.Helper()
	return tokenFor(t, "everything", grants{All: []string{"#"}})
}
