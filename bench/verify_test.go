package bench

import (
	"context"
	"strings"
	"testing"
	"time"
)

func verifying(g *gate) VerifyOptions {
	f := small(g)
	f.Rate, f.Duration = 300, 300*time.Millisecond
	return VerifyOptions{FanoutOptions: f}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	r, err := Verify(t.Context(), verifying(newGate(t, 2, wrongNothing)))
	if err != nil || len(broken(r)) > 0 || len(r.Errors) > 0 || len(r.Parts) != 6 {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	for i, name := range []string{"fanout", "takeover", "burst", "churn", "storm", "slow"} {
		if r.Parts[i].Scenario != name || r.Parts[i].Oracle.Sessions == 0 {
			t.Errorf("part %d is %q", i, r.Parts[i].Scenario)
		}
	}
	if _, ok := r.Figure("storm.storm_logins"); !ok || r.Latencies["fanout.delivery"].Count == 0 {
		t.Errorf("figures of parts are missing:\n%s", tableOf(r))
	}
}

// A promise broken in any part breaks the whole, and the rest still runs.
func TestVerifyFindsFaults(t *testing.T) {
	t.Parallel()
	r, err := Verify(t.Context(), verifying(newGate(t, 2, wrongRepeat)))
	if err != nil || r.Exit != ExitBroken || r.Parts[0].Exit != ExitBroken || broken(r)["repeated"] != 1 || len(r.Parts) != 6 || len(r.Oracle.Findings) != 1 {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
}

func TestVerifyFailure(t *testing.T) {
	t.Parallel()
	o := VerifyOptions{}
	o.Addrs = []string{"nowhere"}
	if _, err := Verify(t.Context(), o); err == nil {
		t.Error("verified nowhere")
	}
	o.Addrs = []string{"127.0.0.1:1"}
	for _, thresholds := range []string{"lost", "fanout.delivery.p95<1s", "storm.closed=0"} {
		o.Thresholds = thresholds
		if _, err := Verify(t.Context(), o); err == nil || !strings.Contains(err.Error(), "read threshold") {
			t.Errorf("%s: error %v", thresholds, err)
		}
	}
	o.Thresholds = ""
	o.Addrs, o.TokenKey, o.NATS = []string{"127.0.0.1:1"}, gateKey, "nats://127.0.0.1:1"
	if r, err := Verify(t.Context(), o); err != nil || r.Exit != ExitError || len(r.Errors) < 6 {
		t.Errorf("without a cluster: %+v, error %v", r, err)
	}
	// Of no part is there a report.
	o.Crew = CrewOptions{Workers: 1, URL: "nats://127.0.0.1:1"}
	if r, err := Verify(t.Context(), o); err == nil || r.Exit != ExitError || len(r.Errors) < 6 || len(r.Parts) != 0 {
		t.Errorf("without a crew: %+v, error %v", r, err)
	}
}

// A part that was only slow is run again, at most three times in all, and the
// report says so; what is counted has one try.
func TestVerifyRepeats(t *testing.T) {
	t.Parallel()
	f := func(want Exit, tries int, run func(try int) *Report) {
		t.Helper()
		n := 0
		r := &Report{Latencies: map[string]Latency{}}
		order := ""
		list := []verifyPart{
			{name: "storm", wants: "x<=0", run: func(context.Context, FanoutOptions) (*Report, error) {
				n++
				order += "s"
				return run(n), nil
			}},
			{name: "other", run: func(context.Context, FanoutOptions) (*Report, error) {
				order += "o"
				return &Report{}, nil
			}},
		}
		err := r.runParts(t.Context(), list, FanoutOptions{})
		if err != nil || n != tries || r.Exit != want || len(r.Parts) != 2 || order != "so"+strings.Repeat("s", tries-1) {
			t.Errorf("%d tries, order %s, exit %d, error %v; want %d tries, exit %d", n, order, r.Exit, err, tries, want)
		}
		if said, ok := r.Figure("storm.repeated"); tries > 1 != ok || ok && int(said) != tries-1 {
			t.Errorf("%v repeats are in the report of %d tries", said, tries)
		}
	}
	missed := func(figure, unit string) *Report {
		r := &Report{Exit: ExitThreshold, Thresholds: []Threshold{{Figure: figure, Text: figure + "<=0"}}}
		r.Add(figure, 1, unit, "")
		return r
	}
	pass := func() *Report { return &Report{} }
	f(ExitPass, 1, func(int) *Report { return pass() })
	f(ExitThreshold, 3, func(int) *Report { return missed("stuck_excess", "s") })
	f(ExitThreshold, 1, func(int) *Report { return missed("closed", "") })
	f(ExitGenerator, 3, func(int) *Report {
		return &Report{Exit: ExitGenerator, Generator: Generator{Bottleneck: "planted"}}
	})
	f(ExitBroken, 1, func(int) *Report { return &Report{Exit: ExitBroken} })
	f(ExitError, 1, func(int) *Report { return &Report{Exit: ExitError} })
	f(ExitPass, 2, func(try int) *Report {
		if try == 1 {
			return missed("takeover_excess", "s")
		}
		return pass()
	})
}

// A user's thresholds go to the part that they name, or to all.
func TestVerifyThresholds(t *testing.T) {
	o := VerifyOptions{FanoutOptions: FanoutOptions{Options: Options{Thresholds: "lost==0, fanout.delivery.p99<5ms,storm.p99<1s,storm.closed==0"}}}
	parts, err := o.parts()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		want := map[string]string{
			"fanout": "delivery.p99<1s,lost==0,delivery.p99<5ms", "storm": "lost==0,storm.p99<1s,closed==0", "churn": "lost==0",
		}[p.name]
		if want != "" && p.wants != want {
			t.Errorf("%s wants %q, not %q", p.name, p.wants, want)
		}
	}
}

// In a report of parts a figure's name has its part before it, its unit stays.
func TestVerifyFigures(t *testing.T) {
	r := &Report{Latencies: map[string]Latency{"fanout.delivery": {Count: 1, P99: 0.004, P999: 0.005}}}
	for name, want := range map[string]float64{"fanout.delivery.p99": 0.004, "fanout.delivery.p99.9": 0.005} {
		if v, ok := r.Figure(name); !ok || v != want || r.Unit(name) != "s" {
			t.Errorf("%s is %v %q", name, v, r.Unit(name))
		}
	}
}
