package view

import (
	"fmt"
	"math"

	"github.com/daisi/daisi-ws/bench"
)

// timeCharts are the time lines of a report, those without data left out.
func timeCharts(r *bench.Report) (list []*chart) {
	rows := r.Samples
	t := timeline{rows}
	all := []*chart{
		{Title: "Events and deliveries a second", unit: "1/s", lines: []line{
			{name: "deliveries", kind: 0, y: t.rate(func(s bench.Sample) float64 { return float64(s.Received) })},
			{name: "events published", kind: 1, y: t.rate(func(s bench.Sample) float64 { return float64(s.Published) })},
		}},
		{Title: "Latency of deliveries", unit: "s", log: true, Note: "corrected: from the instant an event was due; raw: from its sending", lines: []line{
			{name: "p50 corrected", kind: 0, y: t.beat(delivery, p50)},
			{name: "p99 corrected", kind: 1, y: t.beat(delivery, p99)},
			{name: "p99 raw", kind: 2, y: t.beat(deliveryRaw, p99)},
			{name: "max corrected", kind: 3, y: t.beat(delivery, peak)},
		}},
		{Title: "Sessions", lines: []line{
			{name: "open sockets", kind: 0, area: true, y: t.value(func(s bench.Sample) float64 { return float64(s.Sessions) })},
		}},
		{Title: "Logins a second", unit: "1/s", lines: []line{
			{name: "logins", kind: 0, y: t.rate(func(s bench.Sample) float64 { return float64(s.Logins) })},
			{name: "attempts of those cut off", kind: 1, y: t.rate(func(s bench.Sample) float64 { return float64(s.Returns) })},
		}},
		{Title: "Latency of logins", unit: "s", log: true, lines: []line{
			{name: "p50 corrected", kind: 0, y: t.beat(login, p50)},
			{name: "p99 corrected", kind: 1, y: t.beat(login, p99)},
		}},
		{Title: "Errors a second", unit: "1/s", Note: "a flat line at 0 is what one wants to see", lines: []line{
			{name: "promises broken", kind: 1, y: t.rate(func(s bench.Sample) float64 { return float64(s.Breaches) })},
			{name: "logins refused or failed", kind: 0, y: t.rate(func(s bench.Sample) float64 { return float64(s.Failed) })},
			{name: "sockets ended by the server", kind: 2, y: t.rate(func(s bench.Sample) float64 { return float64(s.Closed) })},
		}},
	}
	all = append(all, serverCharts(r, t)...)
	for _, c := range all {
		c.x, c.xText = t.at(), secondsAt
		if !c.Empty() {
			list = append(list, c)
		}
	}
	return list
}

// serverCharts are what /proc and the pods' metrics told.
func serverCharts(r *bench.Report, t timeline) []*chart {
	cpu := &chart{Title: "CPU", Note: "cores in use", lines: []line{
		{name: "server", kind: 0, y: t.growth(func(s bench.Sample) float64 { return s.ServerCPU })},
		{name: "generator", kind: 1, y: t.growth(func(s bench.Sample) float64 { return s.OwnCPU })},
	}}
	memory := &chart{Title: "Memory", unit: "B", Note: "kernel: of the whole machine, both ends of a connection when the server is on it", lines: []line{
		{name: "server RSS", kind: 0, y: t.value(func(s bench.Sample) float64 { return float64(s.ServerRSS) })},
		{name: "kernel slab", kind: 1, y: t.value(func(s bench.Sample) float64 { return orHole(float64(s.Slab)) })},
		{name: "TCP buffers", kind: 2, y: t.value(func(s bench.Sample) float64 { return orHole(float64(s.TCP)) })},
	}}
	if !anyOf(r.Samples, func(s bench.Sample) bool { return s.ServerRSS > 0 }) {
		cpu.lines, memory.lines = cpu.lines[1:], memory.lines[1:]
	}
	return []*chart{
		cpu, memory,
		{Title: "Goroutines", lines: []line{{name: "all pods", kind: 0, sparse: true, y: t.server(func(s *bench.ServerSample) float64 { return s.Goroutines })}}},
		{Title: "Heap in use", unit: "B", lines: []line{{name: "all pods", kind: 0, area: true, sparse: true, y: t.server(func(s *bench.ServerSample) float64 { return s.Heap })}}},
		{Title: "Garbage collections a second", unit: "1/s", lines: []line{{name: "all pods", kind: 0, sparse: true, y: t.serverRate(func(s *bench.ServerSample) float64 { return s.GCs })}}},
		{Title: "Redis, NATS and other pods a second", unit: "1/s", lines: []line{
			{name: "calls to Redis", kind: 0, sparse: true, y: t.serverRate(func(s *bench.ServerSample) float64 { return s.RedisCalls })},
			{name: "events read from NATS", kind: 1, sparse: true, y: t.serverRate(func(s *bench.ServerSample) float64 { return s.NATSEvents })},
			{name: "copies sent to other pods", kind: 2, sparse: true, y: t.serverRate(func(s *bench.ServerSample) float64 { return s.Forwarded })},
		}},
		{Title: "Waiting in the server", lines: []line{
			{name: "events not yet taken", kind: 0, sparse: true, y: t.server(func(s *bench.ServerSample) float64 { return s.Lag })},
			{name: "copies not yet written", kind: 1, sparse: true, y: t.server(func(s *bench.ServerSample) float64 { return s.Queued })},
		}},
	}
}

