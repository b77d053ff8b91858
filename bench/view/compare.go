package view

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/daisi/daisi-ws/bench"
)

// CompareOptions says when a difference counts. Zero: the defaults given.
type CompareOptions struct {
	Figures []string // default: all that both sides have and that have a better direction
	Alpha   float64  // chance of calling noise a difference, a figure; default 0.01
	Least   float64  // smallest change of the median that matters, a share; default 0.02
	Runs    int      // least number of runs on each side, default 5: with 4, no result can be that unlikely by chance
}

// Difference is what became of one figure.
type Difference struct {
	Figure, Unit string
	A, B         float64 // medians
	Change       float64 // of the median, a share of A's
	P, Delta     float64 // Mann-Whitney, and Cliff's delta: -1 to 1
	Verdict      string  // "better", "worse", "same", "changed"
}

// Comparison is two sets of runs beside each other.
type Comparison struct {
	RunsA, RunsB int
	Void         []string // runs left out, and why
	Notes        []string // what differs beside the program
	Differences  []Difference
	Exit         bench.Exit
	Verdict      string
}

// Compare judges b against a. Runs that were void, failed or broke a promise
// have no figures worth comparing; a broken promise in b decides all the same.
func Compare(a, b []*bench.Report, o CompareOptions) (*Comparison, error) {
	if o.Alpha <= 0 {
		o.Alpha = 0.01
	}
	if o.Least <= 0 {
		o.Least = 0.02
	}
	if o.Runs <= 0 {
		o.Runs = 5
	}
	c := new(Comparison)
	broken := slices.ContainsFunc(b, func(r *bench.Report) bool { return r.Exit == bench.ExitBroken })
	seen := map[string]string{}
	a, b = c.usable("a", a, seen), c.usable("b", b, seen)
	c.RunsA, c.RunsB = len(a), len(b)
	if err := c.alike(a, b); err != nil {
		return nil, err
	}
	switch {
	case broken:
		c.Exit, c.Verdict = bench.ExitBroken, "b broke a promise: nothing else matters"
		return c, nil
	case len(a) < o.Runs || len(b) < o.Runs:
		c.Exit = bench.ExitError
		c.Verdict = fmt.Sprintf("not enough runs: %d and %d that count, at least %d each are needed to tell a difference from noise", len(a), len(b), o.Runs)
		return c, nil
	}
	names, err := common(a, b, o.Figures)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		c.Differences = append(c.Differences, o.judge(name, a, b))
	}
	c.conclude(o.Alpha)
	return c, nil
}

// usable are the runs that count, each once: two copies of one run are no
// evidence of anything. seen are those that counted so far, and on which side.
func (c *Comparison) usable(side string, list []*bench.Report, seen map[string]string) (out []*bench.Report) {
	for _, r := range list {
		id := r.Run + r.Started.Format(time.RFC3339Nano)
		before, twice := seen[id]
		switch {
		case r.Exit != bench.ExitPass && r.Exit != bench.ExitThreshold:
			c.Void = append(c.Void, fmt.Sprintf("%s: run %s: %s", side, r.Run, r.Result))
		case twice:
			c.Void = append(c.Void, fmt.Sprintf("%s: run %s: it is among those of %s already", side, r.Run, before))
		default:
			seen[id] = side
			out = append(out, r)
		}
	}
	return out
}

// alike refuses what can't be compared, and notes what makes it doubtful.
func (c *Comparison) alike(a, b []*bench.Report) error {
	all := slices.Concat(a, b)
	if len(all) == 0 {
		return nil
	}
	first := all[0]
	seen := map[string]bool{}
	note := func(text string) {
		if !seen[text] {
			seen[text] = true
			c.Notes = append(c.Notes, text)
		}
	}
	for _, r := range all[1:] {
		if r.Scenario != first.Scenario {
			return fmt.Errorf("compare runs: %s and %s are different scenarios", first.Scenario, r.Scenario)
		}
		if r.Machine.CPU != first.Machine.CPU || r.Machine.Cores != first.Machine.Cores {
			return fmt.Errorf("compare runs: %d cores %q and %d cores %q are different machines", first.Machine.Cores, first.Machine.CPU, r.Machine.Cores, r.Machine.CPU)
		}
		if r.Machine.Kernel != first.Machine.Kernel {
			note("kernels differ: " + first.Machine.Kernel + ", " + r.Machine.Kernel)
		}
		if r.Machine.Go != first.Machine.Go {
			note("Go versions differ: " + first.Machine.Go + ", " + r.Machine.Go)
		}
		for _, s := range settingsApart(first.Options, r.Options) {
			note("settings differ: " + s)
		}
	}
	return nil
}

// ownSettings differ from run to run without meaning anything.
var ownSettings = []string{"seed", "addrs", "internal", "pids", "nats", "company", "sources"}

