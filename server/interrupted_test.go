package server_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/server/clustertest"
)

var receives = regexp.MustCompile(`received [1-9]`)

// Ctrl-C in the middle of a run, by the program as people start it, with tokens
// that the doors mint: exit 1, with a report of what there was, and nothing that
// was under way is taken for lost.
func TestProveInterrupted(t *testing.T) {
	waits(t)
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	dir := t.TempDir()
	file, page := filepath.Join(dir, "report.json"), filepath.Join(dir, "report.html")
	o := benchOptions(c)
	cmd := exec.Command(clustertest.Bench(t), "fanout", "-addr", strings.Join(o.Addrs, ","), "-nats", o.NATS, "-sessions", "60", "-agents", "6", "-rate", "100",
		"-duration", "10m", "-json", file, "-html", page)
	cmd.Env = append(os.Environ(), "DAISI_BENCH_API_KEY="+o.APIKey, "DAISI_BENCH_MINT_KEY="+clustertest.MintKey)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer hung.Stop()
	asked := false
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if !asked && receives.MatchString(lines.Text()) {
			asked = true
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Error(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != int(bench.ExitError) || !asked {
		t.Fatalf("asked to end: %v; %v, want exit %d", asked, err, bench.ExitError)
	}
	r, err := bench.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v := r.Oracle
	if !r.Interrupted || v.Received == 0 || v.Met != v.Expected || v.Broken() || v.Sessions != 60 {
		t.Errorf("interrupted: %v; %d sessions, %d of %d copies, %v", r.Interrupted, v.Sessions, v.Met, v.Expected, v.Breaches)
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "did not come to its end") {
		t.Errorf("the page of it: %v, %d bytes", err, len(text))
	}
}
