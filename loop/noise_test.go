package loop

import (
	"bytes"
	"testing"

	"github.com/gobwas/ws"
	"pgregory.net/rapid"
)

// TestNoise wants what is no message to be limited: control frames, and empty
// fragments. As many as are allowed do no harm.
func TestNoise(t *testing.T) {
	flood := &ProtocolError{4429, "flood"}
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure, loop: Options{Flood: flood}})
		f := func(name string, sent []byte, want *ProtocolError) {
			t.Helper()
			p := h.raw(t, nil)
			c := h.next(t)
			p.send(t, sent)
			p.send(t, masked(0x81, "last"))
			for {
				op, payload := p.frame(t)
				if op == ws.OpPong || op == ws.OpText && payload != "last" {
					continue
				}
				if want == nil && op != ws.OpText || want != nil && (op != ws.OpClose || payload != string(closeBody(want.Code, want.What))) {
					t.Fatalf("%s: %v %q, want %v", name, op, payload, want)
				}
				break
			}
			_ = p.Close()
			if why := waitEnd(t, c.Handler().(*echo).ended); want != nil && (why.Err != error(want) || why.Code != want.Code) {
				t.Errorf("%s: end %+v, want %v", name, why, want)
			}
		}
		// The clock may turn meanwhile, and forgive some: so twice as many.
		f("pings", bytes.Repeat(masked(0x89, ""), maxNoise), nil)
		f("too many pings", bytes.Repeat(masked(0x89, ""), 2*maxNoise), flood)
		f("too many pongs", bytes.Repeat(masked(0x8a, "unasked"), 2*maxNoise), flood)
		empty := func(n int) []byte {
			return append(masked(0x01, "x"), append(bytes.Repeat(masked(0x00, ""), n), masked(0x80, "y")...)...)
		}
		f("empty fragments", empty(maxNoise), nil)
		f("too many empty fragments", empty(2*maxNoise), flood)
		f("too many over several messages", bytes.Repeat(empty(maxNoise/4), 8), flood)
		f("fragments of a byte", append(masked(0x01, ""), append(bytes.Repeat(masked(0x00, "x"), 2*maxNoise), masked(0x80, "")...)...), nil)
	})
}

// TestNoiseForgives holds noise against a plain model: never more than is
// allowed in any span, and never refused below it.
func TestNoiseForgives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var n noise
		now := rapid.Uint32().Draw(t, "start") // also where its 16 bits turn over
		owed := 0
		n.add(now)
		owed++
		for range rapid.IntRange(1, 20).Draw(t, "rounds") {
			step := rapid.Uint32Range(0, 30).Draw(t, "seconds")
			now += step
			owed = max(owed-noiseRate*int(step), 0)
			for range rapid.IntRange(1, 2500).Draw(t, "frames") {
				want := owed < maxNoise
				if got := n.add(now); got != want {
					t.Fatalf("add with %d owed: %v", owed, got)
				}
				if want {
					owed++
				}
			}
		}
	})
}
