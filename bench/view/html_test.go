package view

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
)

// sample is a report with everything in it that a page can show.
func sample(t *testing.T) *bench.Report {
	t.Helper()
	started := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	r := &bench.Report{
		Schema: bench.Schema, Scenario: "fanout", Exit: bench.ExitBroken, Started: started, Seconds: 40, Run: "beef", Seed: 7, Commit: "73a77b9",
		Machine: bench.Machine{Host: "reference", CPU: "AMD EPYC", Cores: 2, Memory: 24 << 30, Kernel: "6.18", Go: "go1.26"},
		Options: map[string]any{"rate": 500, "note": "</script><b>"}, Errors: []string{"process 42 of the server ended during \"deliver\" <b>"},
		Latencies: map[string]bench.Latency{}, Usage: map[string]bench.Usage{"deliver": {Seconds: 10, Server: 4, Own: 2, Machine: 0.4, Before: []bench.Process{{}}, After: []bench.Process{{RSS: 3 << 20}}}},
		Oracle:     &bench.Verdict{Sessions: 1500, Published: 5000, Expected: 100000, Met: 99999, Breaches: map[string]int64{"lost": 1, "repeated": 0, "two_owners": 0}, Findings: []bench.Finding{{Breach: "lost", Company: "acme", Agent: "agent7", User: "u1", Pod: "127.0.0.1:1 pod-2", Topic: "chats", N: 41, Seq: 4711, Detail: "never came"}}},
		Thresholds: []bench.Threshold{{Figure: "delivery.p99", Text: "delivery.p99<1ms", Value: 0.0042}, {Figure: "lost", Text: "lost<2", Value: 1, OK: true}},
		Logins:     &bench.LoginStats{Asked: 1500, OK: 1499, Refused: map[string]int64{"503 Overloaded": 3}}, Closes: map[string]int64{"4408": 2},
		Server: []bench.Change{{Name: "dws_events_forwarded_total", Before: 1, After: 9}},
	}
	r.Result = r.Exit.String()
	r.Add("sessions", 1500, "", "open at the end")
	r.Add("rss_per_session", 1331, "B", "RSS gained by the ramp, a session")
	var corrected, raw bench.Hist
	for i := range 20000 {
		d := time.Duration(400+i%900) * time.Microsecond
		raw.Record(0, d)
		if i%200 == 0 {
			d += time.Duration(i) * 10 * time.Microsecond // a stall, which raw does not show
		}
		corrected.Record(0, d)
	}
	for name, h := range map[string]*bench.Hist{"delivery": &corrected, "delivery_raw": &raw} {
		l, err := h.Summary()
		if err != nil {
			t.Fatal(err)
		}
		r.Latencies[name] = l
	}
	for i := range 40 {
		s := bench.Sample{At: float64(i + 1), Sessions: min(1500, 150*(i+1)), Asked: 1500, Logins: int64(min(1500, 150*(i+1))), ServerCPU: 0.4 * float64(i), ServerRSS: 60<<20 + int64(i)<<18, OwnCPU: 0.2 * float64(i), Slab: 100<<20 + int64(i)<<20, TCP: 2 << 20}
		if i >= 10 {
			s.Published, s.Received = int64(500*(i-10)), int64(10000*(i-10))
			s.Delivery = &bench.Beat{Count: 10000, P50: 0.0007, P99: 0.002 + 0.03*float64(i%17)/17, Max: 0.04}
			s.DeliveryRaw = &bench.Beat{Count: 10000, P50: 0.0007, P99: 0.002, Max: 0.004}
		} else {
			s.Login = &bench.Beat{Count: 150, P50: 0.002, P99: 0.01, Max: 0.02}
		}
		if i > 30 {
			s.Breaches, s.Closed = 1, 2
		}
		if i%2 == 0 {
			s.Server = &bench.ServerSample{Sessions: 1500, Goroutines: 105, GCs: float64(i / 3), Heap: 20 << 20, RedisCalls: float64(300 * i), NATSEvents: float64(500 * i), Forwarded: float64(300 * i), Queued: float64(i % 5)}
		}
		r.Samples = append(r.Samples, s)
	}
	return r
}