func settingsApart(a, b any) (list []string) {
	x, y := flat(a), flat(b)
	for _, m := range []map[string]any{x, y} {
		for k := range m {
			if !slices.Contains(ownSettings, k) && !reflect.DeepEqual(x[k], y[k]) && !slices.Contains(list, k) {
				list = append(list, k)
			}
		}
	}
	slices.Sort(list)
	return list
}

// flat is options as decoded JSON, whether they were read or made here.
func flat(options any) map[string]any {
	b, err := json.Marshal(options)
	if err != nil {
		return nil
	}
	m := map[string]any{}
	// Options that are no object have no names to compare.
	_ = json.Unmarshal(b, &m)
	return m
}

// common are the figures that every run has.
func common(a, b []*bench.Report, wanted []string) (names []string, err error) {
	all := slices.Concat(a, b)
	for _, name := range wanted {
		for _, r := range all {
			if _, ok := r.Figure(name); !ok {
				return nil, fmt.Errorf("compare runs: run %s has no figure %q; it has %s", r.Run, name, strings.Join(r.Names(), ", "))
			}
		}
	}
	if len(wanted) > 0 {
		return wanted, nil
	}
	for _, name := range all[0].Names() {
		if better(name, all[0].Unit(name)) == 0 {
			continue
		}
		if !slices.ContainsFunc(all, func(r *bench.Report) bool { _, ok := r.Figure(name); return !ok }) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("compare runs: they have no figure in common that could be better or worse")
	}
	return names, nil
}

// tails are points that a few slow events decide: shown when asked for.
var tails = []string{".max", ".min", ".p99.99", ".mean", ".count"}

// better says which way a figure should go: -1 down, 1 up, 0: neither is
// better, or it is too rough to be judged by default.
func better(name, unit string) int {
	for _, t := range tails {
		if strings.HasSuffix(name, t) {
			return 0
		}
	}
	switch {
	case strings.HasPrefix(name, "client_"), strings.HasPrefix(name, "pods_"):
		return 0
	case unit == "s" || unit == "B" || strings.Contains(name, "cpu") || name == "closed" || name == "gaps" || name == "login_failures":
		return -1
	case unit == "1/s":
		return 1
	default:
		return 0
	}
}

func (o CompareOptions) judge(name string, a, b []*bench.Report) Difference {
	x, y := values(a, name), values(b, name)
	d := Difference{Figure: name, Unit: a[0].Unit(name), A: median(x), B: median(y), Verdict: "same"}
	d.P, d.Delta = mannWhitney(x, y)
	switch {
	case d.A != 0:
		d.Change = (d.B - d.A) / math.Abs(d.A)
	case d.B != 0:
		d.Change = math.Inf(int(math.Copysign(1, d.B)))
	}
	if d.P > o.Alpha || math.Abs(d.Change) < o.Least {
		return d
	}
	switch way := better(name, d.Unit); {
	case way == 0:
		d.Verdict = "changed"
	case (d.Change > 0) == (way > 0):
		d.Verdict = "better"
	default:
		d.Verdict = "worse"
	}
	return d
}

func values(list []*bench.Report, name string) (out []float64) {
	for _, r := range list {
		v, _ := r.Figure(name) // common has looked
		out = append(out, v)
	}
	return out
}

func (c *Comparison) conclude(alpha float64) {
	count := map[string]int{}
	for _, d := range c.Differences {
		count[d.Verdict]++
	}
	c.Exit = bench.ExitPass
	// Each figure has its own chance to be taken for different; who reads of one
	// among many must know.
	noise := fmt.Sprintf(" (of so many, noise alone makes %.1g look different)", alpha*float64(len(c.Differences)))
	switch {
	case count["worse"] > 0:
		c.Exit, c.Verdict = bench.ExitThreshold, fmt.Sprintf("b is worse in %d of %d figures", count["worse"], len(c.Differences))+noise
	case count["better"] > 0:
		c.Verdict = fmt.Sprintf("b is better in %d of %d figures, worse in none", count["better"], len(c.Differences)) + noise
	default:
		c.Verdict = fmt.Sprintf("no difference beyond noise in %d figures", len(c.Differences))
	}
}

// Write writes it for people.
func (c *Comparison) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, v := range c.Void {
		fmt.Fprintf(t, "left out\t%s\n", v)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(t, "beware\t%s\n", n)
	}
	if len(c.Differences) > 0 {
		fmt.Fprintf(t, "figure\ta (%d runs)\tb (%d runs)\tchange\tp\teffect\tverdict\n", c.RunsA, c.RunsB)
	}
	for _, d := range c.Differences {
		fmt.Fprintf(t, "%s\t%s\t%s\t%+.1f %%\t%.4f\t%+.2f\t%s\n", d.Figure, bench.Quantity(d.A, d.Unit), bench.Quantity(d.B, d.Unit), d.Change*100, d.P, d.Delta, d.Verdict)
	}
	fmt.Fprintf(t, "%s\n", c.Verdict)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write comparison: %w", err)
	}
	return nil
}
