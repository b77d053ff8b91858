package loop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

const closed1000 = "\x03\xe8"

func TestCloseByPeer(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure})
		f := func(frame []byte, answer string, code uint16) {
			t.Helper()
			p := h.raw(t, nil)
			c := h.next(t)
			p.send(t, frame)
			p.want(t, ws.OpClose, answer)
			p.wantEOF(t)
			if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != code || why.Local || why.Err != nil {
				t.Errorf("end %+v, want code %d of the peer", why, code)
			}
			if err := c.Queue(NewFrame(ws.OpText, nil, Events)); !errors.Is(err, ErrClosed) {
				t.Errorf("queue after the end: %v", err)
			}
		}
		f(masked(0x88, closed1000+"bye"), closed1000, 1000)
		f(masked(0x88, "\x0f\xa0"), "\x0f\xa0", 4000)
		f(masked(0x88, ""), "", 1005)
	})
}

func TestCloseByUs(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure})
		p := h.raw(t, nil)
		c := h.next(t)
		for range 3 {
			_ = c.Queue(NewEvent([]byte("event"), 0, 0))
		}
		c.Close(4402, "session-replaced")
		c.Close(1000, "too late")
		if err := c.Queue(NewEvent(nil, 0, 0)); !errors.Is(err, ErrClosed) {
			t.Errorf("queue after close: %v", err)
		}
		for range 3 {
			p.want(t, ws.OpText, "event")
		}
		p.want(t, ws.OpClose, "\x11\x32session-replaced")
		p.send(t, masked(0x81, "not for the handler"))
		p.send(t, masked(0x88, closed1000))
		p.wantEOF(t)
		if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != 4402 || !why.Local || why.Err != nil {
			t.Errorf("end %+v", why)
		}
	})
}

// TestCloseThen wants sent called once: when the peer can read the close frame,
// or at once where that is not to be waited for.
func TestCloseThen(t *testing.T) {
	h := startHouse(t, houseOptions{loop: Options{Budget: 64 << 20, CloseTimeout: 300 * time.Millisecond}})
	sent := make(chan string, 10)
	say := func(what string) func() { return func() { sent <- what } }
	wantSent := func(what string) {
		t.Helper()
		select {
		case got := <-sent:
			if got != what {
				t.Fatalf("%q was called, want %q", got, what)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q was not called", what)
		}
	}
	p := h.raw(t, nil)
	c := h.next(t)
	c.CloseThen(4402, "", func() { panic("told to") })
	c.CloseThen(1000, "", say("second"))
	wantSent("second")
	p.want(t, ws.OpClose, "\x11\x32")
	c.CloseThen(1000, "", say("after"))
	wantSent("after")
	_ = p.Close()
	waitEnd(t, c.Handler().(*echo).ended)
	c.CloseThen(1000, "", say("dead"))
	wantSent("dead")

	h.raw(t, nil)
	stuck := h.next(t)
	fill(t, h.engine, stuck)
	stuck.CloseThen(4402, "", say("stuck"))
	wantSent("stuck")

	early := h.engine.NewConn(newEcho())
	early.CloseThen(4402, "", say("early"))
	wantSent("early")
	early.Abandon(nil)
	waitEnd(t, stuck.Handler().(*echo).ended)
	if len(sent) != 0 {
		t.Errorf("%q was called again", <-sent)
	}
}

// TestCloseUnanswered wants a peer that says nothing to be gone after
// CloseTimeout.
func TestCloseUnanswered(t *testing.T) {
	h := startHouse(t, houseOptions{loop: Options{CloseTimeout: 200 * time.Millisecond}})
	p := h.raw(t, nil)
	c := h.next(t)
	c.Close(1001, "")
	p.want(t, ws.OpClose, "\x03\xe9")
	p.wantEOF(t)
	if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != 1001 || !errors.Is(why.Err, ErrTimeout) {
		t.Errorf("end %+v", why)
	}
}

// TestCloseWithBacklog wants a peer that does not read to be gone after
// CloseTimeout, and its copies in the ledger.
func TestCloseWithBacklog(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure, loop: Options{CloseTimeout: 200 * time.Millisecond, Budget: 64 << 20}})
		h.raw(t, nil)
		c := h.next(t)
		fill(t, h.engine, c)
		c.Close(1001, "")
		if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != 1001 || !errors.Is(why.Err, ErrTimeout) {
			t.Errorf("end %+v", why)
		}
		_, written, queued, discarded := h.engine.Ledger()
		if written == 0 || queued != 0 || discarded == 0 {
			t.Errorf("written %d, queued %d, discarded %d", written, queued, discarded)
		}
	})
}

