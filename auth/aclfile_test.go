package auth_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// who returns what the ACL says of a user with a password.
func who(t testing.TB, acl, user string) (auth.Principal, error) {
	t.Helper()
	a := withOptions(t, auth.Options{ACL: []byte(acl), Passwords: []byte(must(auth.NewPassword(user, "x", 1))), Now: now})
	return a.Password(t.Context(), user, "x", "")
}

func TestACLFile(t *testing.T) {
	const file = `# Mosquitto's own example, and more
topic read $SYS/#

user roger
topic foo/bar
topic read  a b/c
topic write out/+
  topic readwrite both/#
topic deny both/secret/#
user a name
topic x
user roger
topic read late
pattern write in/%u/#
pattern read all
pattern deny %u/private
# the broker's own: no client has this identifier here
pattern write $SYS/broker/connection/%c/state
`
	for user, want := range map[string]struct{ pub, sub, deny []string }{
		"roger":  {[]string{"foo/bar", "out/+", "both/#", "in/roger/#"}, []string{"foo/bar", "a b/c", "both/#", "late", "all"}, []string{"both/secret/#", "roger/private"}},
		"a name": {[]string{"x", "in/a name/#"}, []string{"x", "all"}, []string{"a name/private"}},
		"Roger":  {[]string{"in/Roger/#"}, []string{"all"}, []string{"Roger/private"}},
	} {
		p, err := who(t, file, user)
		if err != nil {
			t.Errorf("%s: %v", user, err)
			continue
		}
		wantFilters(t, user+" pub", p.Grants.Pub, want.pub...)
		wantFilters(t, user+" sub", p.Grants.Sub, want.sub...)
		wantFilters(t, user+" deny", p.Grants.Deny, want.deny...)
	}
	if p, err := who(t, strings.ReplaceAll(file, "\n", "\r\n"), "a name"); err != nil || len(p.Grants.Pub) != 2 {
		t.Errorf("with CRLF: %+v, %v", p, err)
	}
}

// The lines before the first user are for clients without a name, where those may
// come at all.
func TestACLForNobody(t *testing.T) {
	const acl = "topic read news\ntopic deny news/secret\npattern read all\npattern read %u/x\nuser a\ntopic mine"
	if p, ok := withOptions(t, auth.Options{ACL: []byte(acl)}).Anonymous(); ok {
		t.Errorf("the ACL file alone let %+v in", p)
	}
	p, ok := withOptions(t, auth.Options{ACL: []byte(acl), Anonymous: auth.Grants{Sub: filters("news/#")}}).Anonymous()
	if !ok || !p.Anonymous {
		t.Fatalf("%+v", p)
	}
	wantFilters(t, "sub", p.Grants.Sub, "news/#", "news", "all")
	wantFilters(t, "deny", p.Grants.Deny, "news/secret")
	// It is not what a token may do.
	a := withOptions(t, auth.Options{ACL: []byte(acl), Issuers: []auth.Issuer{{Secret: secret}}, Now: now})
	wantFilters(t, "a token's sub", must(a.Token(hs(hs256, good))).Grants.Sub, "pets/#")
}

func TestACLFileRefuses(t *testing.T) {
	for _, row := range []struct{ text, refused string }{
		{"", ""}, {"user a\ntopic x", ""}, {"user a\ntopic read x y z", ""}, {"pattern read %u", ""}, {"pattern read %c/x", ""}, {"#topic x y", ""},
		{"user", "line 1: the user's name is empty"},
		{"\nuser \x01", "line 2: the user's name holds a control character"},
		{"users a", `line 1: "users" is neither user, topic nor pattern`},
		{"topic", "line 1: names no topic"},
		{"topic read", ""}, // a topic named "read"
		{"topic readonly x", `line 1: "readonly" is not read, write, readwrite or deny`},
		{"topic a b", `line 1: "a" is not read, write, readwrite or deny`},
		{"topic read a/#/b", `line 1: the topic "a/#/b" "#" must be the last level`},
		{"topic $share/g/a", `line 1: the topic "$share/g/a" names a shared subscription ("$share"), which cannot be granted`},
		{"pattern deny a/%c", "line 1: denies by %c, the MQTT client's identifier, which clients of this gateway do not have; write the rule with %u"},
		{"pattern read a/#/%u", `line 1: the topic "a/#/name" "#" must be the last level`},
		{"topic \xff", "is not valid UTF-8"},
	} {
		_, err := auth.New(auth.Options{ACL: []byte(row.text)})
		if row.refused == "" && err != nil || row.refused != "" && (err == nil || !strings.HasSuffix(err.Error(), row.refused)) {
			t.Errorf("%q gives %v, want %s", row.text, err, row.refused)
		}
	}
}

