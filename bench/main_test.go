package bench

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

// TestMain doubles as the reader's process of the floor scenario, and as a
// worker of a crew.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "floor-reader" {
		port, _ := strconv.Atoi(os.Args[2])
		n, _ := strconv.Atoi(os.Args[3])
		if err := FloorReader(port, n); err != nil {
			fmt.Fprintln(os.Stderr, "floor reader:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	SetProcessDefaults()
	if len(os.Args) == 3 && os.Args[1] == "worker" {
		err := Work(context.Background(), WorkerOptions{Options: Options{APIKey: "key", TokenKey: gateKey}, URL: os.Args[2], Once: true})
		if err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The tests that run side by side wait for servers and schedules more than
	// they work.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}
