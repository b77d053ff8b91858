package server_test

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/daisi/daisi-ws/server/clustertest"
)

var isTurnstile = flag.Bool("turnstile", false, "turn away whoever connects, until standard input ends; the test binary then does nothing else")

// TestTurnstile is the turnstile's process; without its flag it is nothing.
func TestTurnstile(t *testing.T) {
	if !*isTurnstile {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go turnAway(nc)
		}
	}()
	fmt.Println("turnstile", l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = l.Close()
}

// turnAway is the least that can be done for a login.
func turnAway(nc net.Conn) {
	_, _ = nc.Read(make([]byte, 4096)) // a request comes in one piece
	_, _ = io.WriteString(nc, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	_ = nc.Close()
}

// startTurnstile runs one at the nice of a pod, until the test is over.
func startTurnstile(t *testing.T) (addr string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestTurnstile$", "-turnstile")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "turnstile ")
	if err != nil || !ok {
		t.Fatalf("turnstile: %q, %v", line, err)
	}
	return addr
}

// turnstile measures the others beside a storm that never reaches their pod: what
// the connections alone, and those who make them, cost whoever shares their cores.
func turnstile(t *testing.T, c *clustertest.Cluster, k *crowd, rate float64) {
	t.Helper()
	addr := startTurnstile(t)
	var quiet, beside []measured
	for range proofPairs {
		quiet = append(quiet, k.measure(t, 100, proofMeasure))
		var wg sync.WaitGroup
		wg.Go(func() {
			if out := storm(t, c, proofStorm, rate, "-storm", addr); out.Refused["503"] < proofStorm*9/10 {
				t.Errorf("the turnstile turned away %v of %d", out.Refused, proofStorm)
			}
		})
		beside = append(beside, k.measure(t, 100, proofMeasure))
		wg.Wait()
	}
	base, under, limit := slowed(quiet, beside)
	t.Logf("control: a storm of %.0f a second that another process only turns away: p99 %v without, %v with it (medians of %d pairs; limit %v)",
		rate, base, under, len(quiet), limit)
}
