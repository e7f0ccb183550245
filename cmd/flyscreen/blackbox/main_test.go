package blackbox_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen. It is generous
// because the machine may be busy; nothing waits for it to pass.
const patience = 45 * time.Second

// suite is what all tests share: the built program, the signer of tokens and
// the API description that answers are held against.
var suite struct {
	binary   string
	chromium string
	signer   *signer
	document *document
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "flyscreen-blackbox-")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir)
	if err := findTools(); err != nil {
		return complain(err)
	}
	suite.binary = filepath.Join(dir, "flyscreen")
	build := exec.Command("go", "build", "-race", "-o", suite.binary, "flyscreen/cmd/flyscreen")
	if out, err := build.CombinedOutput(); err != nil {
		return complain(fmt.Errorf("go build: %w\n%s", err, out))
	}
	if suite.document, err = loadDocument(); err != nil {
		return complain(err)
	}
	if suite.signer, err = startSigner(); err != nil {
		return complain(err)
	}
	defer suite.signer.stop()

	code := m.Run()
	// Only a full run can have seen everything.
	if flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.list").Value.String() == "" {
		if missing := suite.document.unseen(); len(missing) > 0 {
			fmt.Println("FAIL: openapi.yaml describes answers that no test saw:\n    " + strings.Join(missing, "\n    "))
			code = max(code, 1)
		}
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "blackbox:", err)
	fmt.Println("FAIL")
	return 1
}

// findTools looks for the programs and clients that the tests drive.
func findTools() error {
	// Debian puts mosquitto into sbin, which is not on everybody's PATH.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin"); err != nil {
		return err
	}
	for _, tool := range []string{"mosquitto", "mosquitto_passwd", "mosquitto_pub", "mosquitto_sub", "node", "curl", "chromium"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			return fmt.Errorf("%s is missing: run make install", tool)
		}
		if tool == "chromium" {
			suite.chromium = path
		}
	}
	for _, client := range []string{"mqtt", "ws", "eventsource", "jose", "playwright-core"} {
		if _, err := os.Stat(filepath.Join("clients", "node_modules", client, "package.json")); err != nil {
			return fmt.Errorf("the npm client %s is missing: run make install", client)
		}
	}
	return nil
}
