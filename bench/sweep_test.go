package bench

import (
	"testing"
	"time"
)

// A server whose p99 leaves the limit above a rate is found out within the
// halves.
func TestSweepFindsTheKnee(t *testing.T) {
	f := func(knee float64, most float64, low, high float64) {
		t.Helper()
		s := sweep{SweepOptions{Limit: 5 * time.Millisecond, Most: most, Halves: 3}}
		now, probes := found{Next: 500}, 0
		for now.Next > 0 {
			var one, two Hist
			d := time.Millisecond
			if now.Next > knee {
				d = time.Second
			}
			one.Record(0, d)
			two.Record(0, d)
			a, _ := one.Summary()
			b, _ := two.Summary()
			var err error
			if now, err = s.judge(now, []probe{{}, {Latency: a, Lag: 1}, {Latency: b, Lag: 2}}); err != nil {
				t.Fatal(err)
			}
			if probes++; probes > 30 || now.Lag != 2 {
				t.Fatalf("probe %d: %+v", probes, now)
			}
		}
		if now.Low < low || now.Low > high {
			t.Errorf("knee %v, want %v to %v", now.Low, low, high)
		}
	}
	f(7000, 1e6, 6400, 7000)    // 4,000 kept, 8,000 not: to an eighth of that
	f(1e9, 20000, 16000, 16000) // never missed
	f(10, 1e6, 0, 63)           // never kept
}

func TestSweep(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongNothing)
	f := small(g)
	f.Rate, f.Duration = 100, 200*time.Millisecond
	r, err := Sweep(t.Context(), SweepOptions{FanoutOptions: f, Limit: 10 * time.Second, Most: 400})
	if err != nil || r.Exit != ExitPass {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	if n, _ := r.Figure("knee"); n != 400 || r.Latencies["rate_100"].Count == 0 || r.Latencies["rate_400_raw"].Count == 0 {
		t.Errorf("knee %v, latencies %+v", n, r.Latencies)
	}
}
