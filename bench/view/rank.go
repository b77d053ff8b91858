package view

import (
	"math"
	"slices"
)

// mannWhitney says how likely two samples differ so much by chance alone (p,
// two-sided), and by how much they do: delta is the share of pairs in which b is
// the larger less that in which it is the smaller, -1 to 1 (Cliff's delta).
// Exact without ties for up to 20 each; else the normal approximation with
// corrections for ties and continuity (Mann and Whitney 1947).
func mannWhitney(a, b []float64) (p, delta float64) {
	n, m := len(a), len(b)
	if n == 0 || m == 0 {
		return 1, 0
	}
	u, ties := 0.0, false // pairs in which b is larger, ties half
	for _, x := range a {
		for _, y := range b {
			switch {
			case y > x:
				u++
			case y == x:
				u += 0.5
				ties = true
			}
		}
	}
	delta = 2*u/float64(n*m) - 1
	ties = ties || repeats(a) || repeats(b)
	if !ties && n <= 20 && m <= 20 {
		return exactP(int(u), n, m), delta
	}
	return normalP(u, a, b), delta
}

func repeats(list []float64) bool {
	sorted := slices.Sorted(slices.Values(list))
	return len(slices.Compact(sorted)) < len(list)
}

// exactP counts, of all ways to rank n and m values, those at least as extreme.
func exactP(u, n, m int) float64 {
	// ways[k][v]: ways in which k of the values seen so far are b's, with U = v.
	ways := make([][]float64, m+1)
	for k := range ways {
		ways[k] = make([]float64, n*m+1)
	}
	ways[0][0] = 1
	for place := range n + m {
		// Placing a b behind place values, k of them b's, adds place-k to U.
		for k := min(place, m-1); k >= 0; k-- {
			below := place - k
			if below > n {
				continue
			}
			for v := n*m - below; v >= 0; v-- {
				ways[k+1][v+below] += ways[k][v]
			}
		}
	}
	// The loop above counts every subset of places for b's, whatever stays is a's.
	total, low, high := 0.0, 0.0, 0.0
	for v, w := range ways[m] {
		total += w
		if v <= u {
			low += w
		}
		if v >= u {
			high += w
		}
	}
	return min(1, 2*min(low, high)/total)
}

func normalP(u float64, a, b []float64) float64 {
	n, m := float64(len(a)), float64(len(b))
	all := slices.Sorted(slices.Values(slices.Concat(a, b)))
	tied := 0.0
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j] == all[i] {
			j++
		}
		t := float64(j - i)
		tied += t*t*t - t
		i = j
	}
	variance := n * m / 12 * (n + m + 1 - tied/((n+m)*(n+m-1)))
	if variance <= 0 {
		return 1
	}
	z := max(0, math.Abs(u-n*m/2)-0.5) / math.Sqrt(variance)
	return math.Erfc(z / math.Sqrt2)
}

func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	if len(s) == 0 {
		return math.NaN()
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
