package bench

import (
	"context"
	"strings"
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
			if now, err = s.judge(now, []probe{{}, {Latency: a}, {Latency: b, Lag: 2}}); err != nil {
				t.Fatal(err)
			}
			if probes++; probes > 30 || !strings.Contains(now.Slow, "lag p99 2.00 s") {
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

// What the generator itself may have missed the limit by, and by what not.
func TestProbeSlow(t *testing.T) {
	f := func(p probe, want string) {
		t.Helper()
		if got := p.slow(5 * time.Millisecond); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%+v: %q, want %q", p, got, want)
		}
	}
	f(probe{Lag: 0.004, Feed: 0.004, CPU: 0.8}, "")
	f(probe{Lag: 0.006}, "scheduling lag p99 6.00 ms")
	f(probe{Feed: 0.2}, "feed p99 200.00 ms behind")
	f(probe{CPU: 0.95}, "CPU 95 %")
}

// A knee that the generator's feed made is void; one that lies below is not.
func TestSweepVoid(t *testing.T) {
	t.Parallel()
	f := func(feed time.Duration, limit time.Duration, want Exit) {
		t.Helper()
		o := small(newGate(t, 1, wrongNothing))
		o.Rate, o.Duration = 100, 200*time.Millisecond
		s := sweep{SweepOptions{FanoutOptions: o.withDefaults(), Limit: limit, Most: 100, Halves: 1}}
		r, err := Run(t.Context(), s.Options, lateFeed{s, feed})
		if err != nil || r.Exit != want || (want == ExitGenerator) != strings.Contains(r.Generator.Bottleneck, "own feed") {
			t.Fatalf("error %v, want exit %d:\n%s", err, want, tableOf(r))
		}
	}
	f(0, 10*time.Second, ExitPass)
	f(time.Minute, 10*time.Second, ExitPass) // late, and the limit kept
	f(time.Minute, time.Microsecond, ExitGenerator)
}

// lateFeed is a sweep whose feed notes one event that it sent so late.
type lateFeed struct {
	sweep
	by time.Duration
}

func (s lateFeed) Run(ctx context.Context, st *Stage) error {
	o := s.FanoutOptions
	o.During = func(context.Context, *Stage) error {
		st.Feed.lag.Record(0, s.by)
		return nil
	}
	s.FanoutOptions = o
	return s.sweep.Run(ctx, st)
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