// fill queues events until the kernel takes no more, and then some.
func fill(t testing.TB, e *Engine, c *Conn) {
	t.Helper()
	f := NewEvent(bytes.Repeat([]byte{'x'}, 32<<10), 0, 0)
	eventually(t, "a backlog", func() bool {
		if err := c.Queue(f); err != nil {
			t.Fatal(err)
		}
		return c.is(flagBlocked)
	})
	for range 5 {
		if err := c.Queue(f); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, queued, _ := e.Ledger(); queued < 5 {
		t.Fatalf("%d queued", queued)
	}
}

// TestCloseFlushesBacklog wants a slow reader to get everything, then the close.
func TestCloseFlushesBacklog(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure, loop: Options{CloseTimeout: 20 * time.Second, Budget: 64 << 20}})
		p := h.raw(t, nil)
		c := h.next(t)
		fill(t, h.engine, c)
		made, _, _, _ := h.engine.Ledger()
		c.Close(1000, "")
		want := string(bytes.Repeat([]byte{'x'}, 32<<10))
		for range made {
			p.want(t, ws.OpText, want)
		}
		p.want(t, ws.OpClose, closed1000)
		p.send(t, masked(0x88, closed1000))
		if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != 1000 || why.Err != nil {
			t.Errorf("end %+v", why)
		}
		if _, written, _, _ := h.engine.Ledger(); written != made {
			t.Errorf("written %d of %d", written, made)
		}
	})
}

func TestCloseByEOF(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure})
		p := h.raw(t, nil)
		c := h.next(t)
		_ = p.Close()
		if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != 1006 || why.Local || !errors.Is(why.Err, io.EOF) {
			t.Errorf("end %+v", why)
		}
	})
}

// TestCloseByReset wants a reset connection to end like one that hung up.
func TestCloseByReset(t *testing.T) {
	h := startHouse(t, houseOptions{})
	p := h.raw(t, nil)
	c := h.next(t)
	_ = p.Conn.(*net.TCPConn).SetLinger(0)
	_ = p.Close()
	if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != 1006 || why.Err == nil {
		t.Errorf("end %+v", why)
	}
}

func TestCloseForProtocolError(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure, loop: Options{MaxMessage: 1000}})
		f := func(bad []byte, want *ProtocolError) {
			t.Helper()
			p := h.raw(t, nil)
			c := h.next(t)
			p.send(t, bad)
			_ = p.Conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			// What is still on its way must not reset the close frame away.
			_, _ = p.Write(bytes.Repeat([]byte{'x'}, 200_000))
			op, payload := p.frame(t)
			if op != ws.OpClose || payload != string(closeBody(want.Code, want.What)) {
				t.Errorf("got %v %q, want close %v", op, payload, want)
			}
			_ = p.Close()
			if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != want.Code || !why.Local || !errors.Is(why.Err, want) {
				t.Errorf("end %+v, want %v", why, want)
			}
		}
		f(rawFrame(0x81, []byte("a"), 0), errMaskMissing)
		f(masked(0x81, "\xff"), errText)
		f(rawFrame(0x82, make([]byte, 1001), testMask), errTooBig)
		f(masked(0x88, "x"), errCloseBody)
	})
}

