package loop

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/gobwas/ws"
)

// TestCloseBeforeAdopt wants what was queued, then the close, behind the 101.
func TestCloseBeforeAdopt(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure, greet: func(c *Conn) {
			_ = c.Queue(NewEvent([]byte("one"), 0, 0))
			_ = c.Queue(NewFrame(ws.OpText, []byte("ready"), Control))
			c.Close(4403, "revoked")
			if err := c.Queue(NewEvent([]byte("two"), 0, 0)); !errors.Is(err, ErrClosed) {
				t.Errorf("queue after close: %v", err)
			}
		}})
		p := h.raw(t, nil)
		p.want(t, ws.OpText, "ready")
		p.want(t, ws.OpText, "one")
		p.want(t, ws.OpClose, "\x11\x33revoked")
		p.send(t, masked(0x88, ""))
		c := h.next(t)
		p.wantEOF(t)
		if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != 4403 || why.Err != nil {
			t.Errorf("end %+v", why)
		}
	})
}

func TestAbandon(t *testing.T) {
	e := startEngine(t, Options{})
	hd := newEcho()
	c := e.NewConn(hd)
	_ = c.Queue(NewEvent([]byte("x"), 0, 0))
	checkLedger(t, e, 1)
	c.Abandon(io.ErrNoProgress)
	c.Abandon(nil)
	if why := waitEnd(t, hd.ended); !errors.Is(why.Err, io.ErrNoProgress) {
		t.Errorf("end %+v", why)
	}
	checkLedger(t, e, 0)
	left, right := tcpPair(t)
	if err := e.Adopt(c, left, nil, nil); err == nil {
		t.Error("an abandoned Conn was adopted")
	}
	if _, err := right.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("its socket was not closed: %v", err)
	}
	if len(hd.ended) != 0 {
		t.Error("Closed was called twice")
	}
}

func tcpPair(t testing.TB) (server, client *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func TestAdoptFailure(t *testing.T) {
	e := startEngine(t, Options{})
	f := func(name string, nc net.Conn) {
		t.Helper()
		hd := newEcho()
		c := e.NewConn(hd)
		_ = c.Queue(NewEvent([]byte("x"), 0, 0))
		if err := e.Adopt(c, nc, nil, []byte("head")); err == nil {
			t.Errorf("%s was adopted", name)
		}
		if why := waitEnd(t, hd.ended); why.Err == nil {
			t.Errorf("%s: end %+v", name, why)
		}
	}
	left, right := net.Pipe()
	f("a pipe", left)
	_ = right.Close()
	server, _ := tcpPair(t)
	_ = server.Close()
	f("a closed socket", server)
	checkLedger(t, e, 0)
}
