package bench

import (
	"fmt"
	"strconv"
	"strings"
)

// Threshold is a figure's limit, and, after a run, whether it was kept.
type Threshold struct {
	Figure string  `json:"figure"`
	Op     string  `json:"op"`
	Limit  float64 `json:"limit"` // in the figure's unit
	Value  float64 `json:"value"`
	OK     bool    `json:"ok"`
	Text   string  `json:"text"` // as written
}

// thresholdUnits turn what people write into the units of figures: seconds,
// bytes, shares.
var thresholdUnits = []struct {
	suffix string
	factor float64
}{
	{"ns", 1e-9},
	{"us", 1e-6},
	{"µs", 1e-6},
	{"ms", 1e-3},
	{"s", 1},
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"B", 1},
	{"%", 1e-2},
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
		if t.Limit, err = parseQuantity(strings.TrimSpace(text[end:])); err != nil {
			return nil, fmt.Errorf("read threshold %q: %w", text, err)
		}
		list = append(list, t)
	}
	return list, nil
}

func parseQuantity(s string) (float64, error) {
	factor := 1.0
	for _, u := range thresholdUnits {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			s, factor = strings.TrimSpace(n), u.factor
			break
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, fmt.Errorf("value %q is no number", s)
	}
	return v * factor, nil
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
