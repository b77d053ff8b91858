package bench

import (
	"bytes"
	"context"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

func TestThresholdSuccess(t *testing.T) {
	f := func(text string, value float64, ok bool) {
		t.Helper()
		list, err := parseThresholds(text)
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %v, %v", text, list, err)
		}
		if list[0].check(value); list[0].OK != ok {
			t.Errorf("%s with %v: kept %v, want %v", text, value, list[0].OK, ok)
		}
	}
	f("lost==0", 0, true)
	f("lost == 0", 1, false)
	f("delivery.p99<5ms", 0.0049, true)
	f("delivery.p99<5ms", 0.005, false)
	f("delivery.p99<=5000us", 0.005, true)
	f("rss_per_session<1.3KiB", 1331, true)
	f("rss_per_session<1.3KiB", 1332, false)
	f("machine_busy>50%", 0.6, true)
	f("sessions>=1e3", 1000, true)
	f("sessions!=3", 3, false)
	f("sessions>2", 3, true)
}

func TestThresholdFailure(t *testing.T) {
	for _, s := range []string{"lost", "lost=0", "lost!0", "==0", "lost==x", "lost==", "a<5parsecs"} {
		if list, err := parseThresholds(s); err == nil {
			t.Errorf("%q was read as %+v", s, list)
		}
	}
}

func TestExit(t *testing.T) {
	f := func(want Exit, change func(*Report)) {
		t.Helper()
		r := &Report{Oracle: &Verdict{Breaches: map[string]int64{"lost": 0}}}
		r.Add("closed", 1, "", "")
		change(r)
		list, err := parseThresholds("closed<2")
		if err != nil {
			t.Fatal(err)
		}
		if r.judge(list); r.Exit != want || r.Result != want.String() {
			t.Errorf("exit %d %q, want %d", r.Exit, r.Result, want)
		}
	}
	late := func(r *Report) { r.Figures[0].Value = 9 }
	slow := func(r *Report) { r.Generator.Bottleneck = "planted" }
	broke := func(r *Report) { r.Oracle.Breaches["lost"] = 1 }
	failed := func(r *Report) { r.Errors = []string{"planted"} }
	f(ExitPass, func(*Report) {})
	f(ExitThreshold, late)
	f(ExitGenerator, func(r *Report) { late(r); slow(r) })
	f(ExitError, func(r *Report) { slow(r); failed(r) })
	f(ExitError, func(r *Report) { r.Interrupted = true })
	f(ExitError, func(r *Report) { r.Figures = nil }) // no such figure
	f(ExitBroken, func(r *Report) { late(r); slow(r); failed(r); broke(r) })
}

func TestGeneratorJudge(t *testing.T) {
	f := func(want string, g Generator, u Usage) {
		t.Helper()
		if g.judge(u, false); !strings.Contains(g.Bottleneck, want) || (want == "") != (g.Bottleneck == "") {
			t.Errorf("bottleneck %q, want %q", g.Bottleneck, want)
		}
	}
	f("", Generator{}, Usage{Seconds: 10, Own: 1})
	f("own CPU", Generator{}, Usage{Seconds: 1, Own: 1000})
	f("lag p99", Generator{Lag: Latency{Count: 100, P99: 0.06}}, Usage{})
	f("", Generator{Lag: Latency{Count: 99, P99: 0.06}}, Usage{})
	f("500 ms", Generator{Lag: Latency{Max: 0.6}}, Usage{})
	f("behind schedule", Generator{Feed: &FeedStats{Lag: Latency{P99: 0.2}}}, Usage{})
	g := Generator{Lag: Latency{Max: 0.6}}
	if g.judge(Usage{}, true); g.Bottleneck != "" || !strings.Contains(g.Slow, "500 ms") {
		t.Errorf("of a run that judges no time: %+v", g)
	}
}

