package auth_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

func newKey(t testing.TB, k auth.APIKey) (key, line string) {
	t.Helper()
	key, line, err := auth.NewAPIKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return key, line
}

func TestAPIKey(t *testing.T) {
	one, oneLine := newKey(t, auth.APIKey{Subject: "tracker-7", Pub: []string{"pets/7/#"}, All: []string{"chat/${sub}"}})
	two, twoLine := newKey(t, auth.APIKey{Subject: "tracker-8", Expires: clock.Add(time.Hour)})
	gone, _ := newKey(t, auth.APIKey{Subject: "gone"})
	over, overLine := newKey(t, auth.APIKey{Subject: "late", Expires: clock})
	if strings.Contains(oneLine, one) || strings.Contains(oneLine, one[strings.LastIndexByte(one, '_')+1:]) {
		t.Fatalf("the line %s holds the key %s", oneLine, one)
	}
	file := "# keys\n\n" + oneLine + "\n  " + twoLine + "\r\n" + overLine
	a := withOptions(t, auth.Options{APIKeys: []byte(file), ACL: []byte("user tracker-7\ntopic read news\ntopic deny pets/7/secret"), Now: now})

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("X-API-Key", one)
	p, err := a.Request(r)
	if err != nil || p.Kind != auth.KindAPIKey || p.Subject != "tracker-7" || p.KeyID != one[4:14] || p.Anonymous || !p.Ends.IsZero() {
		t.Fatalf("%+v, %v", p, err)
	}
	wantFilters(t, "pub", p.Grants.Pub, "pets/7/#", "chat/tracker-7")
	wantFilters(t, "sub", p.Grants.Sub, "chat/tracker-7", "news")
	wantFilters(t, "deny", p.Grants.Deny, "pets/7/secret")
	if p, err := a.APIKey(two); err != nil || !p.Ends.Equal(clock.Add(time.Hour)) {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := a.APIKey(over); !fault.Is(err, fault.TokenExpired) {
		t.Errorf("an expired key: %v", err)
	}
	for what, bad := range map[string]string{
		"a key that is not there": gone, "cut": one[:len(one)-1], "longer": one + "A", "another secret": one[:15] + two[15:], "another id": two[:15] + one[15:],
		"the id only": one[:14], "small letters": strings.ToLower(one), "without prefix": one[4:], "empty": "", "garbage": "x_y_z",
	} {
		if _, err := a.APIKey(bad); !fault.Is(err, fault.Unauthenticated) || fault.From(err).Detail != "the API key is not known here" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Each row is one line that refuses the file; the control is the line as it was made.
func TestAPIKeyFile(t *testing.T) {
	_, good := newKey(t, auth.APIKey{Subject: "x", Sub: []string{"a/#"}, Expires: clock})
	change := func(name string, v any) string {
		var members map[string]any
		if err := json.Unmarshal([]byte(good), &members); err != nil {
			t.Fatal(err)
		}
		if members[name] = v; v == nil {
			delete(members, name)
		}
		return string(must(json.Marshal(members)))
	}
	var id struct{ ID string }
	if err := json.Unmarshal([]byte(good), &id); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ text, refused string }{
		{good, ""}, {"", ""}, {"# nothing", ""}, {change("expires", nil), ""}, {change("acl", nil), ""},
		{good + "\n" + change("subject", "y"), "line 2: the key has the id of an earlier key"},
		{"\n" + good[:len(good)-1], "line 2: the key is not valid JSON"},
		{good + good, "line 1: the key is not valid JSON"},
		{`[]`, "line 1: the key is not a JSON object"},
		{`{"id":"a","id":"b"}`, "line 1: the key has two members of the same name"},
		{change("Subject", "x"), `line 1: the key has a member "Subject"; "id", "subject", "sha256", "acl" and "expires" are known`},
		{change("id", nil), `line 1: the key has an "id" that is not 10 small letters and digits`},
		{change("id", strings.ToUpper(id.ID)), `line 1: the key has an "id" that is not 10 small letters and digits`},
		{change("id", 5), `line 1: the key has a member "id" that is not a string`},
		{change("subject", ""), `line 1: the key has a "subject" that is empty`},
		{change("subject", "a\x00"), `line 1: the key has a "subject" that holds a control character`},
		{change("sha256", "00"), `line 1: the key has a "sha256" that is not 64 hexadecimal digits`},
		{change("sha256", strings.Repeat("0", 66)), `line 1: the key has a "sha256" that is not 64 hexadecimal digits`},
		{change("sha256", nil), `line 1: the key has a "sha256" that is not 64 hexadecimal digits`},
		{change("expires", "tomorrow"), `line 1: the key has an "expires" that is not a time such as 2027-01-31T00:00:00Z`},
		{change("acl", "a"), `line 1: the key is refused: the member "acl" is not an object`},
		{change("acl", map[string]any{"sub": []string{"a/#/b"}}), `line 1: the key is refused: the grant acl.sub[0] "#" must be the last level`},
		{change("acl", map[string]any{"sub": []string{"${claims.x}"}}), `line 1: the key is refused: the grant acl.sub[0] asks for the claim "x", which the token does not have`},
	} {
		_, err := auth.New(auth.Options{APIKeys: []byte(row.text)})
		if row.refused == "" && err != nil || row.refused != "" && (err == nil || err.Error() != "the file of API keys, "+row.refused) {
			t.Errorf("%s\ngives %v\nwant  %s", row.text, err, row.refused)
		}
	}
}

func TestNewAPIKeyRefuses(t *testing.T) {
	for _, bad := range []auth.APIKey{{}, {Subject: "a\n"}, {Subject: "a", Sub: []string{"a/#/b"}}, {Subject: "a", Pub: []string{"$share/g/a"}}, {Subject: "a/b", All: []string{"x/${sub}"}}} {
		if key, line, err := auth.NewAPIKey(bad); err == nil || key != "" || line != "" {
			t.Errorf("%+v: %q %q", bad, key, line)
		}
	}
}

func FuzzAPIKeyFile(f *testing.F) {
	key, line := newKey(f, auth.APIKey{Subject: "x", Sub: []string{"a/#"}, Expires: clock.Add(time.Hour)})
	f.Add(line, key)
	f.Add("# x\n\n"+line+"\n{}", key)
	f.Add(`{"id":"aaaaaaaaaa","subject":"x","sha256":"00","acl":{}}`, "fsk_aaaaaaaaaa_")
	f.Fuzz(func(t *testing.T, text, key string) {
		a, err := auth.New(auth.Options{APIKeys: []byte(text + ""), Now: now})
		if err != nil || text == "" {
			return
		}
		p, err := a.APIKey(key)
		if err == nil && (p.Subject == "" || p.KeyID == "" || !strings.Contains(text, p.KeyID)) {
			t.Fatalf("%q is good for %+v", key, p)
		}
	})
}
