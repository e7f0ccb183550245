package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
)

func TestMint(t *testing.T) {
	token, err := auth.Mint(secret, auth.Claims{
		Subject: "dash", Issuer: "https://a.example", Audience: []string{"gw"},
		Pub: []string{"pets/+/commands/#"}, Sub: []string{"pets/#"}, All: []string{"chat/${sub}"},
		TTL: 1500 * time.Millisecond, Now: clock.Add(time.Millisecond),
	})
	if err != nil {
		t.Fatal(err)
	}
	a := authenticator(t, auth.Issuer{Name: "https://a.example", Audience: []string{"gw"}, Secret: secret})
	p, err := a.Token(token)
	if err != nil || p.Subject != "dash" {
		t.Fatalf("principal %+v, error %v, want dash", p, err)
	}
	wantFilters(t, "pub", p.Grants.Pub, "pets/+/commands/#", "chat/dash")
	wantFilters(t, "sub", p.Grants.Sub, "pets/#", "chat/dash")
	if want := clock.Add(2 * time.Second); !p.Expires.Equal(want) {
		t.Errorf("expires %v, want %v", p.Expires, want)
	}
}

// A token holds nothing that was not asked for.
func TestMintLeast(t *testing.T) {
	token, err := auth.Mint(secret, auth.Claims{Subject: "dash", TTL: time.Hour, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	part, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(part, &claims); err != nil || len(claims) != 3 {
		t.Errorf("claims are %v, error %v, want sub, iat and exp", claims, err)
	}
	if _, err := auth.Mint(secret, auth.Claims{Subject: "dash", TTL: time.Hour}); err != nil {
		t.Errorf("with the present time: %v", err)
	}
}

func TestMintRefuses(t *testing.T) {
	ok := auth.Claims{Subject: "dash", TTL: time.Hour}
	for _, row := range []struct {
		secret []byte
		change func(*auth.Claims)
		want   string
	}{
		{secret, func(*auth.Claims) {}, ""},
		{secret[:31], func(*auth.Claims) {}, "the secret has 31 bytes; HS256 needs at least 32"},
		{secret, func(c *auth.Claims) { c.TTL = 0 }, "the time to live must be more than zero"},
		{secret, func(c *auth.Claims) { c.TTL = -1 }, "the time to live must be more than zero"},
		{secret, func(c *auth.Claims) { c.Subject = "" }, `token-invalid: the member "sub" is empty`},
		{secret, func(c *auth.Claims) { c.Subject = "a\xff" }, `"a\xff" is not valid UTF-8`},
		{secret, func(c *auth.Claims) { c.Sub = []string{"a", "b/#/c"} }, `token-invalid: the grant acl.sub[1] "#" must be the last level`},
		{secret, func(c *auth.Claims) { c.All = []string{"${user}"} }, "token-invalid: the grant acl.all[0] holds an unknown placeholder; ${sub} and ${claims.NAME} are known"},
	} {
		c := ok
		row.change(&c)
		_, err := auth.Mint(row.secret, c)
		if got := errorText(err); got != row.want {
			t.Errorf("error is %q, want %q", got, row.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
