package view

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestMannWhitney(t *testing.T) {
	f := func(a, b []float64, wantP, wantDelta float64) {
		t.Helper()
		p, d := mannWhitney(a, b)
		if math.Abs(p-wantP) > 0.0005 || math.Abs(d-wantDelta) > 1e-9 {
			t.Errorf("%v and %v: p %.5f, delta %.3f; want %.5f, %.3f", a, b, p, d, wantP, wantDelta)
		}
	}
	// Two of C(10,5) = 252 rankings are as extreme.
	f([]float64{1, 2, 3, 4, 5}, []float64{6, 7, 8, 9, 10}, 2.0/252, 1)
	f([]float64{6, 7, 8, 9, 10}, []float64{1, 2, 3, 4, 5}, 2.0/252, -1)
	// scipy.stats.mannwhitneyu of the tortoise's and the hare's places: U = 11 and 25, p = 0.3095 (Wikipedia's example).
	f([]float64{1, 7, 8, 9, 10, 11}, []float64{2, 3, 4, 5, 6, 12}, 0.3095, -14.0/36)
	f([]float64{3, 3, 3}, []float64{3, 3, 3}, 1, 0)
	f(nil, []float64{1}, 1, 0)
}

// p is that of counting all rankings one by one.
func TestExactP(t *testing.T) {
	for n := 1; n <= 5; n++ {
		for m := 1; m <= 5; m++ {
			counts, total := make([]float64, n*m+1), 0.0
			for set := range 1 << (n + m) {
				u, below, bs := 0, 0, 0
				for i := range n + m {
					if set>>i&1 == 1 {
						u += below
						bs++
					} else {
						below++
					}
				}
				if bs == m {
					counts[u]++
					total++
				}
			}
			for u := range n*m + 1 {
				low, high := 0.0, 0.0
				for v, c := range counts {
					if v <= u {
						low += c
					}
					if v >= u {
						high += c
					}
				}
				if got, want := exactP(u, n, m), min(1, 2*min(low, high)/total); math.Abs(got-want) > 1e-12 {
					t.Fatalf("U %d of %d and %d: p %v, want %v", u, n, m, got, want)
				}
			}
		}
	}
}

func TestMannWhitneyInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.SliceOfN(rapid.Float64Range(-10, 10), 1, 30)
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		p, d := mannWhitney(a, b)
		back, e := mannWhitney(b, a)
		if p < 0 || p > 1 || math.Abs(p-back) > 1e-9 || math.Abs(d+e) > 1e-9 || math.Abs(d) > 1 {
			t.Fatalf("p %v and %v, delta %v and %v", p, back, d, e)
		}
	})
}

func TestMedian(t *testing.T) {
	if median([]float64{3, 1, 2}) != 2 || median([]float64{4, 1, 2, 3}) != 2.5 || !math.IsNaN(median(nil)) {
		t.Error("median")
	}
}
