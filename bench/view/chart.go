package view

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"

	"github.com/daisi/daisi-ws/bench"
)

// chart is one picture: lines over a common x.
type chart struct {
	Title, Note string
	unit        string // of y, as in bench.Figure
	x           []float64
	xText       func(float64) string
	xTicks      []float64 // nil: chosen
	lines       []line
	log         bool // y in powers of ten
}

// line is one series; NaN is a hole.
type line struct {
	name   string
	y      []float64
	kind   int  // colour and dashes
	area   bool // filled down to the axis
	sparse bool // holes are between readings: points are joined over them
}

// The picture in its own units; it scales with the page.
const (
	chartW, chartH         = 720.0, 250.0
	chartL, chartR         = 70.0, 30.0
	chartT, chartB         = 12.0, 30.0
	maxPoints              = 600 // more are joined, by their highest
	kinds                  = 4
	plotW, plotH   float64 = chartW - chartL - chartR, chartH - chartT - chartB
)

// Empty says that there is nothing to draw.
func (c *chart) Empty() bool {
	for _, l := range c.lines {
		for _, v := range l.y {
			if !math.IsNaN(v) {
				return false
			}
		}
	}
	return true
}

// thin joins points when there are too many, and says of how many each is made.
func (c *chart) thin() int {
	n := (len(c.x) + maxPoints - 1) / maxPoints
	if n <= 1 {
		return 1
	}
	join := func(list []float64, pick func(a, b float64) float64) (out []float64) {
		for i, v := range list {
			if i%n == 0 {
				out = append(out, v)
			} else {
				out[len(out)-1] = pick(out[len(out)-1], v)
			}
		}
		return out
	}
	c.x = join(c.x, func(a, _ float64) float64 { return a })
	for i := range c.lines {
		c.lines[i].y = join(c.lines[i].y, func(a, b float64) float64 {
			if math.IsNaN(a) || b > a {
				return b
			}
			return a
		})
	}
	return n
}

// SVG draws it.
func (c *chart) SVG() template.HTML {
	joined := c.thin()
	s := c.scales()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartW, chartH, html.EscapeString(c.describe()))
	for _, t := range s.ticks {
		y := s.y(t)
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="tick" x="%g" y="%.1f" text-anchor="end">%s</text>`,
			chartL, chartW-chartR, y, y, chartL-8, y+4, html.EscapeString(c.tick(t)))
	}
	for _, t := range s.xTicks {
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%g" text-anchor="middle">%s</text>`, s.x(t), chartH-10, html.EscapeString(c.xText(t)))
	}
	for _, l := range c.lines {
		b.WriteString(l.path(c.x, s))
	}
	b.WriteString(`<line class="cursor" y1="12" y2="220" x1="-9" x2="-9"/></svg>`)
	if joined > 1 {
		fmt.Fprintf(&b, `<p class="note">Each point is the highest of %d.</p>`, joined)
	}
	return template.HTML(b.String()) //nolint:gosec // everything from outside was escaped
}

// path draws one line; a point between two holes becomes a dot.
func (l *line) path(x []float64, s *scales) string {
	var d, dots, area strings.Builder
	x, y := l.points(x)
	open, first := false, 0.0
	closeArea := func(last float64) {
		if l.area && open {
			fmt.Fprintf(&area, "L%.1f %.1fL%.1f %.1fZ", last, s.y(s.low), first, s.y(s.low))
		}
	}
	hole := func(j int) bool { return j < 0 || j >= len(y) || math.IsNaN(y[j]) }
	for i, v := range y {
		if hole(i) {
			continue
		}
		px, py := s.x(x[i]), s.y(v)
		switch {
		case hole(i-1) && hole(i+1):
			fmt.Fprintf(&dots, `<circle class="dot k%d" cx="%.1f" cy="%.1f" r="2.5"/>`, l.kind, px, py)
			continue
		case hole(i - 1):
			open, first = true, px
			fmt.Fprintf(&d, "M%.1f %.1f", px, py)
			fmt.Fprintf(&area, "M%.1f %.1f", px, py)
		default:
			fmt.Fprintf(&d, "L%.1f %.1f", px, py)
			fmt.Fprintf(&area, "L%.1f %.1f", px, py)
		}
		if hole(i + 1) {
			closeArea(px)
			open = false
		}
	}
	out := dots.String()
	if l.area && area.Len() > 0 {
		out += fmt.Sprintf(`<path class="area k%d" d="%s"/>`, l.kind, area.String())
	}
	if d.Len() > 0 {
		out += fmt.Sprintf(`<path class="line k%d" d="%s"/>`, l.kind, d.String())
	}
	return out
}

// points are what is drawn of a line.
func (l *line) points(x []float64) (px, py []float64) {
	if !l.sparse {
		return x, l.y
	}
	for i, v := range l.y {
		if !math.IsNaN(v) {
			px, py = append(px, x[i]), append(py, v)
		}
	}
	return px, py
}

// Legend names the lines.
func (c *chart) Legend() []legend {
	var list []legend
	for _, l := range c.lines {
		list = append(list, legend{l.kind, l.name, c.text(highest(l.y))})
	}
	return list
}

type legend struct {
	Kind      int
	Name, Max string
}

// describe is what a reader who does not see the picture is told.
func (c *chart) describe() string {
	parts := []string{c.Title}
	for _, l := range c.lines {
		parts = append(parts, fmt.Sprintf("%s: up to %s", l.name, c.text(highest(l.y))))
	}
	return strings.Join(parts, "; ")
}

// Points is what the page's script shows under the pointer: texts by line.
func (c *chart) Points() map[string]any {
	s := c.scales()
	at := make([]float64, len(c.x))
	label := make([]string, len(c.x))
	texts := make([][]string, len(c.lines))
	for i, x := range c.x {
		at[i], label[i] = math.Round(s.x(x)*10)/10, c.xText(x)
	}
	names := make([]string, len(c.lines))
	for k, l := range c.lines {
		names[k] = l.name
		for _, v := range l.y {
			text := "–"
			if !math.IsNaN(v) {
				text = c.text(v)
			}
			texts[k] = append(texts[k], text)
		}
	}
	return map[string]any{"at": at, "label": label, "names": names, "texts": texts}
}

func (c *chart) text(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return bench.Quantity(v, c.unit)
}

// tick is a value at the axis: the unit of rates is in the title.
func (c *chart) tick(v float64) string {
	unit := c.unit
	if unit == "1/s" {
		unit = "" // the title says it
	}
	number, unit, _ := strings.Cut(bench.Quantity(v, unit), " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return strings.TrimSpace(number + " " + unit)
}

func highest(list []float64) float64 {
	top := math.NaN()
	for _, v := range list {
		if math.IsNaN(top) || v > top {
			top = v
		}
	}
	return top
}