// A generator asked for more than one process can do says so, and its result is
// void.
func TestGeneratorSaturated(t *testing.T) {
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	o.During = func(ctx context.Context, _ *Stage) error {
		end := time.Now().Add(1500 * time.Millisecond)
		var busy sync.WaitGroup
		for range 16 * runtime.GOMAXPROCS(0) {
			busy.Go(func() {
				for time.Now().Before(end) && ctx.Err() == nil {
					spin()
				}
			})
		}
		busy.Wait()
		return nil
	}
	r, err := Fanout(t.Context(), o)
	if err != nil || r.Exit != ExitGenerator || r.Generator.Bottleneck == "" {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
}

func TestHist(t *testing.T) {
	var h Hist
	if l, err := h.Summary(); err != nil || l.Count != 0 {
		t.Fatalf("empty: %+v, %v", l, err)
	}
	for i := range 1000 {
		h.Record(uint32(i), time.Duration(i+1)*time.Millisecond)
	}
	h.Record(0, -time.Second)
	h.Record(0, time.Hour)
	l, err := h.Summary()
	near := func(got, want float64) bool { return math.Abs(got-want) < want/100 }
	if err != nil || l.Count != 1002 || !near(l.P50, 0.5) || !near(l.P99, 0.99) || !near(l.Max, 600) || l.Min != 1e-6 {
		t.Fatalf("%+v, %v", l, err)
	}
	back, err := hdrhistogram.Decode([]byte(l.HDR))
	if err != nil || back.TotalCount() != l.Count || !near(float64(back.ValueAtQuantile(50))/1e6, l.P50) {
		t.Fatalf("decode: %v", err)
	}
	h.Reset()
	if l, _ := h.Summary(); l.Count != 0 {
		t.Errorf("%d after Reset", l.Count)
	}
}

func TestSeries(t *testing.T) {
	sum := Series{}
	text := "# TYPE x counter\nx 1\nx{a=\"b c\"} 2 1234\nxy 8\n\nh_bucket{le=\"1\"} 5\n"
	for range 2 {
		if err := parseSeries(strings.NewReader(text), sum); err != nil {
			t.Fatal(err)
		}
	}
	if sum.Total("x") != 6 || sum.Total("xy") != 16 || len(sum) != 3 {
		t.Errorf("%v", sum)
	}
	changes := Series{"x": 2, "xy": 1}.Changes(sum)
	if len(changes) != 2 || changes[1].Name != `x{a="b c"}` || changes[0] != (Change{"xy", 1, 16}) {
		t.Errorf("%+v", changes)
	}
	if err := parseSeries(strings.NewReader("x y\n"), sum); err == nil {
		t.Error("no error for a value that is no number")
	}
}

func TestSampler(t *testing.T) {
	s := NewSampler([]int{os.Getpid(), 1 << 30}, nil)
	end, err := s.Window()
	if err != nil {
		t.Fatal(err)
	}
	own := func() float64 {
		p, err := ReadProcess(0)
		if err != nil {
			t.Fatal(err)
		}
		return p.CPU
	}
	// A busy machine may give us no time for long.
	for began, before := time.Now(), own(); own() < before+0.05 && time.Since(began) < 10*time.Second; {
		spin()
	}
	u, err := end()
	if err != nil || u.Server <= 0 || u.Server > 20 || math.Abs(u.Own-u.Server) > 0.03 /* read one after the other, in ticks of 10 ms */ || u.After[0].RSS < 1<<20 || u.After[0].Threads < 2 || u.After[0].FDs < 3 {
		t.Fatalf("%+v, %v", u, err)
	}
	if !u.After[1].Gone {
		t.Error("a process that is not there is not gone")
	}
	if k := ReadKernel(); k.Slab < 1<<20 || k.Load.Busy <= 0 {
		t.Errorf("kernel %+v", k)
	}
	if m := ReadMachine(); m.Cores < 1 || m.Memory < 1<<20 || m.Kernel == "" || m.CPU == "" {
		t.Errorf("machine %+v", m)
	}
}

func spin() {
	x := 0
	for i := range 100000 {
		x += i * i
	}
	sink.Store(int64(x))
}

var sink atomic.Int64

func TestPlanter(t *testing.T) {
	p := newPlanter(Plant{Drop: 3, Double: 5}, newRand(1, "x"))
	seen := map[fault]int{}
	for range 1000 {
		seen[p.next()]++
	}
	if seen[faultDrop] != 3 || seen[faultDouble] != 5 || seen[faultNone] != 992 {
		t.Errorf("%v", seen)
	}
}

func TestTable(t *testing.T) {
	r := &Report{
		Scenario: "x", Exit: ExitBroken, Closes: map[string]int64{"1011": 2}, Errors: []string{"planted"}, Latencies: map[string]Latency{"delivery": {Count: 3, P50: 0.0001, Max: 2}},
		Oracle: &Verdict{Breaches: map[string]int64{"lost": 1}, Findings: []Finding{{Breach: "lost", Company: "acme", Agent: "a1", N: 42}}},
	}
	r.Add("rss_per_session", 1331, "B", "note")
	r.Add("delivery_rate", 36274.8, "1/s", "")
	r.Add("takeover_rate", 99.871, "1/s", "")
	r.Add("deliveries", 3_287_790, "", "")
	r.Add("fanout", 21.66043, "", "")
	var b bytes.Buffer
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1.30 KiB", "36275/s", "99.87/s", "3287790", "21.6604", "100.0 us", "2.00 s", "acme/a1", "n=42", "code 1011", "planted"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}
