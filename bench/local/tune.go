package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/daisi/daisi-ws/bench"
)

// Knob is a setting of the gateway's process, what it is when it is not set, and
// the values that are tried instead.
type Knob struct {
	Name, Default string
	Values        []string
}

// Knobs are the settings that can matter for CPU, latency or memory of one pod:
// how much garbage the collector lets grow, how many cores the process uses, how
// many readers its partitions have. Everything else of the gateway is either a
// limit or a promise.
func Knobs(cores int) []Knob {
	procs := Knob{Name: "GOMAXPROCS", Default: fmt.Sprint(cores)}
	for n := cores / 2; n >= 1; n /= 2 {
		procs.Values = append(procs.Values, fmt.Sprint(n))
	}
	return []Knob{{"GOGC", "100", []string{"50", "200", "400"}}, procs, {"DWS_NATS_PARTITIONS", "64", []string{"16"}}}
}

// TuneOptions is a sweep.
type TuneOptions struct {
	Programs
	bench.FanoutOptions // of each run; the addresses are filled in
	Knobs               []Knob
	Runs                int           // of each value at most, default 5
	For                 time.Duration // for all of it, default 10 min: fewer runs where that is not enough
	Told                func(string)  // before each run
	measure             func(ctx context.Context, env ...string) (*bench.Report, error)
}

// Tried is one value of a knob and what its runs came to, medians.
type Tried struct {
	Knob, Value   string
	Default       bool
	CPU, P99      float64 // seconds a delivery, seconds
	RSS           float64 // bytes at the end of the run
	Void          int     // runs of which the generator says that it could not keep up
	cpu, p99, rss []float64
}

const (
	// tuneFigure is what decides: what a delivery costs the server.
	tuneFigure = "server_cpu_per_delivery"
	// leastRuns of each value are needed to tell it from noise.
	leastRuns = 3
)

// Tune runs the fan-out with the defaults and with each value of each knob, in
// rounds, so that what else the machine does meets all alike, each run on a
// gateway, a Redis and a NATS of its own. It ends after Runs rounds, or before
// one that would not be through within For; what a cut round found does not
// count. What was tried is returned with the error.
func Tune(ctx context.Context, o TuneOptions) (list []Tried, err error) {
	if o.Programs, err = o.Programs.withDefaults(); err != nil {
		return nil, err
	}
	if o.Runs <= 0 {
		o.Runs = 5
	}
	if o.For <= 0 {
		o.For = 10 * time.Minute
	}
	if o.measure == nil {
		o.measure = o.fanout
	}
	if o.Told == nil {
		o.Told = func(string) {}
	}
	tried := []*Tried{{}} // the defaults, then the values
	for _, k := range o.Knobs {
		for _, v := range k.Values {
			tried = append(tried, &Tried{Knob: k.Name, Value: v})
		}
	}
	o.Told(fmt.Sprintf("%d settings in up to %d rounds, %v at most", len(tried), o.Runs, o.For))
	rounds, err := o.rounds(ctx, tried)
	if err == nil && rounds < min(leastRuns, o.Runs) {
		err = fmt.Errorf("%d rounds within %v: %d are needed, so give it more time, shorter runs or fewer settings", rounds, o.For, leastRuns)
	}
	if rounds == 0 {
		return nil, err
	}
	return table(o.Knobs, tried), err
}

// rounds runs all settings in turn, every other round backwards.
func (o *TuneOptions) rounds(ctx context.Context, tried []*Tried) (n int, err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, o.For)
	defer cancel()
	for n = range o.Runs {
		start := time.Now()
		got := make([]Tried, len(tried))
		for i := range tried {
			if n%2 == 1 {
				i = len(tried) - 1 - i
			}
			if got[i], err = o.run(ctx, *tried[i], fmt.Sprintf("round %d of %d", n+1, o.Runs)); err != nil {
				if ctx.Err() != nil && context.Cause(ctx) == context.DeadlineExceeded {
					return n, nil
				}
				return n, err
			}
		}
		for i := range got {
			*tried[i] = got[i]
		}
		if took := time.Since(start); n+1 < o.Runs && time.Since(began)+took > o.For {
			return n + 1, nil
		}
	}
	return o.Runs, nil
}

