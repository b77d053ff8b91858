package local

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daisi/daisi-ws/bench"
)

const defaults = ""

// costs gives each value's runs a CPU a delivery, in turn; each takes a second.
func costs(t *testing.T, list map[string][]float64) func(context.Context, ...string) (*bench.Report, error) {
	t.Helper()
	return func(ctx context.Context, env ...string) (*bench.Report, error) {
		r, key := new(bench.Report), strings.Join(env, " ")
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			r.Exit, r.Interrupted = bench.ExitError, true
			return r, nil
		}
		if len(list[key]) == 0 {
			t.Errorf("one run of %q too many", key)
			return r, nil
		}
		if list[key][0] < 0 {
			r.Exit = bench.ExitGenerator
		}
		r.Add(tuneFigure, max(list[key][0], -list[key][0]), "s", "")
		list[key] = list[key][1:]
		return r, nil
	}
}

var gogc = []Knob{{"GOGC", "100", []string{"200"}}}

func tried(t *testing.T, o TuneOptions) (string, error) {
	t.Helper()
	list, err := Tune(t.Context(), o)
	if len(list) == 0 {
		return "", err
	}
	var b bytes.Buffer
	if err := WriteTried(&b, list); err != nil {
		t.Fatal(err)
	}
	return b.String(), err
}

func TestTuneSuccess(t *testing.T) {
	f := func(want string, def, other []float64) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			o := TuneOptions{Programs: programs, Knobs: gogc, Runs: len(def), measure: costs(t, map[string][]float64{defaults: def, "GOGC=200": other})}
			text, err := tried(t, o)
			if err != nil || !strings.Contains(text, want) || !strings.Contains(text, "100 (default)") {
				t.Errorf("error %v, no %q in\n%s", err, want, text)
			}
		})
	}
	f("GOGC=200  every run of it costs less than every run of the default, which chance does in one sweep of 10:", []float64{9, 9.1, 9.2}, []float64{7, 7.1, 7.2})
	f("in one sweep of 126:", []float64{9, 9, 9, 9, 9}, []float64{7, 7, 7, 7, 7})
	f("GOGC=100  200 is not apart", []float64{9, 9.1, 9.2}, []float64{7, 7.1, 9.05})
	f("GOGC=100  200 gains 2 %", []float64{9, 9.1, 9.2}, []float64{8.95, 8.96, 8.97})
	f("GOGC=100  the default", []float64{7, 7, 7}, []float64{9, 9, 9})
}

// A sweep ends within its time, with the rounds that were whole; a run that the
// generator could not keep up with is repeated once, and then marked.
func TestTuneEnds(t *testing.T) {
	f := func(limit time.Duration, wantRuns, wantErr string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			def := []float64{9, -9, 9, -9, -9, 9, 9, 9}
			measure := costs(t, map[string][]float64{defaults: def, "GOGC=200": {7, 7, 7, 7, 7}})
			text, err := tried(t, TuneOptions{Programs: programs, Knobs: gogc, For: limit, measure: measure})
			if took := time.Since(began); took > limit {
				t.Errorf("took %v of %v", took, limit)
			}
			if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
				t.Errorf("error %v, want %q", err, wantErr)
			}
			if !strings.Contains(strings.Join(strings.Fields(text), " "), wantRuns) {
				t.Errorf("no %q in\n%s", wantRuns, text)
			}
		})
	}
	f(time.Minute, "100 (default) 9.00 s 9.00 s 9.00 s 0 0 B 5 1", "")
	f(10*time.Second, "0 B 3 1", "")
	f(5500*time.Millisecond, "0 B 2 0", "2 rounds within")
	f(5500*time.Millisecond, "best GOGC=100 2 runs of each are too few", "2 rounds within")
	f(time.Second, "", "0 rounds within")
}

func TestTuneFailure(t *testing.T) {
	planted := errors.New("planted")
	f := func(want string, measure func(context.Context, ...string) (*bench.Report, error)) {
		t.Helper()
		o := TuneOptions{Programs: programs, Knobs: Knobs(2), measure: measure}
		if _, err := Tune(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	f("planted", func(context.Context, ...string) (*bench.Report, error) { return nil, planted })
	f("PROMISE", func(context.Context, ...string) (*bench.Report, error) {
		return &bench.Report{Exit: bench.ExitBroken, Result: bench.ExitBroken.String()}, nil
	})
	f("no CPU", func(context.Context, ...string) (*bench.Report, error) { return new(bench.Report), nil })
}

// The real thing, once: the setting reaches the gateway, and its runs are whole.
func TestTuneRuns(t *testing.T) {
	t.Parallel()
	o := TuneOptions{Programs: programs, Runs: 1, Knobs: []Knob{{Name: "GOMAXPROCS", Default: "1"}}}
	o.Sessions, o.Agents, o.Rate, o.Duration, o.Settle, o.Warmup = 40, 4, 100, 300*time.Millisecond, 10*time.Millisecond, -1
	list, err := Tune(t.Context(), o)
	if err != nil || len(list) != 1 || list[0].CPU <= 0 || list[0].P99 <= 0 || list[0].RSS < 1<<20 {
		t.Errorf("error %v, %+v", err, list)
	}
}