// TestCloseForPanic wants a panic to cost one socket.
func TestCloseForPanic(t *testing.T) {
	h := startHouse(t, houseOptions{handler: func() Handler { return &panicker{echo: newEcho()} }})
	other := h.raw(t, nil)
	h.next(t)
	p := h.raw(t, nil)
	c := h.next(t)
	p.send(t, masked(0x81, "panic"))
	p.want(t, ws.OpClose, "\x03\xf3internal error")
	_ = p.Close()
	if why := waitEnd(t, c.Handler().(*panicker).ended); why.Code != 1011 {
		t.Errorf("end %+v", why)
	}
	other.send(t, masked(0x81, "still there"))
	other.want(t, ws.OpText, "still there")
	if n := h.engine.metrics.panics.Get(); n != 2 {
		t.Errorf("%d panics counted, want one of Message and one of Closed", n)
	}
}

type panicker struct{ *echo }

func (h *panicker) Message(c *Conn, op ws.OpCode, p []byte) {
	if string(p) == "panic" {
		panic("told to")
	}
	h.echo.Message(c, op, p)
}

func (h *panicker) Closed(c *Conn, why End) {
	h.echo.Closed(c, why)
	if why.Code == 1011 {
		panic("told to")
	}
}

// TestCloseInAllOrders races everything that can end a socket with its adoption
// and with deliveries: Closed comes once, and the ledger agrees.
func TestCloseInAllOrders(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure, loop: Options{CloseTimeout: 100 * time.Millisecond}})
		client := startEngine(t, Options{Client: true, CloseTimeout: 100 * time.Millisecond})
		const rounds = 150
		for i := range rounds {
			hd := newEcho()
			c := h.engine.NewConn(hd)
			done := make(chan struct{})
			var wg sync.WaitGroup
			h.greetNext(c, done)
			run := func(on bool, f func()) {
				if on {
					wg.Go(f)
				}
			}
			run(true, func() {
				for range 50 {
					_ = c.Queue(NewEvent([]byte("event"), 1, 0))
				}
			})
			run(i&1 != 0, func() { c.Close(1000, "a") })
			run(i&2 != 0, func() { c.Close(1001, "b") })
			run(i&4 != 0, c.Discard)
			run(i&16 != 0, func() { c.Abandon(nil) })
			run(i&32 != 0, func() { c.fail(1002, "", nil) })
			far := newEcho()
			peer, err := client.Dial(t.Context(), DialOptions{URL: h.url, TLS: h.tls}, far)
			if err == nil && i&8 != 0 {
				peer.Close(1000, "c")
			}
			wg.Wait()
			<-done
			c.Close(1000, "end")
			waitEnd(t, hd.ended)
			if err == nil {
				waitEnd(t, far.ended)
				if len(far.ended) != 0 {
					t.Fatal("client: Closed twice")
				}
			}
			if len(hd.ended) != 0 {
				t.Fatal("Closed twice")
			}
		}
		checkLedger(t, h.engine, 0)
		eventually(t, "empty tables", func() bool { return h.engine.Len() == 0 && client.Len() == 0 })
	})
}

// Either Abandon ends a Conn, and Adopt is refused, or Adopt has it, and
// Abandon does nothing: no socket is left that nobody closes.
func TestAbandonBesideAdopt(t *testing.T) {
	h := startHouse(t, houseOptions{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 2000 {
		far, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		near, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		hd := newEcho()
		c := h.engine.NewConn(hd)
		var wg sync.WaitGroup
		wg.Go(func() { c.Abandon(nil) })
		err = h.engine.Adopt(c, near, nil, nil)
		wg.Wait()
		if err == nil {
			if len(hd.ended) > 0 {
				t.Fatal("adopted and abandoned")
			}
			_ = far.Close()
		}
		waitEnd(t, hd.ended)
		_ = far.Close()
	}
	eventually(t, "an empty table", func() bool { return h.engine.Len() == 0 })
}
