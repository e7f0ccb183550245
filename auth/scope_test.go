package auth_test

import (
	"fmt"
	"strings"
	"testing"

	"flyscreen/auth"
)

// claimsToken is a good token with more claims, which begin with a comma.
func claimsToken(more string) string { return hs(hs256, `{"sub":"dash","exp":4000000000`+more+`}`) }

// Grants in all three places, each beside what refuses the whole token.
func TestGrantsInScopeAndDetails(t *testing.T) {
	const others = `,"acl":{"sub":["good"]}` // which a refusal takes away too
	details := func(text string) string { return `,"authorization_details":[` + text + `]` }
	for _, row := range []struct{ claims, pub, sub, refused string }{
		{claims: `,"scope":"openid mqtt:sub:pets/%23 mqtt:pub:pets/+/commands"`, pub: "pets/+/commands", sub: "pets/#"},
		{claims: `,"scope":"mqtt:sub:pets/#"`, sub: "pets/#"},
		{claims: `,"scope":"  mqtt:sub:a  mqtt:sub:b "`, sub: "a b"},
		{claims: `,"scope":["profile","mqtt:sub:a"]`, sub: "a"},
		{claims: `,"scope":"mqtt:sub:a%2Fb mqtt:sub:c%25"`, sub: "a/b c%"},
		{claims: `,"scope":"mqtt:sub:chat/${sub} mqtt:pub:fleet/${claims.fleet}/x","fleet":"n%2Fm"`, pub: "fleet/n%2Fm/x", sub: "chat/dash"},
		{claims: `,"scope":"xmqtt:sub:a mqtt mqttsub:a"`},
		{claims: others + `,"scope":"mqtt:sub:b"`, sub: "good b"},
		{claims: others + `,"scope":"mqtt:all:b"`, refused: "the word scope[0] is neither mqtt:pub:<filter> nor mqtt:sub:<filter>"},
		{claims: others + `,"scope":"a mqtt:"`, refused: "the word scope[1] is neither mqtt:pub:<filter> nor mqtt:sub:<filter>"},
		{claims: others + `,"scope":"mqtt:sub:"`, refused: "the grant scope[0] is empty"},
		{claims: others + `,"scope":"mqtt:sub:a/%2"`, refused: `the word scope[0] holds a "%" that begins no escape`},
		{claims: others + `,"scope":"mqtt:sub:a/#/b"`, refused: `the grant scope[0] "#" must be the last level`},
		{claims: others + `,"scope":"mqtt:sub:a%00"`, refused: "the grant scope[0] holds the character U+0000, which brokers refuse"},
		{claims: others + `,"scope":"mqtt:sub:%ff"`, refused: "the grant scope[0] is not valid UTF-8"},
		{claims: others + `,"scope":"mqtt:sub:$share/g/a"`, refused: `the grant scope[0] names a shared subscription ("$share"), which cannot be granted`},
		{claims: others + `,"scope":"mqtt:sub:${claims.x}"`, refused: `the grant scope[0] asks for the claim "x", which the token does not have`},
		{claims: others + `,"scope":"mqtt:sub:${claims.x}","x":"a/b"`, refused: `the grant scope[0] asks for the claim "x", whose value holds one of / + # or a control character`},

		{claims: details(`{"type":"mqtt","actions":["publish","subscribe"],"topics":["a","b/#"]}`), pub: "a b/#", sub: "a b/#"},
		{claims: details(`{"type":"mqtt","actions":["subscribe","subscribe"],"topics":["chat/${sub}"]}`), sub: "chat/dash"},
		{claims: details(`{"type":"payment","amount":5},{"type":"mqtt","actions":["publish"],"topics":["a"]}`), pub: "a"},
		{claims: details(``)},
		{claims: others + details(`{"actions":["publish"],"topics":["a"]}`), refused: `the object authorization_details[0] has no "type"`},
		{claims: others + details(`{"type":"mqtt","topics":["a"]}`), refused: `the member "authorization_details[0].actions" is not an array of strings with something in it`},
		{claims: others + details(`{"type":"mqtt","actions":[],"topics":["a"]}`), refused: `the member "authorization_details[0].actions" is not an array of strings with something in it`},
		{claims: others + details(`{"type":"mqtt","actions":"publish","topics":["a"]}`), refused: `the member "authorization_details[0].actions" is not an array of strings with something in it`},
		{claims: others + details(`{"type":"mqtt","actions":["read"],"topics":["a"]}`), refused: `the member "authorization_details[0].actions" may only hold "publish" and "subscribe"`},
		{claims: others + details(`{"type":"mqtt","actions":["publish"]}`), refused: `the member "authorization_details[0].topics" is not an array of strings with something in it`},
		{claims: others + details(`{"type":"mqtt","actions":["publish"],"topics":[1]}`), refused: `the member "authorization_details[0].topics" is not an array of strings with something in it`},
		{claims: others + details(`{"type":"x"},{"type":"mqtt","actions":["publish"],"topics":["a","b/#/c"]}`), refused: `the grant authorization_details[1].topics[1] "#" must be the last level`},
		{claims: others + details(`{"type":"mqtt","actions":["publish"],"topics":["a"],"qos":1}`), refused: `the object authorization_details[0] may only hold "type", "actions" and "topics"`},
	} {
		t.Run(row.claims, func(t *testing.T) {
			token := claimsToken(row.claims)
			a := authenticator(t, auth.Issuer{Secret: secret})
			checkToken(t, a, token, row.refused)
			if row.refused == "" {
				p := must(a.Token(token))
				wantFilters(t, "pub", p.Grants.Pub, strings.Fields(row.pub)...)
				wantFilters(t, "sub", p.Grants.Sub, strings.Fields(row.sub)...)
			}
		})
	}
}

// The bound holds for all grants of a token together.
func TestBoundOfAllGrants(t *testing.T) {
	a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{Secret: secret}}, Now: now, MaxGrants: 3})
	claims := `,"acl":{"all":["a"]},"scope":"mqtt:sub:b","authorization_details":[{"type":"mqtt","actions":["publish","subscribe"],"topics":[%s]}]`
	checkToken(t, a, claimsToken(fmt.Sprintf(claims, `"c"`)), "")
	checkToken(t, a, claimsToken(fmt.Sprintf(claims, `"c","d"`)), "the token holds more than 3 grants")
}
