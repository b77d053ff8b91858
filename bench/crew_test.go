package bench

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// crewed starts n worker processes for g and asks for them.
func crewed(t *testing.T, g *gate, n int) (Options, *Spawned) {
	t.Helper()
	s, err := Spawn(n, []string{os.Args[0], "worker", g.nats}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	o := g.options()
	o.Crew = CrewOptions{Workers: n, Wait: 20 * time.Second}
	return o, s
}

// Three processes bear one run; what they found is one report.
func TestCrewFanout(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongNothing)
	o := small(g)
	o.Options, _ = crewed(t, g, 3)
	r, err := Fanout(t.Context(), o)
	if err != nil || !passes(r) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	v := r.Oracle
	if v.Sessions != 60 || v.Published < 240 || v.Published > 252 || v.Met != v.Expected || v.Received != v.Expected || v.Expected < 1000 {
		t.Fatalf("want all met:\n%s", tableOf(r))
	}
	if l := r.Latencies["delivery"]; l.Count == 0 || l.Count > v.Received || l.P50 <= 0 || r.Latencies["login"].Count != 60 {
		t.Errorf("latencies %+v", r.Latencies)
	}
	if len(r.Workers) != 3 || r.Generator.Feed == nil || r.Generator.Feed.Sent != v.Published {
		t.Errorf("workers %+v, feed %+v", r.Workers, r.Generator.Feed)
	}
	for i, w := range r.Workers {
		// All on one machine, by one clock.
		if w.Lost != "" || w.PID == 0 || w.Offset.Abs() > w.Way || w.Way > time.Second {
			t.Errorf("worker %d: %+v", i, w)
		}
	}
	n, _ := r.Figure("deliveries")
	// A sample holds what each worker had said by then: one may be late.
	if s := r.Samples[len(r.Samples)-1]; n == 0 || s.Sessions == 0 || s.Sessions > 60 {
		t.Errorf("%v deliveries, last sample %+v", n, s)
	}
}

// What one worker saw breaks the whole run.
func TestCrewFindsFaults(t *testing.T) {
	t.Parallel()
	f := func(fault wrong, want string) {
		t.Helper()
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			g := newGate(t, 2, fault)
			o := small(g)
			o.Options, _ = crewed(t, g, 2)
			r, err := Fanout(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if b := broken(r); len(b) != 1 || b[want] != 1 || r.Exit != ExitBroken || len(r.Oracle.Findings) != 1 {
				t.Fatalf("want %s, exit 3; got %v\n%s", want, b, tableOf(r))
			}
		})
	}
	f(wrongLose, "lost")
	f(wrongTenant, "wrong_tenant")
}

// The run goes on without a worker that was killed, and says so.
func TestCrewLosesAWorker(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	var s *Spawned
	o.Options, s = crewed(t, g, 2)
	o.Crew.Lost, o.Duration = 4*time.Second, 6*time.Second
	killed := false
	o.Progress = func(now Sample) {
		if now.Received > 0 && !killed {
			killed = true
			if err := syscall.Kill(s.PIDs()[0], syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	}
	r, err := Fanout(t.Context(), o)
	if err != nil || r.Exit != ExitError || len(r.Errors) != 1 || !strings.Contains(r.Errors[0], `was lost in "deliver begins"`) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	v, pid := r.Oracle, s.PIDs()[0]
	if v.Sessions != 30 || v.Met != v.Expected || v.Met == 0 || len(broken(r)) > 0 {
		t.Fatalf("want the other worker's part whole:\n%s", tableOf(r))
	}
	for _, w := range r.Workers {
		if (w.PID == pid) != (w.Lost != "") {
			t.Errorf("worker %+v, killed was %d", w, pid)
		}
	}
}

// Too few workers are an error before anything has begun.
func TestCrewTooSmall(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	o.Crew = CrewOptions{Workers: 1, Wait: 300 * time.Millisecond}
	if _, err := Fanout(t.Context(), o); err == nil || !strings.Contains(err.Error(), "0 of 1") {
		t.Fatalf("error %v", err)
	}
}

// An interrupted run of a crew ends in all of its processes, with a report.
func TestCrewInterrupted(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	o.Options, _ = crewed(t, g, 2)
	o.Duration = time.Minute
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	o.Progress = func(s Sample) {
		if s.Received > 100 {
			stop()
		}
	}
	r, err := Fanout(ctx, o)
	if err != nil || !r.Interrupted || r.Exit != ExitError || r.Oracle.Received < 100 || len(broken(r)) > 0 || r.Oracle.Met != r.Oracle.Expected {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	if n, _ := r.Figure("deliveries"); n < 100 {
		t.Errorf("figures of the phase that was cut short are missing:\n%s", tableOf(r))
	}
}

// The same values in one histogram and in two that were merged.
func TestLatencyPlus(t *testing.T) {
	var all, one, two Hist
	for i := range 20000 {
		d := time.Duration(i*i) * time.Microsecond / 10
		all.Record(uint32(i), d)
		if i%3 == 0 {
			one.Record(uint32(i), d)
		} else {
			two.Record(uint32(i), d)
		}
	}
	want, err := all.Summary()
	if err != nil {
		t.Fatal(err)
	}
	a, _ := one.Summary()
	b, _ := two.Summary()
	got, err := a.plus(b)
	if err != nil {
		t.Fatal(err)
	}
	got.HDR, want.HDR = "", ""
	if got != want {
		t.Errorf("merged %+v, want %+v", got, want)
	}
	if got, err := (Latency{}).plus(a); err != nil || got != a {
		t.Errorf("nothing plus a: %+v, error %v", got, err)
	}
	if _, err := a.plus(Latency{Count: 1, HDR: "junk"}); err == nil {
		t.Error("junk was merged")
	}
}
