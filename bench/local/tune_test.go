package local

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
)

// costs gives each value's runs a CPU a delivery, in turn.
func costs(t *testing.T, list map[string][]float64) func(context.Context, string) (*bench.Report, error) {
	t.Helper()
	return func(_ context.Context, env string) (*bench.Report, error) {
		r := new(bench.Report)
		r.Add(tuneFigure, list[env][0], "s", "")
		list[env] = list[env][1:]
		return r, nil
	}
}

func TestTuneSuccess(t *testing.T) {
	f := func(want string, def, other []float64) {
		t.Helper()
		o := TuneOptions{Programs: programs, Knobs: []Knob{{"GOGC", []string{"100", "200"}}}, Runs: len(def), measure: costs(t, map[string][]float64{"GOGC=100": def, "GOGC=200": other})}
		list, err := Tune(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := WriteTried(&b, list); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) || !strings.Contains(b.String(), "100 (default)") {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
	f("GOGC=200  every run", []float64{9, 9.1, 9.2}, []float64{7, 7.1, 7.2})
	f("GOGC=100  200 is not apart", []float64{9, 9.1, 9.2}, []float64{7, 7.1, 9.05})
	f("GOGC=100  200 gains 2 %", []float64{9, 9.1, 9.2}, []float64{8.95, 8.96, 8.97})
	f("GOGC=100  the default", []float64{7, 7, 7}, []float64{9, 9, 9})
}

func TestTuneFailure(t *testing.T) {
	planted := errors.New("planted")
	f := func(want string, measure func(context.Context, string) (*bench.Report, error)) {
		t.Helper()
		o := TuneOptions{Programs: programs, Knobs: Knobs(2), measure: measure}
		if _, err := Tune(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	f("planted", func(context.Context, string) (*bench.Report, error) { return nil, planted })
	f("PROMISE", func(context.Context, string) (*bench.Report, error) {
		return &bench.Report{Exit: bench.ExitBroken, Result: bench.ExitBroken.String()}, nil
	})
	f("no CPU", func(context.Context, string) (*bench.Report, error) { return new(bench.Report), nil })
}

// The real thing, once: the setting reaches the gateway, and its runs are whole.
func TestTuneRuns(t *testing.T) {
	o := TuneOptions{Programs: programs, Runs: 1, Knobs: []Knob{{"GOMAXPROCS", []string{"1"}}}}
	o.Sessions, o.Agents, o.Rate, o.Duration, o.Settle = 40, 4, 100, 500*time.Millisecond, 10*time.Millisecond
	list, err := Tune(t.Context(), o)
	if err != nil && !strings.Contains(err.Error(), "bottleneck") { // a busy machine
		t.Fatal(err)
	}
	if err == nil && (len(list) != 1 || list[0].CPU <= 0 || list[0].P99 <= 0 || list[0].RSS < 1<<20) {
		t.Errorf("%+v", list)
	}
}
