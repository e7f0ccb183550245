package gatewaytest

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Main is the TestMain of a package whose tests run gateways: it fails the run when
// goroutines are left behind. Those of the signal package stay for good and are not
// counted.
func Main(m *testing.M) {
	before := len(goroutines())
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(Patience); code == 0 && len(goroutines()) > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "goroutines were left behind:\n\n%s\n", strings.Join(goroutines(), "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

func goroutines() (stacks []string) {
	buf := make([]byte, 8<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if !strings.Contains(stack, "os/signal.") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}
