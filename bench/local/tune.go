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

// Knob is a setting of the gateway's process and the values that are tried; the
// first is the default.
type Knob struct {
	Name   string
	Values []string
}

// Knobs are the settings that can matter for CPU, latency or memory of one pod:
// how much garbage the collector lets grow, how many cores the process uses, how
// many readers its partitions have. Everything else of the gateway is either a
// limit or a promise.
func Knobs(cores int) []Knob {
	procs := Knob{"GOMAXPROCS", []string{fmt.Sprint(cores)}}
	for n := cores / 2; n >= 1; n /= 2 {
		procs.Values = append(procs.Values, fmt.Sprint(n))
	}
	return []Knob{{"GOGC", []string{"100", "50", "200", "400"}}, procs, {"DWS_NATS_PARTITIONS", []string{"64", "16"}}}
}

// TuneOptions is a sweep.
type TuneOptions struct {
	Programs
	bench.FanoutOptions // of each run; the addresses are filled in
	Knobs               []Knob
	Runs                int          // of each value, in turns, default 5
	Told                func(string) // before each run
	measure             func(ctx context.Context, env string) (*bench.Report, error)
}

// Tried is one value of a knob and what its runs came to, medians.
type Tried struct {
	Knob, Value string
	Default     bool
	CPU, P99    float64 // seconds a delivery, seconds
	RSS         float64 // bytes at the end of the run
	cpu         []float64
}

// tuneFigure is what decides: what a delivery costs the server.
const tuneFigure = "server_cpu_per_delivery"

// Tune runs the fan-out with each value of each knob, the values in turns so
// that what else the machine does meets all alike, each run on a gateway, a
// Redis and a NATS of its own. What was tried is returned with the error.
func Tune(ctx context.Context, o TuneOptions) (list []Tried, err error) {
	if o.Programs, err = o.Programs.withDefaults(); err != nil {
		return nil, err
	}
	if o.Runs <= 0 {
		o.Runs = 5
	}
	if o.measure == nil {
		o.measure = o.fanout
	}
	for _, k := range o.Knobs {
		tried, err := o.sweep(ctx, k)
		list = append(list, tried...)
		if err != nil {
			return list, fmt.Errorf("sweep %s: %w", k.Name, err)
		}
	}
	return list, nil
}

func (o *TuneOptions) sweep(ctx context.Context, k Knob) ([]Tried, error) {
	list := make([]Tried, len(k.Values))
	p99, rss := make([][]float64, len(list)), make([][]float64, len(list))
	for round := range o.Runs {
		for i, value := range k.Values {
			if o.Told != nil {
				o.Told(fmt.Sprintf("%s=%s, run %d of %d", k.Name, value, round+1, o.Runs))
			}
			r, err := o.measure(ctx, k.Name+"="+value)
			if err != nil {
				return nil, err
			}
			if r.Exit != bench.ExitPass {
				return nil, fmt.Errorf("run with %s=%s: %s %v", k.Name, value, r.Result, r.Errors)
			}
			cpu, ok := r.Figure(tuneFigure)
			if !ok {
				return nil, errors.New("the run tells no CPU a delivery")
			}
			list[i].cpu = append(list[i].cpu, cpu)
			p99[i] = append(p99[i], r.Latencies["delivery"].P99)
			held := 0.0
			for _, p := range r.Usage["deliver"].After {
				held += float64(p.RSS)
			}
			rss[i] = append(rss[i], held)
		}
	}
	for i := range list {
		t := &list[i]
		t.Knob, t.Value, t.Default = k.Name, k.Values[i], i == 0
		t.CPU, t.P99, t.RSS = middle(t.cpu), middle(p99[i]), middle(rss[i])
	}
	return list, nil
}

func (o *TuneOptions) fanout(ctx context.Context, env string) (*bench.Report, error) {
	l, err := startPod(ctx, o.Programs, env)
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

// Apart says whether the runs of two values do not overlap at all: with five
// each, chance does that in one sweep of 126.
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
	case b.Default:
		return def, "the default costs least"
	case !b.Apart(def):
		return def, fmt.Sprintf("%s is not apart from the default beyond noise (medians %+.0f %%)", b.Value, -gain*100)
	case gain < leastGain || math.IsNaN(gain):
		return def, fmt.Sprintf("%s gains %.0f %%: not worth a setting", b.Value, gain*100)
	}
	return b, fmt.Sprintf("every run of it costs less than every run of the default: %+.0f %% CPU a delivery, %+.0f %% RSS", -gain*100, (b.RSS/def.RSS-1)*100)
}

// WriteTried writes the evidence, and the best of each knob.
func WriteTried(w io.Writer, list []Tried) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(t, "setting\tvalue\tCPU a delivery\tleast\tmost\tdelivery p99\tRSS\n")
	var knobs [][]Tried
	for _, v := range list {
		if v.Default {
			knobs = append(knobs, nil)
		}
		knobs[len(knobs)-1] = append(knobs[len(knobs)-1], v)
		if v.Default {
			v.Value += " (default)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Knob, v.Value, bench.Quantity(v.CPU, "s"), bench.Quantity(slices.Min(v.cpu), "s"), bench.Quantity(slices.Max(v.cpu), "s"),
			bench.Quantity(v.P99, "s"), bench.Quantity(v.RSS, "B"))
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
