package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// Schema names the layout of a Report as JSON. It changes with any field that
// changes its meaning or goes; fields may be added.
const Schema = "daisi-bench/1"

// Exit is the exit code of a run.
type Exit int

// Exit codes, the first that applies from the bottom up wins but for ExitError,
// which yields to ExitBroken: a broken promise is never hidden by a crash.
const (
	ExitPass      Exit = 0
	ExitError     Exit = 1
	ExitThreshold Exit = 2
	ExitBroken    Exit = 3 // a promise was broken
	ExitGenerator Exit = 4 // the generator was the bottleneck: the result is void
)

func (e Exit) String() string {
	switch e {
	case ExitPass:
		return "pass"
	case ExitThreshold:
		return "threshold missed"
	case ExitBroken:
		return "PROMISE BROKEN"
	case ExitGenerator:
		return "void: the generator was the bottleneck"
	default:
		return "error"
	}
}

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
// p99.9|p99.99|max|mean|count>".
func (r *Report) Figure(name string) (float64, bool) {
	for _, f := range r.Figures {
		if f.Name == name {
			return f.Value, true
		}
	}
	if r.Oracle != nil {
		if n, ok := r.Oracle.Breaches[name]; ok {
			return float64(n), true
		}
	}
	for l, v := range r.Latencies {
		for _, p := range v.points() {
			if name == l+"."+p.name {
				return p.value, true
			}
		}
	}
	return 0, false
}

type point struct {
	name  string
	value float64
}

func (l Latency) points() []point {
	return []point{
		{"p50", l.P50},
		{"p90", l.P90},
		{"p99", l.P99},
		{"p99.9", l.P999},
		{"p99.99", l.P9999},
		{"max", l.Max},
		{"mean", l.Mean},
		{"min", l.Min},
		{"count", float64(l.Count)},
	}
}

// Add appends a figure; a unit of "" is a count or a share.
func (r *Report) Add(name string, value float64, unit, note string) {
	r.Figures = append(r.Figures, Figure{name, value, unit, note})
}

// fail notes an error that the run survived, or ended with.
func (r *Report) fail(err error) {
	if err != nil {
		r.Errors = append(r.Errors, err.Error())
	}
}

// judge checks thresholds and decides the exit code.
func (r *Report) judge(thresholds []Threshold) {
	missed := false
	for _, t := range thresholds {
		v, ok := r.Figure(t.Figure)
		if !ok {
			r.fail(fmt.Errorf("check threshold %q: this run has no figure of that name", t.Text))
			continue
		}
		t.check(v)
		missed = missed || !t.OK
		r.Thresholds = append(r.Thresholds, t)
	}
	switch {
	case r.Oracle != nil && r.Oracle.Broken():
		r.Exit = ExitBroken
	case len(r.Errors) > 0 || r.Interrupted:
		r.Exit = ExitError
	case r.Generator.Bottleneck != "":
		r.Exit = ExitGenerator
	case missed:
		r.Exit = ExitThreshold
	default:
		r.Exit = ExitPass
	}
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
