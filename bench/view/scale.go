package view

import "math"

// scales turn values into places on the picture.
type scales struct {
	left, right   float64 // of x
	low, high     float64 // of y
	log           bool
	ticks, xTicks []float64
}

func (c *chart) scales() *scales {
	s := &scales{log: c.log}
	if len(c.x) > 0 {
		s.left, s.right = c.x[0], c.x[len(c.x)-1]
	}
	if s.right <= s.left {
		s.right = s.left + 1
	}
	least, most := math.Inf(1), math.Inf(-1)
	for _, l := range c.lines {
		for _, v := range l.y {
			if !math.IsNaN(v) && (v > 0 || !c.log) {
				least, most = min(least, v), max(most, v)
			}
		}
	}
	if c.log {
		s.powers(least, most)
	} else {
		s.steps(most, c.unit)
	}
	if s.xTicks = c.xTicks; s.xTicks == nil {
		for t, step := 0.0, niceStep(s.right-s.left, 8, 10); t <= s.right; t += step {
			if t >= s.left {
				s.xTicks = append(s.xTicks, t)
			}
		}
	}
	return s
}

// powers spans whole powers of ten.
func (s *scales) powers(least, most float64) {
	if math.IsInf(least, 0) {
		least, most = 1, 10
	}
	from, to := math.Floor(math.Log10(least)+1e-9), math.Ceil(math.Log10(most)-1e-9)
	if to <= from {
		to = from + 1
	}
	s.low, s.high = math.Pow(10, from), math.Pow(10, to)
	for e := from; e <= to; e++ {
		s.ticks = append(s.ticks, math.Pow(10, e))
	}
}

// steps begins at 0; bytes go in powers of two.
func (s *scales) steps(most float64, unit string) {
	if math.IsInf(most, 0) || most <= 0 {
		most = 1
	}
	base := 10.0
	if unit == "B" {
		base = 2
	}
	step := niceStep(most, 4, base)
	s.high = math.Ceil(most/step-1e-9) * step
	for i := 0; float64(i)*step <= s.high*(1+1e-9); i++ {
		s.ticks = append(s.ticks, float64(i)*step)
	}
}

// niceStep divides span into about n steps of 1, 2 or 5 times a power of base.
func niceStep(span float64, n int, base float64) float64 {
	raw := span / float64(n)
	if base == 2 {
		return math.Pow(2, math.Ceil(math.Log2(raw)))
	}
	p := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if raw <= m*p*(1+1e-9) {
			return m * p
		}
	}
	return 10 * p
}

func (s *scales) x(v float64) float64 { return chartL + (v-s.left)/(s.right-s.left)*plotW }

func (s *scales) y(v float64) float64 {
	share := 0.0
	if s.log {
		share = (math.Log10(max(v, s.low)) - math.Log10(s.low)) / (math.Log10(s.high) - math.Log10(s.low))
	} else {
		share = v / s.high
	}
	return chartT + plotH*(1-min(max(share, 0), 1))
}