func htmlOf(t *testing.T, r *bench.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteHTML(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Nothing is loaded from anywhere, and nothing of the report becomes markup.
func TestHTMLSelfContained(t *testing.T) {
	page := htmlOf(t, sample(t))
	for _, bad := range []string{"http://", "https://", "src=", "href=\"/", "@import", "url(", "ended during \"deliver\" <b>", "</script><b>", "ZgotmplZ", "NaN"} {
		if strings.Contains(page, bad) {
			t.Errorf("%q in the page", bad)
		}
	}
	for _, want := range []string{"default-src 'none'", "prefers-color-scheme: dark", "agent7", "4711", "delivery.p99&lt;1ms"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	// Every picture has words for those who do not see it.
	if all, told := strings.Count(page, "<svg viewBox=\"0 0 720"), strings.Count(page, "role=\"img\" aria-label=\""); all != told || all < 12 {
		t.Errorf("%d charts, %d of them described", all, told)
	}
}

// Every promise has its words.
func TestHTMLMeanings(t *testing.T) {
	for name := range bench.NewOracle(bench.NewBook(1)).Verdict().Breaches {
		if meanings[name] == "" {
			t.Errorf("nothing says what %s is", name)
		}
	}
}

// A set of runs is a table of them, with what each missed, and how often it was
// run.
func TestHTMLSet(t *testing.T) {
	r, slow := sample(t), sample(t)
	slow.Scenario, slow.Exit = "slow", bench.ExitThreshold
	slow.Result, slow.Oracle.Breaches = slow.Exit.String(), map[string]int64{"lost": 0}
	r.Scenario, r.Parts = "verify", []*bench.Report{sample(t), slow}
	r.Latencies = map[string]bench.Latency{"slow.stuck": {Count: 9, P99: 0.077}}
	r.Add("slow.repeated", 2, "", "")
	page := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(htmlOf(t, r), " ")
	page = regexp.MustCompile(`\s+`).ReplaceAllString(page, " ")
	for _, want := range []string{
		"fanout PROMISE BROKEN 1500 99999 of 100000 1 delivery.p99&lt;1ms 1 40.00 s",
		"slow threshold missed 1500 99999 of 100000 0 delivery.p99&lt;1ms 3 40.00 s", "slow.stuck, measured 9", "77.00 ms", "1 of 2 missed",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
}

// A report with next to nothing in it is a page, too.
func TestHTMLEmpty(t *testing.T) {
	r := &bench.Report{Scenario: "floor", Options: nil}
	if page := htmlOf(t, r); !strings.Contains(page, "<h1>floor</h1>") || strings.Contains(page, "<svg") {
		t.Error(page)
	}
}

func TestHTMLFailure(t *testing.T) {
	r := &bench.Report{Latencies: map[string]bench.Latency{"x": {Count: 1, HDR: "nonsense"}}}
	if err := WriteHTML(&bytes.Buffer{}, r); err == nil || !strings.Contains(err.Error(), "latency x") {
		t.Errorf("error %v", err)
	}
	if err := WriteHTMLFile(filepath.Join(t.TempDir(), "no", "such"), sample(t)); err == nil {
		t.Error("written where there is no folder")
	}
}

// A browser shows what the report says; its script runs without an error.
func TestHTMLInChromium(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.html")
	if err := WriteHTMLFile(file, sample(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0",
		"--user-data-dir="+t.TempDir(), "--virtual-time-budget=2000", "--dump-dom", "file://"+file)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium (make test installs it): %v\n%s", err, &log)
	}
	text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(string(out), " ")
	text = regexp.MustCompile(`\s+`).ReplaceAllString(text, " ")
	for _, want := range []string{
		"PROMISE BROKEN exit 3", "2 of 3 promises kept", "acme agent7 u1", "4711", "✗ MISSED", "raw: from the sending",
		"Latency of deliveries", "Goroutines", "Redis, NATS and other pods a second", "1.30 KiB", "73a77b9", "503 Overloaded: 3", "reference: 2 cores",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in what the browser shows", want)
		}
	}
	if strings.Contains(log.String(), "CONSOLE") {
		t.Errorf("the page complains:\n%s", &log)
	}
}
