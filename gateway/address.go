package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// proxies are the peers whose X-Forwarded-For counts.
type proxies []netip.Prefix

// address is the client's address as limits count it: the peer's, or, behind
// trusted proxies, the last address in X-Forwarded-For that is not one of them.
// The list is walked from the right, because its left part is what the client
// says. Of an IPv6 address only the network counts, because one client has a /64
// to choose addresses from.
func (p proxies) address(r *http.Request) string {
	ip := peer(r)
	if !p.trusts(ip) {
		return counted(ip)
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, ok := parseHop(strings.TrimSpace(hops[i]))
		if !ok {
			break
		}
		ip = hop
		if !p.trusts(ip) {
			break
		}
	}
	return counted(ip)
}

// parseHop reads one element of X-Forwarded-For; some proxies write the port too.
func parseHop(s string) (ip netip.Addr, ok bool) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		var at netip.AddrPort
		at, err = netip.ParseAddrPort(s)
		ip = at.Addr()
	}
	return ip.Unmap(), err == nil
}

// counted is how ip stands in the limits' tables.
func counted(ip netip.Addr) string {
	if ip.Is4() || !ip.IsValid() {
		return ip.String()
	}
	return netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
}

func (p proxies) trusts(ip netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// peer is the address at the other end of the connection.
func peer(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// viaProxy are the header fields of which a proxy sets at least one.
var viaProxy = []string{
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via",
}

// forwarded reports whether a proxy passed the request on.
func forwarded(r *http.Request) bool {
	return slices.ContainsFunc(viaProxy, func(name string) bool { return len(r.Header.Values(name)) > 0 })
}

// localHost reports whether a Host header names this machine by an address, or as
// localhost.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}
