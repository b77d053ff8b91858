package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// Schema names the layout of a Report as JSON. It changes with any field that
// changes its meaning or goes; fields may be added.
const Schema = "daisi-bench/1"

// Figure is one named number of a report, in seconds, bytes, or a plain count
// or share: what thresholds and comparisons use.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"` // "s", "B", "1/s" or ""
	Note  string  `json:"note,omitempty"`
}

// Report is all that a run found. Made by Run, read only afterwards.
type Report struct {
	Schema      string             `json:"schema"`
	Scenario    string             `json:"scenario"`
	Exit        Exit               `json:"exit"`
	Result      string             `json:"result"`
	Started     time.Time          `json:"started"`
	Seconds     float64            `json:"seconds"`
	Interrupted bool               `json:"interrupted,omitempty"`
	Run         string             `json:"run"` // mark of the run, hex
	Seed        uint64             `json:"seed"`
	Commit      string             `json:"commit"`
	Machine     Machine            `json:"machine"`
	Options     any                `json:"options"`
	Errors      []string           `json:"errors,omitempty"`
	Figures     []Figure           `json:"figures"`
	Thresholds  []Threshold        `json:"thresholds,omitempty"`
	Latencies   map[string]Latency `json:"latencies"` // seconds; X from the due instant, X_raw from the sending
	Logins      *LoginStats        `json:"logins,omitempty"`
	Closes      map[string]int64   `json:"closes,omitempty"`       // ends not begun here, by close code
	ErrorFrames map[string]int64   `json:"error_frames,omitempty"` // by code
	Counts      map[string]int64   `json:"counts,omitempty"`       // of the clients, summed over workers
	Workers     []Worker           `json:"workers,omitempty"`      // processes that bore the load, if others did
	Oracle      *Verdict           `json:"oracle,omitempty"`
	Usage       map[string]Usage   `json:"usage,omitempty"` // by phase
	Slabs       map[string]int64   `json:"slabs,omitempty"` // bytes gained by slab cache, machine-wide
	Server      []Change           `json:"server,omitempty"`
	Generator   Generator          `json:"generator"`
	Parts       []*Report          `json:"parts,omitempty"` // of a set of runs
	Samples     []Sample           `json:"samples,omitempty"`
}

// Figure gives the value of a figure, a breach, or "<latency>.<p50|p90|p99|
// p99.9|p99.99|max|mean|min|count>".
func (r *Report) Figure(name string) (float64, bool) {
	v, _, ok := r.figure(name)
	return v, ok
}

// Unit of what Figure gives: "s", "B", "1/s" or "".
func (r *Report) Unit(name string) string {
	_, unit, _ := r.figure(name)
	return unit
}

func (r *Report) figure(name string) (value float64, unit string, ok bool) {
	for _, f := range r.Figures {
		if f.Name == name {
			return f.Value, f.Unit, true
		}
	}
	if r.Oracle != nil {
		if n, ok := r.Oracle.Breaches[name]; ok {
			return float64(n), "", true
		}
	}
	l, point := splitPoint(name)
	for _, p := range r.Latencies[l].points() {
		if p.name == point && r.Latencies[l].Count > 0 {
			return p.value, p.unit, true
		}
	}
	return 0, "", false
}

// Names lists all that Figure knows in this report, sorted.
func (r *Report) Names() (list []string) {
	for _, f := range r.Figures {
		list = append(list, f.Name)
	}
	if r.Oracle != nil {
		list = slices.AppendSeq(list, maps.Keys(r.Oracle.Breaches))
	}
	for l, v := range r.Latencies {
		for _, p := range v.points() {
			list = append(list, l+"."+p.name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// splitPoint cuts the point off the name of one: "storm.delivery.p99.9" is p99.9
// of storm.delivery. An empty point: it is none.
func splitPoint(name string) (latency, point string) {
	for _, p := range (Latency{}).points() {
		if l, ok := strings.CutSuffix(name, "."+p.name); ok {
			return l, p.name
		}
	}
	return name, ""
}

// isPoint says whether latencies have a point of this name.
func isPoint(name string) bool {
	return slices.ContainsFunc((Latency{}).points(), func(p point) bool { return p.name == name })
}

type point struct {
	name  string
	value float64
	unit  string
}

func (l Latency) points() []point {
	return []point{
		{"p50", l.P50, "s"},
		{"p90", l.P90, "s"},
		{"p99", l.P99, "s"},
		{"p99.9", l.P999, "s"},
		{"p99.99", l.P9999, "s"},
		{"max", l.Max, "s"},
		{"mean", l.Mean, "s"},
		{"min", l.Min, "s"},
		{"count", float64(l.Count), ""},
	}
}

// Add appends a figure; a unit of "" is a count or a share.
func (r *Report) Add(name string, value float64, unit, note string) {
	r.Figures = append(r.Figures, Figure{name, value, unit, note})
}

// fail notes an error that the run survived, or ended with.
func (r *Report) fail(err error) {
	if err != nil {
		r.Errors = append(r.Errors, Redacted(err.Error()))
	}
}

// judge checks thresholds and decides the exit code.
func (r *Report) judge(thresholds []Threshold) {
	cut := len(r.Errors) > 0 || r.Interrupted
	for _, t := range thresholds {
		err := r.check(&t)
		if cut && errors.Is(err, errNoFigure) {
			continue // it did not come to that, and why is said already
		}
		if err != nil {
			r.fail(err)
			continue
		}
		r.Thresholds = append(r.Thresholds, t)
	}
	r.Exit = r.verdict()
	r.Result = r.Exit.String()
}

// WriteJSON writes the report as indented JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WriteFile writes the report as JSON to a file.
func (r *Report) WriteFile(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := r.WriteJSON(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
