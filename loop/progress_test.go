package loop

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestMessageThatNeverEnds wants a message that stops in the middle, or
// trickles, ended after MessageTimeout, though every byte is a sign of life; and
// one that is slow but whole in time delivered, on a socket that goes on.
func TestMessageThatNeverEnds(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		t.Parallel()
		h := startHouse(t, houseOptions{tls: secure, loop: Options{MessageTimeout: 2 * time.Second}})
		type attack struct {
			name  string
			peer  *rawPeer
			conn  *Conn
			first []byte
			drip  byte
			each  time.Duration // between bytes; 0: none follow
		}
		begin := func(name string, first []byte, each time.Duration) *attack {
			return &attack{name: name, peer: h.raw(t, nil), conn: h.next(t), first: first, each: each}
		}
		attacks := []*attack{
			begin("half a header", masked(0x81, "x")[:3], 0),
			begin("half a payload", masked(0x82, "0123456789")[:9], 0),
			begin("half a message", masked(0x02, "0123456789"), 0),
			begin("a payload that trickles", rawFrame(0x82, make([]byte, 1000), testMask)[:20], 100*time.Millisecond),
		}
		slow := begin("slow, and in time", nil, 0)
		idle := begin("idle", nil, 0)
		began := time.Now()
		stop := make(chan struct{})
		defer close(stop)
		for _, a := range attacks {
			a.peer.send(t, a.first)
			if a.each > 0 {
				go func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(a.each):
							if _, err := a.peer.Write([]byte{a.drip}); err != nil {
								return
							}
						}
					}
				}()
			}
		}
		for _, b := range masked(0x81, "slow") { // 10 bytes in a second
			slow.peer.send(t, []byte{b})
			time.Sleep(100 * time.Millisecond)
		}
		slow.peer.want(t, ws.OpText, "slow")
		for _, a := range attacks {
			why := waitEnd(t, a.conn.Handler().(*echo).ended)
			took := time.Since(began)
			var wrong *ProtocolError
			if !errors.Is(why.Err, ErrTimeout) && !(errors.As(why.Err, &wrong) && wrong == errSlowMessage) {
				t.Errorf("%s: end %+v", a.name, why)
			}
			if took < 900*time.Millisecond {
				t.Errorf("%s: ended after %v", a.name, took)
			}
		}
		for _, a := range []*attack{slow, idle} {
			a.peer.send(t, masked(0x81, "still here"))
			a.peer.want(t, ws.OpText, "still here")
		}
	})
}

// trickler writes what TLS gives it in two halves, the second only when told.
type trickler struct {
	net.Conn
	half bool
}

func (c *trickler) Write(b []byte) (int, error) {
	if c.half {
		b = b[:len(b)/2]
	}
	n, err := c.Conn.Write(b)
	return max(n, 2*n*btoi(c.half)), err
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestRecordThatNeverEnds is the same below TLS: half a record, of which no
// byte of a message has come.
func TestRecordThatNeverEnds(t *testing.T) {
	h := startHouse(t, houseOptions{tls: true, loop: Options{MessageTimeout: time.Second}})
	raw, err := net.Dial("tcp", h.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() }) // also: not collected before
	below := &trickler{Conn: raw}
	p := h.upgraded(t, tls.Client(below, h.tls), nil)
	c := h.next(t)
	p.send(t, masked(0x81, "whole"))
	p.want(t, ws.OpText, "whole")
	below.half = true
	_, _ = p.Write(masked(0x82, "0123456789"))
	if why := waitEnd(t, c.Handler().(*echo).ended); !errors.Is(why.Err, ErrTimeout) {
		t.Errorf("end %+v", why)
	}
}

// TestPartial wants known what is kept of a message, or of a record, that has
// begun: as much as was sent and not twice as much, and nothing when it is whole.
func TestPartial(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure, loop: Options{MaxMessage: 64 << 10}})
		p := h.raw(t, masked(0x81, "whole"))
		p.want(t, ws.OpText, "whole")
		c := h.next(t)
		if n := c.Partial(); n != 0 {
			t.Errorf("%d bytes are kept for one who owes nothing", n)
		}
		text := strings.Repeat("x", 40<<10)
		frame := masked(0x81, text)
		p.send(t, frame[:30<<10])
		eventually(t, "its part is known", func() bool { return c.Partial() >= 30<<10 })
		if n := c.Partial(); n > 60<<10 {
			t.Errorf("%d bytes are kept for 30 KiB", n)
		}
		p.send(t, frame[30<<10:])
		p.want(t, ws.OpText, text)
		eventually(t, "nothing is kept", func() bool { return c.Partial() == 0 })
		p.send(t, masked(0x81, "half")[:7])
		eventually(t, "a few bytes are known of", func() bool { return c.Partial() > 0 })
	})
}

// TestCut wants a socket gone at once when it is cut, with a peer that answers
// nothing; what was said before is what it ends with.
func TestCut(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure, loop: Options{CloseTimeout: time.Hour}})
		p := h.raw(t, masked(0x81, "half")[:7])
		c := h.next(t)
		c.Close(1013, "short of memory")
		c.CloseThen(1013, "short of memory", c.Cut)
		p.want(t, ws.OpClose, string(closeBody(1013, "short of memory")))
		p.wantEOF(t)
		if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != 1013 || !errors.Is(why.Err, ErrSlow) {
			t.Errorf("end %+v", why)
		}

		p = h.raw(t, masked(0x81, "half")[:7])
		c = h.next(t)
		c.Cut()
		p.wantEOF(t)
		if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != codeAbnormal || !errors.Is(why.Err, ErrSlow) {
			t.Errorf("end %+v", why)
		}
	})
}
