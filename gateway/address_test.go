package gateway

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"flyscreen/gateway/fault"

	"github.com/labstack/echo/v4"
)

// The client is the last address that no trusted proxy vouches against: what
// stands left of it is what the client says.
func TestAddress(t *testing.T) {
	trusted := proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("127.0.0.1/32")}
	for _, c := range []struct {
		what, peer string
		forwarded  []string
		want       string
	}{
		{"no proxy", "192.0.2.1:5", nil, "192.0.2.1"},
		{"no proxy, a claim", "192.0.2.1:5", []string{"198.51.100.1"}, "192.0.2.1"},
		{"proxy", "10.0.0.1:5", []string{"198.51.100.1"}, "198.51.100.1"},
		{"proxy, nothing said", "10.0.0.1:5", nil, "10.0.0.1"},
		{"proxy, a claim on the left", "10.0.0.1:5", []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1:5", []string{"203.0.113.9, 198.51.100.1,10.0.0.2"}, "198.51.100.1"},
		{"two lines", "10.0.0.1:5", []string{"203.0.113.9", "198.51.100.1"}, "198.51.100.1"},
		{"proxies all the way", "10.0.0.1:5", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"garbage on the right", "10.0.0.1:5", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"garbage left of a proxy", "10.0.0.1:5", []string{"unknown, 10.0.0.2"}, "10.0.0.2"},
		{"an empty element", "10.0.0.1:5", []string{"198.51.100.1,"}, "10.0.0.1"},
		{"with a port", "10.0.0.1:5", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"IPv6 peer", "[2001:db8:1:2:3:4:5:6]:5", nil, "2001:db8:1:2::/64"},
		{"IPv6 client", "[fd00::1]:5", []string{"2001:db8:1:2::9"}, "2001:db8:1:2::/64"},
		{"IPv6 client with a port", "[fd00::1]:5", []string{"[2001:db8:1:2::9]:4711"}, "2001:db8:1:2::/64"},
		{"IPv6 client in the same network", "[fd00::1]:5", []string{"2001:db8:1:2:ffff::1"}, "2001:db8:1:2::/64"},
		{"IPv6 client in the next network", "[fd00::1]:5", []string{"2001:db8:1:3::1"}, "2001:db8:1:3::/64"},
		{"a zone", "[fe80::1%eth0]:5", nil, "fe80::/64"},
		{"IPv4 in IPv6, peer", "[::ffff:10.0.0.1]:5", []string{"198.51.100.1"}, "198.51.100.1"},
		{"IPv4 in IPv6, client", "10.0.0.1:5", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"IPv4 in IPv6, a claim", "10.0.0.1:5", []string{"203.0.113.9, ::ffff:10.0.0.2"}, "203.0.113.9"},
		{"single address trusted", "127.0.0.1:5", []string{"198.51.100.1"}, "198.51.100.1"},
		{"its neighbour not", "127.0.0.2:5", []string{"198.51.100.1"}, "127.0.0.2"},
		{"no peer", "pipe", []string{"198.51.100.1"}, "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{}}
		for _, line := range c.forwarded {
			r.Header.Add("X-Forwarded-For", line)
		}
		if got := trusted.address(r); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
		if len(c.forwarded) > 0 {
			continue
		}
		if got, want := (proxies(nil)).address(r), trusted.address(r); got != want {
			t.Errorf("%s without proxies: %s, want %s", c.what, got, want)
		}
	}
}

// Local is who sits at this machine and says nothing of a proxy.
func TestLoopbackOnly(t *testing.T) {
	serve := loopbackOnly(func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	for _, c := range []struct {
		peer, header string
		local        bool
	}{
		{"127.0.0.1:5", "", true},
		{"127.9.9.9:5", "", true},
		{"[::1]:5", "", true},
		{"[::ffff:127.0.0.1]:5", "", true},
		{"192.0.2.1:5", "", false},
		{"10.0.0.1:5", "", false},
		{"[2001:db8::1]:5", "", false},
		{"[fe80::1%lo]:5", "", false},
		{"pipe", "", false},
		{"127.0.0.1:5", "X-Forwarded-For", false},
		{"127.0.0.1:5", "Forwarded", false},
		{"127.0.0.1:5", "Via", false},
		{"192.0.2.1:5", "X-Real-Ip", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.RemoteAddr, r.Host = c.peer, "localhost:8080"
		if c.header != "" {
			r.Header.Set(c.header, "127.0.0.1")
		}
		err := serve(echo.New().NewContext(r, httptest.NewRecorder()))
		if c.local && err != nil || !c.local && !fault.Is(err, fault.NotFound) {
			t.Errorf("%s with %q: %v", c.peer, c.header, err)
		}
	}
}

func TestLocalHost(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:8080": true, "127.0.0.1": true, "127.0.0.1:8080": true, "[::1]:8080": true, "[::1]": true,
		"": false, "evil.example": false, "evil.example:8080": false, "localhost.evil.example": false, "192.0.2.1:80": false,
	} {
		if localHost(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}
