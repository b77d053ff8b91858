package loop

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// staller echoes, and holds its poller up at the message "stall".
type staller struct {
	echo
	entered, out chan struct{}
}

func (h *staller) Message(c *Conn, op ws.OpCode, p []byte) {
	if string(p) != "stall" {
		h.echo.Message(c, op, p)
		return
	}
	h.entered <- struct{}{}
	<-h.out
}

// TestStaleEvent wants no socket to be ended by what the poller was told of an
// older one with the same descriptor: the older one ends on another goroutine
// while its last event waits in the poller's round, and others come meanwhile.
func TestStaleEvent(t *testing.T) {
	f := func(name string, peer func(*net.TCPConn) error, end func(*Conn)) {
		t.Run(name, func(t *testing.T) {
			entered, out := make(chan struct{}, 2), make(chan struct{})
			h := startHouse(t, houseOptions{loop: Options{Pollers: 1}, handler: func() Handler {
				return &staller{echo: *newEcho(), entered: entered, out: out}
			}})
			t.Cleanup(func() { close(out) }) // a test that gives up must not hold the poller
			first := h.raw(t, nil)
			h.next(t)
			second := h.raw(t, nil)
			h.next(t)
			old := h.raw(t, nil)
			c := h.next(t) // one by one: they may arrive in another order than they were dialled
			first.send(t, masked(0x81, "stall"))
			<-entered
			second.send(t, masked(0x81, "stall"))
			if err := peer(old.Conn.(*net.TCPConn)); err != nil {
				t.Fatal(err)
			}
			out <- struct{}{}
			<-entered // the event of old is behind it in this round
			end(c)
			_ = old.Close()
			var later []*rawPeer
			for range 8 { // one of them would get the descriptor
				later = append(later, h.raw(t, nil))
				h.next(t)
			}
			out <- struct{}{}
			waitEnd(t, c.Handler().(*staller).ended)
			for i, p := range later {
				p.send(t, masked(0x81, fmt.Sprint(i)))
				p.want(t, ws.OpText, fmt.Sprint(i))
			}
		})
	}
	f("a write failed", func(nc *net.TCPConn) error { return errors.Join(nc.SetLinger(0), nc.Close()) }, func(c *Conn) {
		_ = c.Queue(NewFrame(ws.OpText, []byte("nobody is there"), Events))
		eventually(t, "the write to fail", func() bool { return c.is(flagBlocked | flagDead) })
	})
	f("killed", func(nc *net.TCPConn) error { return nc.CloseWrite() }, func(c *Conn) {
		c.kill(End{Code: codeAbnormal, Local: true, Err: ErrTimeout})
	})
}

// stays is a client that only goes when it is told to.
type stays struct {
	echo
	got chan struct{}
}

func (h *stays) Message(*Conn, ws.OpCode, []byte) { h.got <- struct{}{} }

// TestDescriptorsUsedAgain ends sockets in every way there is beside others that
// come, and stay: those must only end as they were told to.
func TestDescriptorsUsedAgain(t *testing.T) {
	h := startHouse(t, houseOptions{loop: Options{Pollers: 2, CloseTimeout: 50 * time.Millisecond}})
	e := startEngine(t, Options{Client: true, Pollers: 2})
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	go func() { // nobody asks for them
		for {
			select {
			case <-h.arrived:
			case <-over:
				return
			}
		}
	}()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	var wait sync.WaitGroup
	var came atomic.Int64
	for i := range 16 {
		wait.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := h.visit(e, i%2 == 0, rand.IntN(4)); err != nil {
					t.Errorf("visit: %v", err)
					return
				}
				came.Add(1)
			}
		})
	}
	wait.Wait()
	t.Logf("%d sockets came and went", came.Load())
}

// visit comes, has three messages echoed, and goes in one of four ways.
func (h *house) visit(e *Engine, leisurely bool, how int) error {
	hd := &stays{echo: *newEcho(), got: make(chan struct{}, 1)}
	c, err := e.Dial(context.Background(), DialOptions{URL: h.url, TLS: h.tls}, hd)
	if err != nil {
		return err
	}
	for range 3 {
		if err := c.Send(ws.OpText, []byte("still there?")); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		select {
		case <-hd.got:
		case why := <-hd.ended:
			return fmt.Errorf("ended unasked: %+v", why)
		case <-time.After(20 * time.Second):
			return errors.New("no echo")
		}
		if leisurely {
			time.Sleep(rand.N(10 * time.Millisecond)) // a stay, of no length that matters
		}
	}
	switch how {
	case 0, 1:
		c.Close(1000, "")
	case 2:
		c.kill(End{Code: codeAbnormal, Local: true})
	case 3:
		_ = c.nb.SetLinger(1, 0)
		c.kill(End{Code: codeAbnormal, Local: true})
	}
	select {
	case why := <-hd.ended:
		if how < 2 && (why.Err != nil || why.Code != 1000) {
			return fmt.Errorf("end %+v, want 1000", why)
		}
	case <-time.After(20 * time.Second):
		return errors.New("no end")
	}
	return nil
}