// A name cannot change the shape of a pattern; where that would be, it has no
// access at all, since the rule may be one that denies.
func TestNamesInPatterns(t *testing.T) {
	for _, row := range []struct {
		pattern, user string
		ok            bool
	}{
		{"pattern read in/%u", "a b", true}, {"pattern read in/%u", "a/b", false}, {"pattern read in/%u", "+", false}, {"pattern deny in/%u", "a#", false},
		{"pattern read %u/x", "$a", false}, {"pattern read in/%u", "$a", true}, {"pattern read in/x", "a/b", true}, {"user a/b", "a/b", true},
	} {
		p, err := who(t, row.pattern, row.user)
		if row.ok && err != nil || !row.ok && !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s for %q: %+v, %v", row.pattern, row.user, p, err)
		}
	}
}

// The meaning of deny rules: nobody publishes to or is delivered a topic that one
// matches, whatever is granted, and everything else is as if there were none.
func TestDenyMeans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		open := auth.Grants{Pub: rapid.SliceOfN(aFilter, 0, 4).Draw(t, "pub"), Sub: rapid.SliceOfN(aFilter, 0, 4).Draw(t, "sub")}
		closed := open
		closed.Deny = rapid.SliceOfN(aFilter, 0, 4).Draw(t, "deny")
		f := aFilter.Draw(t, "filter")
		granted, _ := closed.Narrow(f)
		all, _ := open.Narrow(f)
		_, covered := closed.Covers(f)
		for _, topic := range rapid.SliceOfN(aTopic, 1, 20).Draw(t, "topics") {
			denied := false
			for _, rule := range closed.Deny {
				denied = denied || rule.Matches(topic)
			}
			if closed.Denied(topic) != denied {
				t.Fatalf("%q is denied: %v, want %v", topic, !denied, denied)
			}
			_, was := open.MayPublish(topic)
			if _, is := closed.MayPublish(topic); is != (was && !denied) {
				t.Fatalf("publish to %q: %v", topic, is)
			}
			reaches := func(filters []mqtt.Filter) (yes bool) {
				for _, f := range filters {
					yes = yes || f.Matches(topic)
				}
				return yes
			}
			if got, want := reaches(granted) && !closed.Denied(topic), reaches(all) && !denied; got != want {
				t.Fatalf("%q is delivered to %q: %v, want %v", topic, granted, got, want)
			}
			if covered && f.Matches(topic) && denied {
				t.Fatalf("%q is covered although %q is denied", f, topic)
			}
		}
	})
}

func FuzzACLFile(f *testing.F) {
	f.Add("topic read $SYS/#\nuser a\ntopic x\npattern deny %u/x\npattern read %c", "a")
	f.Add("user \n", "b")
	f.Add("pattern read %u%u/#", "a/b")
	f.Fuzz(func(t *testing.T, text, user string) {
		line, err := auth.NewPassword(user, "x", 1)
		if err != nil {
			return
		}
		a, err := auth.New(auth.Options{ACL: []byte(text), Passwords: []byte(line), Anonymous: auth.Grants{Sub: []mqtt.Filter{"a"}}, Now: now})
		if err != nil {
			return
		}
		p, err := a.Password(t.Context(), user, "x", "")
		if err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Fatal(err)
		}
		nobody, _ := a.Anonymous()
		for _, g := range []auth.Grants{p.Grants, nobody.Grants} {
			for _, filter := range append(append(g.Pub, g.Sub...), g.Deny...) {
				if _, err := mqtt.ParseFilter(string(filter), mqtt.Limits{}); err != nil {
					t.Fatalf("%q grants %q: %v", text, filter, err)
				}
			}
		}
	})
}
