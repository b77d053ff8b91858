package bench

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestExitWorse(t *testing.T) {
	// The gravest first.
	order := []Exit{ExitBroken, ExitError, ExitGenerator, ExitThreshold, ExitPass}
	for i, a := range order {
		for j, b := range order {
			if got, want := a.Worse(b), order[min(i, j)]; got != want {
				t.Errorf("%d and %d come to %d, want %d", a, b, got, want)
			}
		}
	}
	if got := Exit(77).Worse(99); got != ExitError {
		t.Errorf("unknown codes come to %d", got)
	}
}

// Every combination of findings comes to the gravest of them.
func TestVerdict(t *testing.T) {
	for n := range 32 {
		r := &Report{Oracle: &Verdict{Breaches: map[string]int64{"lost": int64(n & 1)}}, Thresholds: []Threshold{{OK: true}, {OK: n&2 == 0}}}
		want := ExitPass
		if n&2 != 0 {
			want = ExitThreshold
		}
		if n&4 != 0 {
			r.Generator.Bottleneck, want = "planted", ExitGenerator
		}
		if n&8 != 0 {
			r.Errors, want = []string{"planted"}, ExitError
		}
		if n&16 != 0 {
			r.Interrupted, want = true, ExitError
		}
		if n&1 != 0 {
			want = ExitBroken
		}
		if got := r.verdict(); got != want {
			t.Errorf("%05b: exit %d, want %d", n, got, want)
		}
	}
	if got := new(Report).verdict(); got != ExitPass {
		t.Errorf("an empty report: %d", got)
	}
}

// told is a fan-out whose events nobody has asked for.
type told struct{ fanout }

func (s told) Run(ctx context.Context, st *Stage) error {
	if err := st.OpenFeed(ctx, 0); err != nil {
		return err
	}
	if err := st.Login(ctx, s.population(st), nil); err != nil {
		return err
	}
	if err := st.Feed.Publish(ctx, st.Book.Pages()[0], topicNobody, time.Now()); err != nil {
		return err
	}
	return st.Feed.Flush(ctx)
}

// A run that measured nothing does not pass.
func TestNothingMeasured(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g).withDefaults()
	r, err := Run(t.Context(), o.Options, told{fanout{o}})
	if err != nil || r.Exit != ExitError || len(r.Errors) != 1 || !strings.Contains(r.Errors[0], "nothing was measured") {
		t.Errorf("error %v:\n%s", err, tableOf(r))
	}
	o.Rate, o.Duration = 0.5, time.Second
	if _, err := Fanout(t.Context(), o); err == nil || !strings.Contains(err.Error(), "not one event") {
		t.Errorf("fanout: error %v", err)
	}
	if _, err := Sweep(t.Context(), SweepOptions{FanoutOptions: o}); err == nil || !strings.Contains(err.Error(), "not one event") {
		t.Errorf("sweep: error %v", err)
	}
	o.PIDs, o.Rate = []int{1 << 30}, 500
	if _, err := Fanout(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no process 1073741824") {
		t.Errorf("a process that is not there: error %v", err)
	}
}

// Who interrupts the logins is not told to look at keys.
func TestInterruptedLogins(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	ctx, stop := context.WithCancel(t.Context())
	g.pause = func() { stop(); time.Sleep(100 * time.Millisecond) }
	r, err := Connect(ctx, ConnectOptions{Options: g.options(), Sessions: 8})
	if err != nil || !r.Interrupted || r.Exit != ExitError || r.Logins.Asked == 0 || r.Logins.OK != 0 || len(r.Errors) > 0 {
		t.Errorf("error %v, logins %+v:\n%s", err, r.Logins, tableOf(r))
	}
}

// Where pods are broken logins may fail, but not those before.
func TestNeverIn(t *testing.T) {
	t.Parallel()
	f := func(fault wrong, want float64, passes func(*Report) bool) {
		t.Helper()
		o := scripted(newGate(t, 1, fault), Step{Do: DeedRestart})
		o.Local, o.LoginRetries = new(Local), -1
		r, err := Script(t.Context(), o)
		if n, ok := r.Figure("never_in"); err != nil || !ok || n != want || !passes(r) {
			t.Errorf("%v never in, want %v; error %v:\n%s", n, want, err, tableOf(r))
		}
	}
	f(wrongNothing, 0, passes)
	f(wrongRefuse, 3, misses)
}

// What the workers of a crew used together says nothing of any one of them.
func TestGuideIsNoBottleneck(t *testing.T) {
	o, err := Options{Part: Part{Count: 8, Guide: true}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s := fanout{FanoutOptions{Options: o}}
	st, err := newStage(o, s, 1)
	if err != nil {
		t.Fatal(err)
	}
	st.crew = &guide{wake: make(chan struct{})}
	st.note("deliver", Usage{Seconds: 10, Own: 10 * 4 * float64(runtime.GOMAXPROCS(0))})
	st.watchdog.lag.Record(0, time.Second)
	if st.conclude(s); st.Report.Exit != ExitPass {
		t.Errorf("a guide that bears no load:\n%s", tableOf(st.Report))
	}
}

// Of a run that failed nobody wants to hear which figures it did not come to.
func TestCutRunsSayWhy(t *testing.T) {
	list, err := parseThresholds("delivery.p99<5ms")
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{Errors: []string{"planted"}}
	if r.judge(list); r.Exit != ExitError || len(r.Errors) != 1 {
		t.Errorf("exit %d, errors %q", r.Exit, r.Errors)
	}
}
