package wire_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/wire"
)

func query(t *testing.T, raw string) *wire.Query {
	t.Helper()
	q, err := wire.ParseQuery(raw)
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	return q
}

func TestQueryValues(t *testing.T) {
	for _, c := range []struct {
		raw  string
		want []string
	}{
		{"", nil},
		{"filter=a/+/b", []string{"a/+/b"}},
		{"filter=a/%2B/b", []string{"a/+/b"}},
		{"filter=a%20b", []string{"a b"}},
		{"filter=a/%23", []string{"a/#"}},
		{"filter=%2523", []string{"%23"}},
		{"filter=a&filter=b&x=c&filter=a", []string{"a", "b", "a"}},
		{"%66ilter=a", []string{"a"}},
		{"filter", []string{""}},
		{"filter=", []string{""}},
		{"filter=a=b", []string{"a=b"}},
		{"&&filter=a&", []string{"a"}},
		{"filter=a;b", []string{"a;b"}},
		{"filter=%FF", []string{"\xff"}},
	} {
		if got := query(t, c.raw).All("filter"); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.raw, got, c.want)
		}
	}
	for _, raw := range []string{"a=%", "a=%zz", "%=1", "a=1&b=%2"} {
		if _, err := wire.ParseQuery(raw); !fault.Is(err, fault.BadRequest) {
			t.Errorf("%q: %v, want bad-request", raw, err)
		}
	}
}

func TestQueryKinds(t *testing.T) {
	for _, c := range []struct {
		raw string
		n   int
		ok  bool
	}{
		{"", 7, true}, {"n=0", 0, true}, {"n=2", 2, true}, {"n=02", 0, false}, {"n=00", 0, false}, {"n=-0", 0, false},
		{"n=3", 0, false}, {"n=-1", 0, false}, {"n=+1", 0, false}, {"n=", 0, false}, {"n=1.0", 0, false}, {"n=0x1", 0, false},
		{"n=99999999999999999999", 0, false}, {"n=1&n=1", 0, false},
	} {
		n, err := query(t, c.raw).Int("n", 7, 0, 2)
		if c.ok && (err != nil || n != c.n) || !c.ok && !fault.Is(err, fault.BadRequest) {
			t.Errorf("%q: %d, %v", c.raw, n, err)
		}
	}
	for _, c := range []struct {
		raw      string
		yes, bad bool
	}{
		{"", true, false}, {"b=true", true, false}, {"b=false", false, false},
		{"b=True", false, true}, {"b=1", false, true}, {"b", false, true}, {"b=true&b=true", false, true},
	} {
		yes, err := query(t, c.raw).Bool("b", true)
		if !c.bad && (err != nil || yes != c.yes) || c.bad && !fault.Is(err, fault.BadRequest) {
			t.Errorf("%q: %v, %v", c.raw, yes, err)
		}
	}
}

// Nothing in a query is ignored: what nobody read is refused.
func TestQueryUnknown(t *testing.T) {
	q := query(t, "a=1&b=2")
	q.All("a")
	if err := q.Unknown(); !fault.Is(err, fault.BadRequest) || !strings.Contains(fault.From(err).Detail, `"b"`) {
		t.Errorf("%v does not refuse b", err)
	}
	q.All("b")
	if err := q.Unknown(); err != nil {
		t.Errorf("all was read: %v", err)
	}
	if err := query(t, "since=x").NotYet("ticket", "since"); !fault.Is(err, fault.BadRequest) || !strings.Contains(err.Error(), "not supported yet") {
		t.Errorf("%v does not say that since is not supported yet", err)
	}
	if err := query(t, "sinc=x").NotYet("ticket", "since"); err != nil {
		t.Error(err)
	}
	long := query(t, strings.Repeat("é", 5000)+"=1")
	if detail := fault.From(long.Unknown()).Detail; len(detail) > 300 {
		t.Errorf("the answer repeats %d bytes", len(detail))
	}
}

func FuzzQuery(f *testing.F) {
	f.Add("filter=a/+/b&qos=1", "filter", "a/+/b #%&=")
	f.Add("a=%2", "", "")
	f.Add("a&a=&=b&%00=%FF", "a", "\x00\xff")
	f.Fuzz(func(t *testing.T, raw, name, value string) {
		if q, err := wire.ParseQuery(raw); err == nil {
			for _, pair := range strings.Split(raw, "&") {
				n, _, _ := strings.Cut(pair, "=")
				n, err := url.PathUnescape(n)
				if err != nil {
					t.Fatalf("%q parsed though %q does not decode", raw, pair)
				}
				q.All(n)
			}
			if err := q.Unknown(); err != nil {
				t.Fatalf("%q: all names were read, yet %v", raw, err)
			}
		} else if !fault.Is(err, fault.BadRequest) {
			t.Fatalf("%q: %v", raw, err)
		}
		escape := strings.NewReplacer("+", "%2B", "&", "%26", "=", "%3D").Replace
		q, err := wire.ParseQuery(escape(url.PathEscape(name)) + "=" + escape(url.PathEscape(value)))
		if err != nil {
			t.Fatal(err)
		}
		got, given, err := q.One(name)
		if err != nil || !given || got != value {
			t.Fatalf("%q=%q came as %q, %v, %v", name, value, got, given, err)
		}
	})
}
