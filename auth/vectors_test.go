package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"flyscreen/auth"
)

// vector is one test of Wycheproof's: a JWS and whether it must be accepted.
type vector struct {
	ID      int             `json:"tcId"`
	Comment string          `json:"comment"`
	JWS     json.RawMessage `json:"jws"`
	Result  string          `json:"result"`
}

type vectorGroup struct {
	Comment string          `json:"comment"`
	Public  json.RawMessage `json:"public"`
	Private json.RawMessage `json:"private"`
	Tests   []vector        `json:"tests"`
}

// strict are vectors that Wycheproof accepts and this room does not, with the
// reason; each must be refused, so that the list says what is true.
var strict = map[string]map[int]string{
	"json_web_signature_test.json": {
		346: "the key is for PS256 and the JWS is PS384", 350: "the key is for PS256 and the JWS is PS384",
		347: `the key is for "ES521", which is no algorithm`, 351: `the key is for "ES521", which is no algorithm`,
		372: `"?" is not in the alphabet of base64url`, 373: `"?" is not in the alphabet of base64url`,
	},
	"json_web_key_test.json": {
		2: "a set of symmetric keys cannot be configured",
	},
}

// mislabelled are vectors that shall be invalid and are, to the letter, one that
// shall be valid: the padding that they were about is lost.
var mislabelled = map[int]int{367: 357, 370: 357}

// Wycheproof's vectors for JSON Web Signatures and Keys, at the seam of the
// signature: what is forged or ambiguous is refused, what is right is accepted.
func TestWycheproof(t *testing.T) {
	for _, file := range []string{"json_web_signature_test.json", "json_web_key_test.json"} {
		text, err := fs.ReadFile(wycheproof.TestVectors, file)
		if err != nil {
			t.Fatal(err)
		}
		var suite struct {
			NumberOfTests int           `json:"numberOfTests"`
			TestGroups    []vectorGroup `json:"testGroups"`
		}
		if err := json.Unmarshal(text, &suite); err != nil {
			t.Fatal(err)
		}
		seen, accepted, texts := 0, 0, map[int]string{}
		for _, group := range suite.TestGroups {
			for _, v := range group.Tests {
				seen++
				err := tryVector(t, group, v)
				want := v.Result == "valid"
				texts[v.ID] = string(v.JWS)
				if same, known := mislabelled[v.ID]; known && file == "json_web_signature_test.json" && texts[same] == texts[v.ID] {
					want = true
				}
				if why, known := strict[file][v.ID]; known && want {
					want = false
					t.Logf("%s %d is refused on purpose: %s", file, v.ID, why)
				}
				if (err == nil) != want {
					t.Errorf("%s %d (%s, %s) must be %s: %v", file, v.ID, group.Comment, v.Comment, v.Result, err)
				}
				if err == nil {
					accepted++
				}
			}
		}
		if seen != suite.NumberOfTests || accepted < 4 {
			t.Errorf("%s: %d of %d vectors tried, %d accepted", file, seen, suite.NumberOfTests, accepted)
		}
		t.Logf("%s: %d vectors, %d accepted", file, seen, accepted)
	}
}

// tryVector gives the room the group's key as an operator would: a public key or a
// set as a keys file, a symmetric one as a secret.
func tryVector(t *testing.T, group vectorGroup, v vector) error {
	t.Helper()
	var jws string
	if err := json.Unmarshal(v.JWS, &jws); err != nil {
		jws = string(v.JWS) // the JSON serialization, which is no token
	}
	key := group.Public
	if key == nil {
		key = group.Private
	}
	var one struct {
		Kty, K string
		Keys   []json.RawMessage
	}
	if err := json.Unmarshal(key, &one); err != nil {
		t.Fatal(err)
	}
	switch {
	case one.Kty == "oct":
		return trySecret(t, key, jws)
	case one.Keys == nil:
		return auth.CheckSignature(nil, []byte(`{"keys":[`+string(key)+`]}`), jws)
	case len(one.Keys) == 1 && group.Public == nil:
		return trySecret(t, one.Keys[0], jws)
	}
	return auth.CheckSignature(nil, key, jws)
}

// trySecret takes a symmetric JWK for what it says it is: the configuration has no
// place for use and alg of a secret, so the test holds it to them.
func trySecret(t *testing.T, jwk json.RawMessage, jws string) error {
	t.Helper()
	var key struct{ K, Alg string }
	if err := json.Unmarshal(jwk, &key); err != nil {
		t.Fatal(err)
	}
	secret, err := base64.RawURLEncoding.DecodeString(key.K)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(key.Alg, "HS") {
		t.Logf("a key for %s is no secret for signatures: an operator cannot configure it as one", key.Alg)
		return errNotASecret
	}
	return auth.CheckSignature(secret, nil, jws)
}

type constError string

func (e constError) Error() string { return string(e) }

const errNotASecret = constError("not a secret for signatures")

// RFC 7520 sections 4.1 to 4.4, with the keys as the RFC shows them: without the
// alg that Wycheproof has given them.
func TestRFC7520(t *testing.T) {
	text, err := fs.ReadFile(wycheproof.TestVectors, "json_web_signature_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		TestGroups []vectorGroup `json:"testGroups"`
	}
	if err := json.Unmarshal(text, &suite); err != nil {
		t.Fatal(err)
	}
	figures := map[string]int{}
	for _, group := range suite.TestGroups {
		if group.Comment != "rfc7520" {
			continue
		}
		for _, v := range group.Tests {
			if group.Public != nil {
				var key map[string]any
				if err := json.Unmarshal(group.Public, &key); err != nil {
					t.Fatal(err)
				}
				delete(key, "alg")
				group.Public = must(json.Marshal(key))
			}
			if err := tryVector(t, group, v); err != nil {
				t.Errorf("%s: %v", v.Comment, err)
			}
			var jws string
			if err := json.Unmarshal(v.JWS, &jws); err != nil {
				t.Fatal(err)
			}
			header, rest, _ := strings.Cut(jws, ".")
			v.JWS = must(json.Marshal(header + "." + "AAAA" + rest)) // another payload
			if err := tryVector(t, group, v); err == nil {
				t.Errorf("%s: another payload is accepted", v.Comment)
			}
			figures[v.Comment]++
		}
	}
	if len(figures) != 4 {
		t.Errorf("tried %v", figures)
	}
}
