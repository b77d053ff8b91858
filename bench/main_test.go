package bench

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

// TestMain doubles as the reader's process of the floor scenario.
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
	goleak.VerifyTestMain(m)
}