// timeline reads columns out of the rows.
type timeline struct{ rows []bench.Sample }

func (t timeline) at() []float64 {
	return t.value(func(s bench.Sample) float64 { return s.At })
}

func (t timeline) value(f func(bench.Sample) float64) []float64 {
	out := make([]float64, len(t.rows))
	for i, s := range t.rows {
		out[i] = f(s)
	}
	return out
}

// rate is a total's growth a second.
func (t timeline) rate(f func(bench.Sample) float64) []float64 {
	out := make([]float64, len(t.rows))
	var at, before float64
	for i, s := range t.rows {
		v := f(s)
		if out[i] = math.NaN(); s.At > at {
			out[i] = max(0, (v-before)/(s.At-at))
		}
		at, before = s.At, v
	}
	return out
}

// growth is rate of a total that had begun before the run.
func (t timeline) growth(f func(bench.Sample) float64) []float64 {
	out := t.rate(f)
	if len(out) > 0 {
		out[0] = math.NaN()
	}
	return out
}

func (t timeline) server(f func(*bench.ServerSample) float64) []float64 {
	return t.value(func(s bench.Sample) float64 {
		if s.Server == nil {
			return math.NaN()
		}
		return f(s.Server)
	})
}

// serverRate is the growth a second between two readings of the pods.
func (t timeline) serverRate(f func(*bench.ServerSample) float64) []float64 {
	out := t.server(f)
	last := -1
	var before float64
	for i, v := range out {
		if math.IsNaN(v) {
			continue
		}
		out[i] = math.NaN()
		if last >= 0 && v >= before { // it falls when a pod ends
			out[i] = (v - before) / (t.rows[i].At - t.rows[last].At)
		}
		last, before = i, v
	}
	return out
}

func (t timeline) beat(which func(bench.Sample) *bench.Beat, point func(*bench.Beat) float64) []float64 {
	return t.value(func(s bench.Sample) float64 {
		b := which(s)
		if b == nil {
			return math.NaN()
		}
		return max(point(b), 1e-6) // 0 has no place on a scale of powers
	})
}

func delivery(s bench.Sample) *bench.Beat    { return s.Delivery }
func deliveryRaw(s bench.Sample) *bench.Beat { return s.DeliveryRaw }
func login(s bench.Sample) *bench.Beat       { return s.Login }
func p50(b *bench.Beat) float64              { return b.P50 }
func p99(b *bench.Beat) float64              { return b.P99 }
func peak(b *bench.Beat) float64             { return b.Max }

// orHole takes 0 for "not told".
func orHole(v float64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return v
}

func anyOf(rows []bench.Sample, f func(bench.Sample) bool) bool {
	for _, s := range rows {
		if f(s) {
			return true
		}
	}
	return false
}

func secondsAt(v float64) string {
	if v >= 120 {
		return fmt.Sprintf("%d:%02d min", int(v)/60, int(v)%60)
	}
	return fmt.Sprintf("%.0f s", v)
}
