package bench

import "testing"

func TestExitWorse(t *testing.T) {
	// The gravest first.
	order := []Exit{ExitBroken, ExitError, ExitGenerator, ExitThreshold, ExitPass}
	for i, a := range order {
		for j, b := range order {
			if got, want := a.Worse(b), order[min(i, j)]; got != want {
				t.Errorf("%d and %d come to %d, want %d", a, b, got, want)
			}
		}
	}
	if got := Exit(77).Worse(99); got != ExitError {
		t.Errorf("unknown codes come to %d", got)
	}
}

// Every combination of findings comes to the gravest of them.
func TestVerdict(t *testing.T) {
	for n := range 32 {
		r := &Report{Oracle: &Verdict{Breaches: map[string]int64{"lost": int64(n & 1)}}, Thresholds: []Threshold{{OK: true}, {OK: n&2 == 0}}}
		want := ExitPass
		if n&2 != 0 {
			want = ExitThreshold
		}
		if n&4 != 0 {
			r.Generator.Bottleneck, want = "planted", ExitGenerator
		}
		if n&8 != 0 {
			r.Errors, want = []string{"planted"}, ExitError
		}
		if n&16 != 0 {
			r.Interrupted, want = true, ExitError
		}
		if n&1 != 0 {
			want = ExitBroken
		}
		if got := r.verdict(); got != want {
			t.Errorf("%05b: exit %d, want %d", n, got, want)
		}
	}
	if got := new(Report).verdict(); got != ExitPass {
		t.Errorf("an empty report: %d", got)
	}
}
