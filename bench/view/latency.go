package view

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/daisi/daisi-ws/bench"
)

// latencyView is one latency with its raw twin, if it has one.
type latencyView struct {
	Name       string
	Rows       []latencyRow
	Percentile *chart
	Spread     *chart
}

type latencyRow struct {
	Name  string
	Count int64
	Cells []string // p50 … max
}

var latencyPoints = []string{"p50", "p90", "p99", "p99.9", "p99.99", "max"}

// latencies pairs X with X_raw and draws both; plain are those whose histogram
// the report does not have.
func latencies(r *bench.Report) (list []latencyView, plain []latencyRow, err error) {
	for _, name := range slices.Sorted(maps.Keys(r.Latencies)) {
		if base, ok := strings.CutSuffix(name, "_raw"); ok && r.Latencies[base].Count > 0 {
			continue // shown with its twin
		}
		v := latencyView{Name: name}
		var hists []*hdrhistogram.Histogram
		var names []string
		for i, n := range []string{name, name + "_raw"} {
			l := r.Latencies[n]
			if l.Count == 0 {
				continue
			}
			label := [...]string{"corrected: from the due instant", "raw: from the sending"}[i]
			if _, twin := r.Latencies[name+"_raw"]; !twin {
				label = "measured"
			}
			v.Rows = append(v.Rows, latencyCells(label, l))
			if l.HDR == "" {
				continue
			}
			h, err := l.Histogram()
			if err != nil {
				return nil, nil, fmt.Errorf("draw latency %s: %w", n, err)
			}
			hists, names = append(hists, h), append(names, strings.Split(label, ":")[0])
		}
		if len(hists) == 0 {
			for _, row := range v.Rows {
				row.Name = name + ", " + strings.Split(row.Name, ":")[0]
				plain = append(plain, row)
			}
			continue
		}
		v.Percentile, v.Spread = percentiles(names, hists), spread(names, hists)
		list = append(list, v)
	}
	return list, plain, nil
}

func latencyCells(name string, l bench.Latency) latencyRow {
	row := latencyRow{Name: name, Count: l.Count}
	for _, v := range []float64{l.P50, l.P90, l.P99, l.P999, l.P9999, l.Max} {
		row.Cells = append(row.Cells, bench.Quantity(v, "s"))
	}
	return row
}

// percentiles draws latency over the percentile; each 9 more takes as much room.
func percentiles(names []string, hists []*hdrhistogram.Histogram) *chart {
	c := &chart{
		Title: "By percentile", unit: "s", log: true,
		xText: func(v float64) string {
			// p50 stands at 0.3, p90 at 1, p99 at 2
			return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.4f", 100*(1-math.Pow(10, -v))), "0"), ".") + " %"
		},
		xTicks: []float64{math.Log10(2), 1, 2, 3, 4, 5},
	}
	for x := 0.0; x <= 5.0001; x += 0.05 {
		c.x = append(c.x, x)
	}
	for i, h := range hists {
		l := line{name: names[i], kind: i}
		for _, x := range c.x {
			// Beyond what so few values can tell there is no line.
			if math.Pow(10, x) > float64(h.TotalCount())*2 {
				l.y = append(l.y, math.NaN())
				continue
			}
			l.y = append(l.y, max(float64(h.ValueAtQuantile(100*(1-math.Pow(10, -x))))/1e6, 1e-6))
		}
		c.lines = append(c.lines, l)
	}
	return c
}

// spreadBins is how many steps of equal ratio the histogram has.
const spreadBins = 60

// spread draws how many values lie where.
func spread(names []string, hists []*hdrhistogram.Histogram) *chart {
	low, high := int64(math.MaxInt64), int64(1)
	for _, h := range hists {
		low, high = min(low, max(h.Min(), 1)), max(high, h.Max())
	}
	from, to := math.Log10(float64(low)), math.Log10(float64(high))
	if to-from < 0.1 {
		to = from + 0.1
	}
	c := &chart{Title: "Histogram", Note: "how many lie where; steps of equal ratio", xText: func(v float64) string { return bench.Quantity(math.Pow(10, v)/1e6, "s") }}
	for i := range spreadBins {
		c.x = append(c.x, from+(to-from)*(float64(i)+0.5)/spreadBins)
	}
	for e := math.Ceil(from); e <= to; e++ {
		c.xTicks = append(c.xTicks, e)
	}
	if len(c.xTicks) < 2 {
		c.xTicks = []float64{c.x[0], c.x[spreadBins/2], c.x[spreadBins-1]}
	}
	for k, h := range hists {
		l := line{name: names[k], kind: k, area: k == 0, y: make([]float64, spreadBins)}
		for _, bar := range h.Distribution() {
			if bar.Count == 0 {
				continue
			}
			at := int((math.Log10(float64(max(bar.From, 1))) - from) / (to - from) * spreadBins)
			l.y[min(max(at, 0), spreadBins-1)] += float64(bar.Count)
		}
		c.lines = append(c.lines, l)
	}
	return c
}
