package view

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/daisi/daisi-ws/bench"
)

// runs are reports whose p99 and rate are these, each of a run of its own.
func runs(p99 ...float64) (list []*bench.Report) {
	for i, v := range p99 {
		r := &bench.Report{Scenario: "fanout", Run: rand.Text(), Machine: bench.Machine{CPU: "x", Cores: 2}, Options: map[string]any{"rate": 500.0, "seed": i}, Latencies: map[string]bench.Latency{"delivery": {Count: 10, P99: v, P50: 0.001 + float64(i%3)*1e-6}}}
		r.Add("delivery_rate", 1/v, "1/s", "")
		r.Add("sessions", v*1e5, "", "")
		list = append(list, r)
	}
	return list
}

func TestCompareSuccess(t *testing.T) {
	slow, fast := runs(0.0050, 0.0051, 0.0052, 0.0053, 0.0054), runs(0.0030, 0.0031, 0.0032, 0.0033, 0.0034)
	f := func(want bench.Exit, verdict string, a, b []*bench.Report, o CompareOptions) *Comparison {
		t.Helper()
		c, err := Compare(a, b, o)
		if err != nil {
			t.Fatal(err)
		}
		if c.Exit != want || !strings.Contains(c.Verdict, verdict) {
			t.Errorf("exit %d, %q; want %d, %q", c.Exit, c.Verdict, want, verdict)
		}
		return c
	}
	c := f(bench.ExitThreshold, "worse in 2 of", fast, slow, CompareOptions{})
	if len(c.Differences) == 0 || len(c.Notes) != 0 {
		t.Errorf("%+v", c)
	}
	for _, d := range c.Differences {
		if d.Figure == "sessions" {
			t.Error("sessions are neither better nor worse, and were judged")
		}
		if d.Figure == "delivery.p99" && (d.Delta != 1 || d.P > 0.008 || d.Verdict != "worse") {
			t.Errorf("%+v", d)
		}
	}
	f(bench.ExitPass, "better in 2", slow, fast, CompareOptions{})
	f(bench.ExitPass, "no difference", slow, runs(0.0050, 0.0051, 0.0052, 0.0053, 0.0054), CompareOptions{})
	// Two of them equal, as is common of percentiles: worse all the same.
	f(bench.ExitThreshold, "worse in 2 of", runs(0.0030, 0.0031, 0.0032, 0.0033, 0.0033), slow, CompareOptions{})
	// Noise as large as the difference.
	f(bench.ExitPass, "no difference", runs(0.003, 0.009, 0.004, 0.008, 0.005), runs(0.0035, 0.0095, 0.0045, 0.0085, 0.0055), CompareOptions{})
	// Certain, and too small to matter.
	f(bench.ExitPass, "no difference", runs(0.005, 0.00501, 0.00502, 0.00503, 0.00504), runs(0.00505, 0.00506, 0.00507, 0.00508, 0.00509), CompareOptions{})
	f(bench.ExitPass, "no difference", slow, fast, CompareOptions{Figures: []string{"delivery.p50"}})
	f(bench.ExitError, "not enough runs: 4 and 5", slow[:4], fast, CompareOptions{})
}

func TestCompareLeavesOut(t *testing.T) {
	a, b := runs(5, 5.1, 5.2, 5.3, 5.4, 5.5), runs(3, 3.1, 3.2, 3.3, 3.4, 99)
	b[5].Exit, b[5].Result = bench.ExitGenerator, "void"
	c, err := Compare(a, b, CompareOptions{})
	if err != nil || c.RunsB != 5 || len(c.Void) != 1 || c.Exit != bench.ExitPass {
		t.Errorf("%+v, %v", c, err)
	}
	b[0].Exit = bench.ExitBroken
	if c, err := Compare(a, b, CompareOptions{}); err != nil || c.Exit != bench.ExitBroken {
		t.Errorf("a broken promise: %+v, %v", c, err)
	}
	b = runs(3, 3.1, 3.2, 3.3, 3.4)
	b[0].Options, b[1].Machine.Go = map[string]any{"rate": 600.0}, "go9"
	if c, err := Compare(a, b, CompareOptions{}); err != nil || len(c.Notes) != 2 {
		t.Errorf("notes %q, %v", c.Notes, err)
	}
}

// A run counts once, however often its report is given.
func TestCompareCountsRunsOnce(t *testing.T) {
	a, b := runs(5, 5.1, 5.2, 5.3, 5.4), runs(3, 3.1)
	b = append(b, b[0], b[1], b[0])
	if c, err := Compare(a, b, CompareOptions{}); err != nil || c.Exit != bench.ExitError || c.RunsB != 2 || len(c.Void) != 3 {
		t.Errorf("one side: %+v, %v", c, err)
	}
	if c, err := Compare(a, append(runs(3, 3.1, 3.2, 3.3), a[0]), CompareOptions{}); err != nil || c.Exit != bench.ExitError || c.RunsA != 5 || c.RunsB != 4 {
		t.Errorf("both sides: %+v, %v", c, err)
	}
}

func TestCompareFailure(t *testing.T) {
	f := func(want string, change func(r *bench.Report), o CompareOptions) {
		t.Helper()
		a, b := runs(1, 2, 3, 4, 5), runs(1, 2, 3, 4, 5)
		change(b[2])
		if _, err := Compare(a, b, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	f("different scenarios", func(r *bench.Report) { r.Scenario = "connect" }, CompareOptions{})
	f("different machines", func(r *bench.Report) { r.Machine.Cores = 64 }, CompareOptions{})
	f("no figure \"nonsense\"", func(*bench.Report) {}, CompareOptions{Figures: []string{"nonsense"}})
}

func TestCompareWrite(t *testing.T) {
	c, err := Compare(runs(5, 5.1, 5.2, 5.3, 5.4), runs(3, 3.1, 3.2, 3.3, 3.4), CompareOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := c.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a (5 runs)", "delivery.p99", "5.20 s", "3.20 s", "-38.5 %", "0.0079", "-1.00", "better", "noise alone"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}
