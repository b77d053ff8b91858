package view

import (
	"math"
	"slices"
)

// exactMost is how many values each sample may have for its p to be counted.
const exactMost = 20

// mannWhitney says how likely two samples differ so much by chance alone (p,
// two-sided), and by how much they do: delta is the share of pairs in which b is
// the larger less that in which it is the smaller, -1 to 1 (Cliff's delta).
// Exact for up to exactMost each, given the ties there are; else the normal
// approximation with corrections for ties and continuity (Mann and Whitney 1947),
// by which five runs of which two are equal never differ at 1 %.
func mannWhitney(a, b []float64) (p, delta float64) {
	n, m := len(a), len(b)
	if n == 0 || m == 0 {
		return 1, 0
	}
	u := 0.0 // pairs in which b is larger, ties half
	for _, x := range a {
		for _, y := range b {
			switch {
			case y > x:
				u++
			case y == x:
				u += 0.5
			}
		}
	}
	delta = 2*u/float64(n*m) - 1
	if n <= exactMost && m <= exactMost {
		return exactP(u, a, b), delta
	}
	return normalP(u, a, b), delta
}

// exactP counts, of all ways to deal the values out to a and b, those at least
// as extreme as U = u. Pairs count double, so that those of equals are whole.
func exactP(u float64, a, b []float64) float64 {
	all := slices.Sorted(slices.Values(slices.Concat(a, b)))
	m, most := len(b), 2*len(a)*len(b)
	// ways[k][v]: ways in which k of the values seen so far are b's, with 2U = v.
	ways := make([][]float64, m+1)
	for k := range ways {
		ways[k] = make([]float64, most+1)
	}
	ways[0][0] = 1
	for i := 0; i < len(all); {
		equal := 1
		for i+equal < len(all) && all[i+equal] == all[i] {
			equal++
		}
		ways = deal(ways, len(a), i, equal)
		i += equal
	}
	total, low, high := 0.0, 0.0, 0.0
	for v, w := range ways[m] {
		total += w
		if v <= int(2*u) {
			low += w
		}
		if v >= int(2*u) {
			high += w
		}
	}
	return min(1, 2*min(low, high)/total)
}

// deal gives out the next equal values, above seen others; n are a's in all.
func deal(ways [][]float64, n, seen, equal int) [][]float64 {
	next := make([][]float64, len(ways))
	for k := range next {
		next[k] = make([]float64, len(ways[k]))
	}
	for k, row := range ways {
		below := seen - k // a's among those seen
		for more := 0; more <= equal && k+more < len(ways); more++ {
			if below < 0 || below+equal-more > n {
				continue
			}
			gain := more * (2*below + equal - more)
			for v, w := range row {
				if w > 0 {
					next[k+more][v+gain] += w * choose(equal, more)
				}
			}
		}
	}
	return next
}

// choose is in how many ways k of n are chosen.
func choose(n, k int) float64 {
	ways := 1.0
	for i := range k {
		ways = ways * float64(n-i) / float64(i+1)
	}
	return ways
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
