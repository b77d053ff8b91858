package view

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/daisi/daisi-ws/bench"
)

var liveSamples = []bench.Sample{
	{At: 1, Asked: 100, Logins: 50, Sessions: 50, Phase: "login"},
	{At: 2, Asked: 100, Logins: 100, Sessions: 100, Published: 500, Received: 5000, ServerCPU: 0.5, ServerRSS: 1 << 20, Phase: "deliver", Delivery: &bench.Beat{Count: 5000, P50: 0.001, P99: 0.004, Max: 0.02}},
	{At: 3, Asked: 100, Logins: 100, Sessions: 99, Published: 1000, Received: 15000, ServerCPU: 1.5, Closed: 1, Breaches: 3, Phase: "deliver"},
}

func TestLivePlain(t *testing.T) {
	var b bytes.Buffer
	l := NewLive(&b, LiveOptions{Title: "fanout"})
	for _, s := range liveSamples {
		l.Show(s)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 || strings.Contains(b.String(), "\x1b") {
		t.Fatalf("want three lines without escapes:\n%q", b.String())
	}
	for _, want := range []string{"received 5000 (5000/s)", "p50 1.00 ms p99 4.00 ms", "breaches 0"} {
		if !strings.Contains(lines[1], want) {
			t.Errorf("no %q in %q", want, lines[1])
		}
	}
	if !strings.Contains(lines[2], "(10000/s)") || !strings.Contains(lines[2], "closed 1") || !strings.HasSuffix(lines[2], "breaches 3") {
		t.Errorf("%q", lines[2])
	}
}

// The block is drawn over itself: what a terminal shows in the end is the last.
func TestLiveTerminal(t *testing.T) {
	var b bytes.Buffer
	l := NewLive(&b, LiveOptions{Title: "fanout", Width: 80, Color: true})
	for _, s := range liveSamples {
		l.Show(s)
	}
	screen := terminal(b.String())
	text := strings.Join(screen, "\n")
	for _, want := range []string{"fanout  00:03  deliver", "[████████████] 100 of 100", "10000/s", "p99 4.00 ms", "1.00 cores", "3 PROMISES BROKEN", "closed by the server 1"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q on the screen:\n%s", want, text)
		}
	}
	if strings.Count(text, "oracle") != 1 {
		t.Errorf("drawn beside itself:\n%s", text)
	}
	for _, line := range screen {
		if utf8.RuneCountInString(line) > 80 {
			t.Errorf("wraps: %q", line)
		}
	}
}

// terminal is what a screen shows after these bytes: only what Live uses.
func terminal(s string) (screen []string) {
	row, col := 0, 0
	put := func(r rune) {
		for len(screen) <= row {
			screen = append(screen, "")
		}
		line := []rune(screen[row])
		for len(line) <= col {
			line = append(line, ' ')
		}
		line[col] = r
		screen[row] = string(line)
		col++
	}
	runes := []rune(s)
	for i := 0; i < len(runes); i++ {
		switch runes[i] {
		case '\n':
			row, col = row+1, 0
		case '\r':
			col = 0
		case '\x1b':
			n := 0
			for i += 2; runes[i] >= '0' && runes[i] <= '9' || runes[i] == ';'; i++ {
				n = n*10 + int(runes[i]-'0')
			}
			switch runes[i] {
			case 'A':
				row -= n
			case 'K':
				if row < len(screen) {
					screen[row] = string([]rune(screen[row])[:min(col, utf8.RuneCountInString(screen[row]))])
				}
			}
		default:
			put(runes[i])
		}
	}
	return screen
}

func TestClip(t *testing.T) {
	if got := clip("\x1b[1mabc\x1b[0mdef", 4); got != "\x1b[1mabc\x1b[0md"+ansiReset {
		t.Errorf("%q", got)
	}
	if got := clip("abc", 3); got != "abc" {
		t.Errorf("%q", got)
	}
}

func TestSpark(t *testing.T) {
	if got := spark([]float64{0, 4, 8}); got != "▁▅█" {
		t.Errorf("%q", got)
	}
	if got := spark([]float64{0, 0}); got != "▁▁" {
		t.Errorf("%q", got)
	}
}
