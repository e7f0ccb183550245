package auth

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// An API key is fsk_<id>_<secret>. The id finds the key's line, and says in logs
// which key it was; the secret is 130 random bits, so one fast hash protects it as
// well as a slow one would: there is nothing to guess.
const (
	apiKeyPrefix = "fsk_"
	apiKeyIDSize = 10
)

// apiKeys is what a file of API keys holds, by id.
type apiKeys struct{ byID map[string]apiKey }

type apiKey struct {
	id, subject string
	hash        digest // of the whole key
	grants      Grants
	expires     time.Time // zero: never
}

// APIKey says what a new key is good for.
type APIKey struct {
	Subject       string
	Pub, Sub, All []string // filters, which may hold ${sub}
	// Expires is the key's end; zero means never.
	Expires time.Time
}

// NewAPIKey makes a key and the line for the file of API keys. The key itself is
// nowhere else: whoever loses it makes a new one.
func NewAPIKey(k APIKey) (key, line string, err error) {
	id := strings.ToLower(rand.Text()[:apiKeyIDSize])
	key = apiKeyPrefix + id + "_" + rand.Text()
	sum := sha256.Sum256([]byte(key))
	entry := struct {
		ID      string              `json:"id"`
		Subject string              `json:"subject"`
		Hash    string              `json:"sha256"`
		ACL     map[string][]string `json:"acl,omitempty"`
		Expires string              `json:"expires,omitempty"`
	}{ID: id, Subject: k.Subject, Hash: hex.EncodeToString(sum[:]), ACL: map[string][]string{}}
	for kind, filters := range map[string][]string{"pub": k.Pub, "sub": k.Sub, "all": k.All} {
		if len(filters) > 0 {
			entry.ACL[kind] = filters
		}
	}
	if !k.Expires.IsZero() {
		entry.Expires = k.Expires.UTC().Format(time.RFC3339)
	}
	text, err := json.Marshal(entry)
	if err != nil {
		return "", "", err
	}
	if _, err := readAPIKey(text, DefaultMaxGrants, mqtt.Limits{}); err != nil { // what New would refuse is not handed out
		return "", "", fmt.Errorf("the key %w", err)
	}
	return key, string(text), nil
}

// readAPIKeys reads the content of a file of API keys: one JSON object a line, as
// NewAPIKey makes it; empty lines and those that begin with # do not count.
func readAPIKeys(text []byte, maxGrants int, limits mqtt.Limits) (*apiKeys, error) {
	keys := &apiKeys{byID: map[string]apiKey{}}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxKeysBytes)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		k, err := readAPIKey(line, maxGrants, limits)
		if err == nil && keys.byID[k.id].id != "" {
			err = errors.New("has the id of an earlier key")
		}
		if err != nil {
			return nil, fmt.Errorf("the file of API keys, line %d: the key %w", n, err)
		}
		keys.byID[k.id] = k
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("the file of API keys: %w", err)
	}
	return keys, nil
}

// readAPIKey reads one line.
func readAPIKey(line []byte, maxGrants int, limits mqtt.Limits) (k apiKey, err error) {
	members, err := parseObject(line)
	if err != nil {
		return k, err
	}
	text := map[string]string{}
	for name, v := range members {
		switch name {
		case "id", "subject", "sha256", "expires":
			s, ok := v.(string)
			if !ok {
				return k, fmt.Errorf("has a member %q that is not a string", name)
			}
			text[name] = s
		case "acl":
		default:
			return k, fmt.Errorf(`has a member %.40q; "id", "subject", "sha256", "acl" and "expires" are known`, name)
		}
	}
	k.id, k.subject = text["id"], text["subject"]
	if !validKeyID(k.id) {
		return k, fmt.Errorf(`has an "id" that is not %d small letters and digits`, apiKeyIDSize)
	}
	if err := checkSubject(k.subject); err != nil {
		return k, fmt.Errorf(`has a "subject" that %w`, err)
	}
	if sum, err := hex.DecodeString(text["sha256"]); err != nil || copy(k.hash[:], sum) != len(k.hash) || len(sum) != len(k.hash) {
		return k, fmt.Errorf(`has a "sha256" that is not %d hexadecimal digits`, 2*len(k.hash))
	}
	if at, given := text["expires"]; given {
		if k.expires, err = time.Parse(time.RFC3339, at); err != nil {
			return k, errors.New(`has an "expires" that is not a time such as 2027-01-31T00:00:00Z`)
		}
	}
	claims := map[string]any{"sub": k.subject}
	if acl, given := members["acl"]; given {
		claims["acl"] = acl
	}
	if k.grants, err = grantsOf(claims, maxGrants, limits); err != nil {
		return k, fmt.Errorf("is refused: %s", fault.From(err).Detail)
	}
	return k, nil
}

func validKeyID(id string) bool {
	return len(id) == apiKeyIDSize && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// APIKey returns whom an API key stands for. The error is a *fault.Error of kind
// Unauthenticated or TokenExpired; it does not tell a wrong id from a wrong secret.
func (a *Authenticator) APIKey(key string) (Principal, error) {
	keys := a.apiKeys.Load()
	if keys == nil {
		return Principal{}, fault.New(fault.Unauthenticated, "API keys are not accepted here; send a token in the header Authorization: Bearer <token>")
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(key, apiKeyPrefix), "_")
	k, known := keys.byID[id]
	sum := sha256.Sum256([]byte(key))
	if subtle.ConstantTimeCompare(sum[:], k.hash[:]) != 1 || !known {
		return Principal{}, fault.New(fault.Unauthenticated, "the API key is not known here")
	}
	return a.Current(Principal{Kind: KindAPIKey, Subject: k.subject, KeyID: k.id, proof: k.hash})
}

// currentAPIKey looks the key up that p showed.
func (a *Authenticator) currentAPIKey(p Principal) (Principal, error) {
	keys := a.apiKeys.Load()
	if keys == nil {
		return Principal{}, errWithdrawn
	}
	k, known := keys.byID[p.KeyID]
	if !known || k.hash != p.proof || k.subject != p.Subject {
		return Principal{}, errWithdrawn
	}
	p.Expires, p.Ends = k.expires, k.expires // this clock alone counts, so no leeway
	if !p.Ends.IsZero() && !a.now().Before(p.Ends) {
		return Principal{}, fault.New(fault.TokenExpired, "the API key expired at %s", k.expires.UTC().Format(time.RFC3339))
	}
	return a.withGrants(p, k.grants)
}

func (a *Authenticator) setAPIKeys(text []byte) error {
	keys, err := readAPIKeys(text, a.maxGrants, a.limits)
	if err == nil {
		a.apiKeys.Store(keys)
	}
	return err
}
