package loop

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// closer closes its socket at the first message, as a rate limit does.
type closer struct{ *echo }

func (h *closer) Message(c *Conn, _ ws.OpCode, _ []byte) { c.Close(4429, "rate-limit-exceeded") }

// bytesRead is how many bytes an engine's pollers read.
func bytesRead(e *Engine) (n uint64) {
	for i := range e.pollers {
		n += e.pollers[i].bytes.Load()
	}
	return n
}

// mostAfterClose is what may be read of a flood: the allowance, and a round of
// nbio's, whose reads are not called off.
func mostAfterClose(e *Engine) uint64 { return uint64(afterClose + e.opts.MaxMessage + 17*64<<10) }

// TestFloodAfterClose wants little to be read of a client that floods on when
// its socket is closing, and the close code to reach it nonetheless, when it
// reads at last.
func TestFloodAfterClose(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{
			tls: secure, loop: Options{CloseTimeout: 1500 * time.Millisecond},
			handler: func() Handler { return &closer{newEcho()} },
		})
		f := func(name string, first []byte, code uint16) {
			t.Helper()
			p := h.raw(t, nil)
			c := h.next(t)
			before := bytesRead(h.engine)
			p.send(t, first)
			began := time.Now()
			_ = p.SetWriteDeadline(began.Add(500 * time.Millisecond))
			flood := bytes.Repeat(masked(0x81, "flood"), 5000)
			sent := 0
			for {
				n, err := p.Conn.Write(flood)
				sent += n
				if err != nil {
					break
				}
			}
			if got := bytesRead(h.engine) - before; got > mostAfterClose(h.engine) {
				t.Errorf("%s: %d bytes were read", name, got)
			}
			if sent < afterClose {
				t.Fatalf("%s: only %d bytes were sent", name, sent)
			}
			for op, payload := p.frame(t); ; op, payload = p.frame(t) {
				if op == ws.OpClose {
					if got := binary.BigEndian.Uint16([]byte(payload)); got != code {
						t.Errorf("%s: close %d, want %d", name, got, code)
					}
					break
				}
			}
			if why := waitEnd(t, c.Handler().(*closer).ended); why.Code != code || !why.Local {
				t.Errorf("%s: end %+v", name, why)
			}
		}
		f("rate", masked(0x81, "first"), 4429)
		f("no mask", rawFrame(0x81, []byte("a"), 0), 1002)
		f("no UTF-8", masked(0x81, "\xff"), 1007)
		f("too big", rawFrame(0x82, make([]byte, 64<<10), testMask), 1009)
	})
}

// TestFloodWithBacklog wants a client that floods on while what it is owed still
// waits to get all of it, and the close code, though nbio listens again at each
// wait.
func TestFloodWithBacklog(t *testing.T) {
	h := startHouse(t, houseOptions{loop: Options{CloseTimeout: 4 * time.Second, Budget: 64 << 20}})
	p := h.raw(t, nil)
	c := h.next(t)
	fill(t, h.engine, c)
	made, _, _, _ := h.engine.Ledger()
	c.Close(4429, "")
	before := bytesRead(h.engine)
	_ = p.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	flood := bytes.Repeat(masked(0x81, "flood"), 5000)
	for {
		if _, err := p.Conn.Write(flood); err != nil {
			break
		}
	}
	if got := bytesRead(h.engine) - before; got > mostAfterClose(h.engine) {
		t.Errorf("%d bytes were read", got)
	}
	want := string(bytes.Repeat([]byte{'x'}, 32<<10))
	for range made {
		p.want(t, ws.OpText, want)
	}
	p.want(t, ws.OpClose, "\x11\x4d")
	waitEnd(t, c.Handler().(*echo).ended)
}

// TestMuteIsFound wants nbio's fields to be where mute looks for them, and a
// flood without them to be read and thrown away, which is what it is for.
func TestMuteIsFound(t *testing.T) {
	if findPollFields() == nil {
		t.Fatal("nbio has other fields")
	}
	e, err := New(Options{CloseTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	e.polls = nil
	runEngine(t, e)
	h := startHouseOn(t, e, houseOptions{handler: func() Handler { return &closer{newEcho()} }})
	p := h.raw(t, nil)
	c := h.next(t)
	p.send(t, masked(0x81, "first"))
	flood := bytes.Repeat(masked(0x81, "flood"), 5000)
	eventually(t, "more is read than is allowed", func() bool {
		_, _ = p.Conn.Write(flood)
		return bytesRead(e) > mostAfterClose(e)
	})
	waitEnd(t, c.Handler().(*closer).ended)
}
