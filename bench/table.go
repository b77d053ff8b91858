package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "%s\t%s\texit %d\n", r.Scenario, r.Result, int(r.Exit))
	fmt.Fprintf(t, "run\t%s\tseed %d, commit %s\n", r.Run, r.Seed, r.Commit)
	fmt.Fprintf(t, "machine\t%d cores, %s\t%s, Linux %s, %s\n", r.Machine.Cores, bytesText(float64(r.Machine.Memory)), r.Machine.CPU, r.Machine.Kernel, r.Machine.Go)
	fmt.Fprintf(t, "time\t%s\tfor %.1f s\n", r.Started.Format(time.RFC3339), r.Seconds)
	if r.Interrupted {
		fmt.Fprintln(t, "interrupted\tyes\twhat there was until then")
	}
	for _, f := range r.Figures {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, Quantity(f.Value, f.Unit), f.Note)
	}
	r.tableLatencies(t)
	r.tableOracle(t)
	r.tableLogins(t)
	for _, code := range slices.Sorted(maps.Keys(r.Closes)) {
		fmt.Fprintf(t, "closed by server\t%d\tcode %s\n", r.Closes[code], code)
	}
	r.tableVerdict(t)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

func (r *Report) tableLatencies(t io.Writer) {
	if len(r.Latencies) == 0 {
		return
	}
	fmt.Fprintln(t, "\nlatency\tcount\tp50\tp90\tp99\tp99.9\tp99.99\tmax")
	for _, name := range slices.Sorted(maps.Keys(r.Latencies)) {
		l := r.Latencies[name]
		fmt.Fprintf(t, "%s\t%d", name, l.Count)
		for _, v := range []float64{l.P50, l.P90, l.P99, l.P999, l.P9999, l.Max} {
			fmt.Fprintf(t, "\t%s", secondsText(v))
		}
		fmt.Fprintln(t)
	}
}

func (r *Report) tableOracle(t io.Writer) {
	v := r.Oracle
	if v == nil {
		return
	}
	fmt.Fprintf(t, "\noracle\tsessions %d\tpublished %d (unsure %d)\texpected %d\tmet %d\ttold %d\treceived %d\tforeign %d\n",
		v.Sessions, v.Published, v.Unsure, v.Expected, v.Met, v.Told, v.Received, v.Foreign)
	for b := range breaches {
		if n, ok := v.Breaches[b.String()]; ok {
			fmt.Fprintf(t, "  %s\t%d\n", b, n)
		}
	}
	for i, f := range v.Findings {
		if i == 10 {
			fmt.Fprintf(t, "  … %d more in the JSON\n", len(v.Findings)-i)
			break
		}
		fmt.Fprintf(t, "  %s: %s/%s/%s on %s, %s n=%d seq=%d: %s\n", f.Breach, f.Company, f.Agent, f.User, f.Pod, f.Topic, f.N, f.Seq, f.Detail)
	}
}

// tableLogins says what kept logins from coming through, be it at first.
func (r *Report) tableLogins(t io.Writer) {
	if r.Logins == nil {
		return
	}
	for _, code := range slices.Sorted(maps.Keys(r.Logins.Refused)) {
		fmt.Fprintf(t, "logins refused\t%d\t%s\n", r.Logins.Refused[code], code)
	}
	for _, cause := range slices.Sorted(maps.Keys(r.Logins.Failed)) {
		fmt.Fprintf(t, "logins failed\t%d\t%s\n", r.Logins.Failed[cause], cause)
	}
}

func (r *Report) tableVerdict(t io.Writer) {
	g := r.Generator
	fmt.Fprintf(t, "\ngenerator\tCPU %.0f %%\tlag p99 %s, max %s", g.CPU*100, secondsText(g.Lag.P99), secondsText(g.Lag.Max))
	if g.Feed != nil {
		fmt.Fprintf(t, "\tfeed lag p99 %s, stalls %d", secondsText(g.Feed.Lag.P99), g.Feed.Stalls)
	}
	fmt.Fprintln(t)
	if g.Bottleneck != "" {
		fmt.Fprintf(t, "bottleneck\t%s\n", g.Bottleneck)
	}
	if g.Slow != "" {
		fmt.Fprintf(t, "slow\t%s: its latencies say nothing, what was counted holds\n", g.Slow)
	}
	for _, th := range r.Thresholds {
		word := "kept"
		if !th.OK {
			word = "MISSED"
		}
		fmt.Fprintf(t, "threshold\t%s\t%s\tis %s\n", th.Text, word, Quantity(th.Value, r.Unit(th.Figure)))
	}
	for _, e := range r.Errors {
		fmt.Fprintf(t, "error\t%s\n", strings.ReplaceAll(e, "\n", " "))
	}
}

// Quantity is a figure as people read it.
func Quantity(v float64, unit string) string {
	switch unit {
	case "s":
		return secondsText(v)
	case "B":
		return bytesText(v)
	case "":
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 { // a count is exact
			return strconv.FormatInt(int64(v), 10)
		}
		return fmt.Sprintf("%.6g", v)
	default:
		digits := "%.4g"
		if v >= 1000 {
			digits = "%.0f"
		}
		return fmt.Sprintf(digits+"%s", v, strings.TrimPrefix(unit, "1"))
	}
}

func secondsText(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 1e-3 && v > -1e-3:
		return fmt.Sprintf("%.1f us", v*1e6)
	case v < 1 && v > -1:
		return fmt.Sprintf("%.2f ms", v*1e3)
	default:
		return fmt.Sprintf("%.2f s", v)
	}
}

func bytesText(v float64) string {
	switch {
	case v >= 1<<30:
		return fmt.Sprintf("%.2f GiB", v/(1<<30))
	case v >= 1<<20:
		return fmt.Sprintf("%.2f MiB", v/(1<<20))
	case v >= 1<<10:
		return fmt.Sprintf("%.2f KiB", v/(1<<10))
	default:
		return fmt.Sprintf("%.0f B", v)
	}
}
