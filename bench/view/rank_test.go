package view

import (
	"math"
	"slices"
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
	// Two that are equal on one side make none of the rankings less extreme.
	f([]float64{1, 2, 3, 4, 4}, []float64{6, 7, 8, 9, 10}, 2.0/252, 1)
	f([]float64{1, 1, 1, 1, 1}, []float64{2, 2, 2, 2, 2}, 2.0/252, 1)
	// Across the sides there are two ways to be so extreme, in either direction.
	f([]float64{1, 2, 3, 4, 5}, []float64{5, 7, 8, 9, 10}, 4.0/252, 0.96)
	f(nil, []float64{1}, 1, 0)
}

// p is that of counting all ways to deal the values out one by one, ties too.
func TestExactP(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.SliceOfN(rapid.Float64Range(0, 6), 1, 5)
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		for _, list := range [][]float64{a, b} {
			for i := range list {
				list[i] = math.Floor(list[i])
			}
		}
		all := slices.Concat(a, b)
		pairs := func(set int) (u float64, bs int) { // set has a bit for each that is b's
			for i, x := range all {
				for j, y := range all {
					if set>>i&1 == 0 && set>>j&1 == 1 {
						if y > x {
							u++
						} else if y == x {
							u += 0.5
						}
					}
				}
				bs += set >> i & 1
			}
			return u, bs
		}
		u, _ := pairs((1<<len(b) - 1) << len(a))
		low, high, total := 0.0, 0.0, 0.0
		for set := range 1 << len(all) {
			v, bs := pairs(set)
			if bs != len(b) {
				continue
			}
			total++
			if v <= u {
				low++
			}
			if v >= u {
				high++
			}
		}
		if got, want := exactP(u, a, b), min(1, 2*min(low, high)/total); math.Abs(got-want) > 1e-12 {
			t.Fatalf("U %v: p %v, want %v", u, got, want)
		}
	})
}

// Beyond the numbers that are counted, both ways say about the same.
func TestNormalP(t *testing.T) {
	var a, b []float64
	for i := range exactMost {
		a, b = append(a, float64(i%7)), append(b, float64(i%7)+1)
	}
	p, _ := mannWhitney(a, b)
	u := 0.0
	for _, x := range a {
		for _, y := range b {
			if y > x {
				u++
			} else if y == x {
				u += 0.5
			}
		}
	}
	if n := normalP(u, a, b); math.Abs(n-p) > 0.005 || p > 0.5 {
		t.Errorf("approximated %v, counted %v", n, p)
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
