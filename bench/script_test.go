package bench

import (
	"os"
	"strings"
	"testing"
	"time"
)

func scripted(g *gate, steps ...Step) ScriptOptions {
	f := small(g)
	f.Rate = 300
	for i := range steps {
		orDuration(&steps[i].For, 400*time.Millisecond)
	}
	return ScriptOptions{FanoutOptions: f, Steps: steps}
}

// Every deed that breaks nothing, each its own phase, and nothing is lost.
func TestScript(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongNothing)
	o := scripted(g, Step{Name: "baseline"}, Step{Do: DeedChurn, Pace: 50}, Step{Do: DeedStorm}, Step{Do: DeedTakeover, Share: 0.2}, Step{Do: DeedStuck, Share: 0.1})
	r, err := Script(t.Context(), o)
	if err != nil || !passes(r) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	for name, want := range map[string]float64{
		"churn_logins": 20, "storm_logins": 60, "takeover_logins": 12, "stuck_open": 60, "readers_open": 6,
		"baseline_events": 120, "storm_open": 60, "away": 0, "closed": 0,
	} {
		if got, ok := r.Figure(name); !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	v := r.Oracle
	if v.Met+v.Told != v.Expected || v.Sessions != 60+20+60+12 || v.Takeovers < 12 || r.Closes[closeReplaced] != 12 {
		t.Errorf("want all met or told:\n%s", tableOf(r))
	}
	if n := r.Latencies["baseline"].Count; n == 0 || r.Latencies["delivery"].Count <= n || r.Latencies["storm_raw"].Count == 0 {
		t.Errorf("latencies %+v", r.Latencies)
	}
	if r.Counts["readers"] != 6 {
		t.Errorf("counts %v", r.Counts)
	}
}

// A soak says what grew.
func TestSoak(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongNothing)
	o := scripted(g)
	o.PIDs, o.Duration = []int{os.Getpid()}, 400*time.Millisecond
	o, ok := NamedScript(ScriptSoak, o)
	r, err := Script(t.Context(), o)
	if !ok || err != nil || !passes(r) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	for _, name := range []string{"soak_events", "end_deliveries", "server_rss_growth", "soak_excess", "end_excess", "soak.p99"} {
		if _, ok := r.Figure(name); !ok {
			t.Errorf("no figure %s:\n%s", name, tableOf(r))
		}
	}
}

// Readers can be stuck under TLS, too.
func TestScriptStuckWSS(t *testing.T) {
	t.Parallel()
	g := bareGate(t, wrongNothing)
	g.secure = true
	g.listen()
	r, err := Script(t.Context(), scripted(g, Step{Name: "baseline"}, Step{Do: DeedStuck, Share: 0.1}))
	if err != nil || !passes(r) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	if n, _ := r.Figure("readers_open"); n != 6 || r.Latencies["stuck"].Count == 0 {
		t.Errorf("%v stuck readers are open, want 6:\n%s", n, tableOf(r))
	}
}

// A user whose socket was ended comes again, and goes on being judged.
func TestScriptAgain(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongKill)
	o := scripted(g, Step{Name: "one", For: time.Second}, Step{Name: "two"})
	o.Again = true
	r, err := Script(t.Context(), o)
	if err != nil || !misses(r) || len(broken(r)) > 0 {
		t.Fatalf("want closed==0 missed, error %v:\n%s", err, tableOf(r))
	}
	again, _ := r.Figure("came_again")
	open, _ := r.Figure("two_open")
	if away, _ := r.Figure("away"); again != 1 || open != 60 || away != 0 || r.Latencies["again"].Count != 1 || r.Closes["1011"] != 1 {
		t.Fatalf("want one who came again:\n%s", tableOf(r))
	}
}

func TestScriptFindsFaults(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongLose)
	r, err := Script(t.Context(), scripted(g, Step{Do: DeedChurn, Pace: 20, For: time.Second}))
	if err != nil || r.Exit != ExitBroken || broken(r)["lost"] != 1 {
		t.Fatalf("want 1 lost, error %v:\n%s", err, tableOf(r))
	}
}

func TestScriptCrew(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongNothing)
	o := scripted(g, Step{Do: DeedStorm}, Step{Do: DeedTakeover, Share: 0.5})
	o.Options, _ = crewed(t, g, 2)
	o.Title = "mine"
	r, err := Script(t.Context(), o)
	if err != nil || !passes(r) || r.Scenario != "mine" {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	if n, _ := r.Figure("storm_logins"); n != 60 || r.Closes[closeReplaced] != 30 {
		t.Errorf("%v logins in the storm, %v replaced", n, r.Closes)
	}
}

func TestReadScriptSuccess(t *testing.T) {
	o, err := ReadScript(strings.NewReader(`
name: evening
sessions: 70
again: true
rate: 12.5
steps:
  - {name: quiet, for: 10s, rate: -1}
  - {do: storm, pace: 1000}
  - {do: kill, for: 1m, every: 10s, pause: 1s}
thresholds: lost==0,storm.p99<100ms
`), ScriptOptions{FanoutOptions: FanoutOptions{Sessions: 5, Agents: 7}})
	if err != nil {
		t.Fatal(err)
	}
	if o.Title != "evening" || o.Sessions != 70 || o.Agents != 7 || !o.Again || o.Rate != 12.5 || o.Thresholds != "lost==0,storm.p99<100ms" ||
		len(o.Steps) != 3 || o.Steps[0].For != 10*time.Second || o.Steps[0].Rate != -1 || o.Steps[2] != (Step{Do: DeedKill, For: time.Minute, Every: 10 * time.Second, Pause: time.Second}) {
		t.Errorf("read %+v", o)
	}
}

func TestReadScriptFailure(t *testing.T) {
	f := func(want, text string) {
		t.Helper()
		o, err := ReadScript(strings.NewReader(text), ScriptOptions{})
		if err == nil {
			_, err = Script(t.Context(), o)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", text, err, want)
		}
	}
	f("no steps", "name: x")
	f("no steps", "")
	f("nobody leaves", "steps: [{do: churn}]")
	f("a share of 5", "steps: [{do: takeover, share: 5}]")
	f("not one event", "steps: [{rate: 0.5, for: 1s}]")
	f("nonsense", "nonsense: 1\nsteps: [{do: storm}]")
	f("no deed", "steps: [{do: dance}]")
	f("there is another", "steps: [{do: storm}, {do: storm}]")
	f("cluster of this run's own", "steps: [{do: kill}]")
	f("more than one", "steps: [{do: storm}]\n---\nsteps: []")
}

func FuzzReadScript(f *testing.F) {
	f.Add("name: x\nsteps:\n  - {do: storm, for: 1s}\n")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ReadScript(strings.NewReader(text), ScriptOptions{})
		if err == nil && len(o.Steps) == 0 {
			t.Error("a script without steps was read")
		}
		if err == nil {
			_, _ = newScript(o) // may refuse, never panics
		}
	})
}
