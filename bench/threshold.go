package bench

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/daisi/daisi-ws/cmd/nearest"
)

// Threshold is a figure's limit, and, after a run, whether it was kept.
type Threshold struct {
	Figure string  `json:"figure"`
	Op     string  `json:"op"`
	Limit  float64 `json:"limit"` // in the figure's unit
	Value  float64 `json:"value"`
	OK     bool    `json:"ok"`
	Text   string  `json:"text"` // as written
	Unit   string  `json:"unit"` // of the limit as written: "s", "B", "1/s", "%" (of 1), or "" for a plain number
}

// thresholdUnits turn what people write into the units of figures: seconds,
// bytes, shares.
var thresholdUnits = []struct {
	suffix string
	factor float64
	unit   string
}{
	{"ns", 1e-9, "s"},
	{"us", 1e-6, "s"},
	{"µs", 1e-6, "s"},
	{"ms", 1e-3, "s"},
	{"min", 60, "s"},
	{"/s", 1, "1/s"},
	{"s", 1, "s"},
	{"KiB", 1 << 10, "B"},
	{"MiB", 1 << 20, "B"},
	{"GiB", 1 << 30, "B"},
	{"kB", 1e3, "B"},
	{"KB", 1e3, "B"},
	{"MB", 1e6, "B"},
	{"GB", 1e9, "B"},
	{"B", 1, "B"},
	{"%", 1e-2, "%"},
}

// parseThresholds reads "figure op value[unit]" separated by commas; op is one
// of == != < <= > >=.
func parseThresholds(s string) (list []Threshold, err error) {
	for _, text := range strings.Split(s, ",") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		at := strings.IndexAny(text, "=!<>")
		if at <= 0 {
			return nil, fmt.Errorf("read threshold %q: want figure, one of == != < <= > >=, value", text)
		}
		end := at + 1
		if end < len(text) && text[end] == '=' {
			end++
		}
		t := Threshold{Figure: strings.TrimSpace(text[:at]), Op: text[at:end], Text: text}
		if t.Op == "=" || t.Op == "!" {
			return nil, fmt.Errorf("read threshold %q: operator %q is none of == != < <= > >=", text, t.Op)
		}
		if t.Limit, t.Unit, err = parseQuantity(strings.TrimSpace(text[end:])); err != nil {
			return nil, fmt.Errorf("read threshold %q: %w", text, err)
		}
		if err := t.checkPoint(); err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// checkPoint says before the run that a latency has no such point.
func (t *Threshold) checkPoint() error {
	_, word, ok := strings.Cut(t.Figure, ".")
	if _, point := splitPoint(t.Figure); !ok || point != "" {
		return nil
	}
	var known []string
	for _, p := range (Latency{}).points() {
		known = append(known, p.name)
	}
	return fmt.Errorf("read threshold %q: a latency has no %q, but %s", t.Text, word, strings.Join(known, ", "))
}

func parseQuantity(s string) (value float64, unit string, err error) {
	factor := 1.0
	for _, u := range thresholdUnits {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			s, factor, unit = strings.TrimSpace(n), u.factor, u.unit
			break
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) {
		return 0, "", fmt.Errorf("value %q is no number, with or without a unit: ns us ms s min, B KiB MiB GiB kB MB GB, /s, %%", s)
	}
	return v * factor, unit, nil
}

var errNoFigure = errors.New("this run has no figure")

// check looks the figure up and compares. Errors: no such figure; a limit in
// another unit than the figure's. A plain number is taken in the figure's unit.
func (r *Report) check(t *Threshold) error {
	v, unit, ok := r.figure(t.Figure)
	switch {
	case !ok:
		return fmt.Errorf("check threshold %q: %w %q; the nearest it has: %s", t.Text, errNoFigure, t.Figure, strings.Join(nearest.Names(t.Figure, r.Names(), 3), ", "))
	case t.Unit != "" && t.Unit != unit && (t.Unit != "%" || unit != ""):
		return fmt.Errorf("check threshold %q: the limit is in %s, but %s is %s", t.Text, unitWord(t.Unit), t.Figure, unitWord(unit))
	}
	t.check(v)
	return nil
}

func unitWord(unit string) string {
	switch unit {
	case "s":
		return "seconds"
	case "B":
		return "bytes"
	case "1/s":
		return "a rate a second"
	case "%":
		return "a share"
	default:
		return "a plain number"
	}
}

// check compares with the figure's value.
func (t *Threshold) check(value float64) {
	t.Value = value
	switch t.Op {
	case "==":
		t.OK = value == t.Limit
	case "!=":
		t.OK = value != t.Limit
	case "<":
		t.OK = value < t.Limit
	case "<=":
		t.OK = value <= t.Limit
	case ">":
		t.OK = value > t.Limit
	case ">=":
		t.OK = value >= t.Limit
	}
}
