package view

import (
	"fmt"
	"io"
	"strings"

	"github.com/daisi/daisi-ws/bench"
)

// LiveOptions configures a Live.
type LiveOptions struct {
	Title string // of the run
	Width int    // columns of the terminal; 0: none, one plain line a sample
	Color bool   // with ANSI colours
}

// Live shows a run as it goes: a block that is drawn over itself in a terminal,
// one plain line a sample elsewhere. Show is called by one goroutine at a time.
type Live struct {
	opts LiveOptions
	out  io.Writer

	last   bench.Sample
	lines  int       // of the block on the screen
	rates  []float64 // deliveries a second, the latest at the end
	lately bench.Beat
	raw    bench.Beat
}

// NewLive shows on out.
func NewLive(out io.Writer, o LiveOptions) *Live { return &Live{opts: o, out: out} }

// Show draws a sample. What can't be written is not told: the report counts.
func (l *Live) Show(s bench.Sample) {
	if s.Delivery != nil {
		l.lately = *s.Delivery
	}
	if s.DeliveryRaw != nil {
		l.raw = *s.DeliveryRaw
	}
	if l.opts.Width <= 0 {
		fmt.Fprintln(l.out, l.plain(s))
	} else {
		l.draw(l.block(s))
	}
	l.last = s
}

// rate is a total's growth a second since the last sample.
func (l *Live) rate(now, before float64, s bench.Sample) float64 {
	if s.At <= l.last.At {
		return 0
	}
	return max(0, now-before) / (s.At - l.last.At)
}

func (l *Live) plain(s bench.Sample) string {
	line := fmt.Sprintf("%4.0f s  sessions %d  published %d (%.0f/s)  received %d (%.0f/s)", s.At, s.Sessions,
		s.Published, l.rate(float64(s.Published), float64(l.last.Published), s), s.Received, l.rate(float64(s.Received), float64(l.last.Received), s))
	if s.Delivery != nil {
		line += fmt.Sprintf("  p50 %s p99 %s", bench.Quantity(s.Delivery.P50, "s"), bench.Quantity(s.Delivery.P99, "s"))
	}
	if s.Failed > 0 || s.Closed > 0 {
		line += fmt.Sprintf("  failed %d closed %d", s.Failed, s.Closed)
	}
	return line + fmt.Sprintf("  breaches %d", s.Breaches)
}

// ANSI: what a terminal since 1978 knows.
const (
	ansiUp    = "\x1b[%dA\r"
	ansiClear = "\x1b[K"
	ansiReset = "\x1b[0m"
	ansiBold  = "\x1b[1m"
	ansiDim   = "\x1b[2m"
	ansiRed   = "\x1b[1;31m"
	ansiGreen = "\x1b[32m"
)

func (l *Live) paint(code, text string) string {
	if !l.opts.Color {
		return text
	}
	return code + text + ansiReset
}

func (l *Live) block(s bench.Sample) []string {
	deliveries := l.rate(float64(s.Received), float64(l.last.Received), s)
	l.rates = append(l.rates, deliveries)
	if most := max(10, l.opts.Width-24); len(l.rates) > most {
		l.rates = l.rates[len(l.rates)-most:]
	}
	failed := fmt.Sprintf("logins failed %d   closed by the server %d", s.Failed, s.Closed)
	if s.Failed+s.Closed > 0 {
		failed = l.paint(ansiRed, failed)
	}
	oracle := l.paint(ansiGreen, "✓ every copy as it should be so far")
	if s.Breaches > 0 {
		oracle = l.paint(ansiRed, fmt.Sprintf("✗ %d PROMISES BROKEN", s.Breaches))
	}
	where := fmt.Sprintf("%02d:%02d", int(s.At)/60, int(s.At)%60)
	if s.Phase != "" {
		where += "  " + s.Phase
	}
	list := []string{
		l.paint(ansiBold, l.opts.Title) + "  " + where,
		l.label("sessions") + fmt.Sprintf("%-9d %s  %6.0f logins/s", s.Sessions, l.bar(s), l.rate(float64(s.Logins), float64(l.last.Logins), s)),
		l.label("events") + fmt.Sprintf("%-9d %6.0f/s   deliveries %d  %.0f/s", s.Published, l.rate(float64(s.Published), float64(l.last.Published), s), s.Received, deliveries),
		l.label("latency") + latencyText(l.lately) + "   raw p99 " + bench.Quantity(l.raw.P99, "s"),
		l.label("") + spark(l.rates),
		l.label("server") + fmt.Sprintf("%.2f cores   RSS %s   generator %.2f cores", l.rate(s.ServerCPU, l.last.ServerCPU, s), bench.Quantity(float64(s.ServerRSS), "B"), l.rate(s.OwnCPU, l.last.OwnCPU, s)),
		l.label("errors") + failed,
		l.label("oracle") + oracle,
	}
	return list
}

func (l *Live) label(s string) string { return l.paint(ansiDim, fmt.Sprintf("  %-10s", s)) }

// bar is how many of the logins that were asked for are through.
func (l *Live) bar(s bench.Sample) string {
	const width = 12
	if s.Asked <= 0 {
		return ""
	}
	full := int(min(s.Logins*width/s.Asked, width))
	return "[" + strings.Repeat("█", full) + strings.Repeat("·", width-full) + fmt.Sprintf("] %d of %d", s.Logins, s.Asked)
}

func latencyText(b bench.Beat) string {
	if b.Count == 0 {
		return "nothing delivered yet"
	}
	return fmt.Sprintf("p50 %s   p99 %s   max %s", bench.Quantity(b.P50, "s"), bench.Quantity(b.P99, "s"), bench.Quantity(b.Max, "s"))
}

// draw writes the block over the one before.
func (l *Live) draw(block []string) {
	var b strings.Builder
	if l.lines > 0 {
		fmt.Fprintf(&b, ansiUp, l.lines)
	}
	for _, line := range block {
		b.WriteString(clip(line, l.opts.Width) + ansiClear + "\n")
	}
	l.lines = len(block)
	fmt.Fprint(l.out, b.String())
}

// clip cuts a line at the terminal's width: one that wraps would break the
// drawing over. Escapes take no room.
func clip(s string, width int) string {
	room, escape := width, false
	for i, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			if room--; room < 0 {
				return s[:i] + ansiReset
			}
		}
	}
	return s
}

// spark draws values as blocks of eight heights.
func spark(list []float64) string {
	const blocks = "▁▂▃▄▅▆▇█"
	steps := []rune(blocks)
	top := highest(list)
	var b strings.Builder
	for _, v := range list {
		if !(top > 0) {
			b.WriteRune(steps[0])
			continue
		}
		b.WriteRune(steps[min(int(v/top*float64(len(steps))), len(steps)-1)])
	}
	return b.String()
}
