package gateway_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"flyscreen/gateway/gatewaytest"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }

// dial opens a raw connection to the gateway.
func dial(t *testing.T, g *gatewaytest.Gateway) net.Conn {
	t.Helper()
	_, host, _ := strings.Cut(g.URL(), "://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(gatewaytest.Patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}
