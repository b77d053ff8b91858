package local

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/daisi/daisi-ws/bench"
)

// programs are built once for all tests of this package.
var programs Programs

func TestMain(m *testing.M) {
	bench.SetProcessDefaults()
	dir, err := os.MkdirTemp("", "local-test-")
	if err == nil {
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build what the tests start:", err)
		os.Exit(1)
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // they wait more than they work
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func build(dir string) error {
	programs = Programs{
		Gateway: filepath.Join(dir, "daisi-ws"), NATS: filepath.Join(dir, "nats-server"),
		Peers: filepath.Join(dir, "peers"), Redis: "redis-server",
	}
	for _, b := range []struct{ at, out, pkg string }{
		{"../..", programs.Gateway, "./cmd/daisi-ws"},
		{"../..", programs.NATS, "github.com/nats-io/nats-server/v2"},
		{"../../.tools/peers", programs.Peers, "."},
	} {
		cmd := exec.Command("go", "build", "-o", b.out, b.pkg)
		cmd.Dir, cmd.Env = b.at, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", b.pkg, err, out)
		}
	}
	return nil
}