// run adds one run to what was tried. One that the generator could not keep up
// with is repeated once; what it costs the server is told by the second in any
// case.
func (o *TuneOptions) run(ctx context.Context, t Tried, round string) (Tried, error) {
	name, env := "defaults", []string(nil)
	if t.Knob != "" {
		name = t.Knob + "=" + t.Value
		env = []string{name}
	}
	o.Told(round + ": " + name)
	r, err := o.measure(ctx, env...)
	if err == nil && r.Exit == bench.ExitGenerator {
		o.Told(round + ": " + name + ", again: " + r.Generator.Bottleneck)
		r, err = o.measure(ctx, env...)
	}
	if err != nil {
		return t, fmt.Errorf("run with %s: %w", name, err)
	}
	switch r.Exit {
	case bench.ExitPass:
	case bench.ExitGenerator:
		t.Void++
	default:
		return t, fmt.Errorf("run with %s: %s %v", name, r.Result, r.Errors)
	}
	cpu, ok := r.Figure(tuneFigure)
	if !ok {
		return t, errors.New("the run tells no CPU a delivery")
	}
	held := 0.0
	for _, p := range r.Usage["deliver"].After {
		held += float64(p.RSS)
	}
	t.cpu, t.p99, t.rss = append(t.cpu, cpu), append(t.p99, r.Latencies["delivery"].P99), append(t.rss, held)
	return t, nil
}

// table has for each knob the default, whose runs all share, and its values.
func table(knobs []Knob, tried []*Tried) (list []Tried) {
	next := 1
	for _, k := range knobs {
		def := *tried[0]
		def.Knob, def.Value, def.Default = k.Name, k.Default, true
		list = append(list, def)
		for range k.Values {
			list = append(list, *tried[next])
			next++
		}
	}
	for i := range list {
		t := &list[i]
		t.CPU, t.P99, t.RSS = middle(t.cpu), middle(t.p99), middle(t.rss)
	}
	return list
}

func (o *TuneOptions) fanout(ctx context.Context, env ...string) (*bench.Report, error) {
	l, err := startPod(ctx, o.Programs, env...)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	run := o.FanoutOptions
	l.Apply(&run.Options)
	if err := bench.Wait(ctx, time.Now().Add(3*time.Second)); err != nil {
		return nil, err
	}
	return bench.Fanout(ctx, run)
}

// Apart says whether the runs of two values do not overlap at all.
func (t Tried) Apart(o Tried) bool {
	return slices.Max(t.cpu) < slices.Min(o.cpu) || slices.Min(t.cpu) > slices.Max(o.cpu)
}

// leastGain is what a change must bring to be worth a setting.
const leastGain = 0.05

// best is the value of a knob that costs least CPU a delivery, if its runs are
// apart from the default's and it gains enough; else the default, and why.
func best(list []Tried) (Tried, string) {
	def := list[0]
	b := slices.MinFunc(list, func(x, y Tried) int { return cmp.Compare(x.CPU, y.CPU) })
	gain := 1 - b.CPU/def.CPU
	switch {
	case len(def.cpu) < leastRuns:
		return def, fmt.Sprintf("%d runs of each are too few to tell", len(def.cpu))
	case b.Default:
		return def, "the default costs least"
	case !b.Apart(def):
		return def, fmt.Sprintf("%s is not apart from the default beyond noise (medians %+.0f %%)", b.Value, -gain*100)
	case gain < leastGain || math.IsNaN(gain):
		return def, fmt.Sprintf("%s gains %.0f %%: not worth a setting", b.Value, gain*100)
	}
	return b, fmt.Sprintf("every run of it costs less than every run of the default, which chance does in one sweep of %d: %+.0f %% CPU a delivery, %+.0f %% RSS",
		chance(len(def.cpu)), -gain*100, (b.RSS/def.RSS-1)*100)
}

// chance is in one of how many cases two sets of n alike do not overlap.
func chance(n int) int {
	ways := 1
	for i := 1; i <= n; i++ {
		ways = ways * (n + i) / i
	}
	return max(ways/2, 1)
}

// WriteTried writes the evidence, and the best of each knob.
func WriteTried(w io.Writer, list []Tried) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(t, "setting\tvalue\tCPU a delivery\tleast\tmost\tdelivery p99\tRSS\truns\tvoid\n")
	var knobs [][]Tried
	for _, v := range list {
		if v.Default {
			knobs = append(knobs, nil)
		}
		knobs[len(knobs)-1] = append(knobs[len(knobs)-1], v)
		if v.Default {
			v.Value += " (default)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", v.Knob, v.Value, bench.Quantity(v.CPU, "s"), bench.Quantity(slices.Min(v.cpu), "s"), bench.Quantity(slices.Max(v.cpu), "s"),
			bench.Quantity(v.P99, "s"), bench.Quantity(v.RSS, "B"), len(v.cpu), v.Void)
	}
	fmt.Fprintln(t)
	for _, k := range knobs {
		b, why := best(k)
		fmt.Fprintf(t, "best\t%s=%s\t%s\n", b.Knob, b.Value, why)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write what was tried: %w", err)
	}
	return nil
}

func middle(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
