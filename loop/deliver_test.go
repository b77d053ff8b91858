package loop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestDeliverInOrder wants events of several producers, each in its order, on
// all sockets, while control frames overtake.
func TestDeliverInOrder(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		const sockets, events = 20, 2000
		h := startHouse(t, houseOptions{tls: secure})
		client := startEngine(t, Options{Client: true})
		var fars []*sequence
		var conns []*Conn
		for range sockets {
			far := &sequence{done: make(chan struct{}), want: events}
			h.dial(t, client, far)
			fars = append(fars, far)
			conns = append(conns, h.next(t))
		}
		for i := range events {
			f := NewEvent(fmt.Appendf(nil, "e%d %s", i, strings.Repeat("x", i%700)), 1, 0)
			for _, c := range conns {
				if err := c.Queue(f); err != nil {
					t.Fatal(err)
				}
			}
			if i%10 == 0 {
				_ = conns[i%sockets].Queue(NewFrame(ws.OpText, []byte("control"), Control))
			}
		}
		for i, far := range fars {
			select {
			case <-far.done:
			case <-time.After(20 * time.Second):
				t.Fatalf("socket %d: %d of %d", i, far.next.Load(), events)
			}
			if bad := far.bad.Load(); bad != 0 {
				t.Errorf("socket %d: %d out of order", i, bad)
			}
		}
		// The kernel may hand bytes on before the worker has booked them.
		eventually(t, "all booked as written", func() bool {
			made, written, _, _ := h.engine.Ledger()
			return made == sockets*events && written == made
		})
	})
}

// sequence checks that events e0, e1, … come in order.
type sequence struct {
	next, bad atomic.Int64
	want      int64
	done      chan struct{}
}

func (s *sequence) Message(_ *Conn, _ ws.OpCode, p []byte) {
	if p[0] != 'e' {
		return
	}
	var n int64
	_, _ = fmt.Sscanf(string(p), "e%d", &n)
	if n != s.next.Load() {
		s.bad.Add(1)
	}
	if s.next.Add(1) == s.want {
		close(s.done)
	}
}
func (s *sequence) Tick(*Conn, uint32) uint32 { return 0 }
func (s *sequence) Closed(*Conn, End)         {}

// TestDeliverLanes wants control ahead of events that still wait.
func TestDeliverLanes(t *testing.T) {
	h := startHouse(t, houseOptions{loop: Options{Budget: 64 << 20}})
	p := h.raw(t, nil)
	c := h.next(t)
	fill(t, h.engine, c)
	_ = c.Queue(NewFrame(ws.OpText, []byte("control"), Control))
	for range 3 {
		_ = c.Queue(NewEvent([]byte("last"), 0, 0))
	}
	before := 0
	for {
		_, payload := p.frame(t)
		if payload == "control" {
			break
		}
		before++
	}
	made, _, _, _ := h.engine.Ledger()
	// At least the five events that fill queued behind the stuck write, and
	// the last three, come later.
	if behind := int(made) - before; behind < 8 {
		t.Errorf("only %d events behind the control frame", behind)
	}
}

func TestDeliverBudget(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		const budget = 256 << 10
		h := startHouse(t, houseOptions{tls: secure, loop: Options{Budget: budget}})
		p := h.raw(t, nil)
		c := h.next(t)
		big := NewEvent(bytes.Repeat([]byte{'b'}, 2*budget), 0, 0)
		if err := c.Queue(big); err != nil {
			t.Fatalf("a frame over the budget, nothing waiting: %v", err)
		}
		f := NewEvent(bytes.Repeat([]byte{'x'}, 10_000), 0, 0)
		sent := 1
		eventually(t, "ErrSlow", func() bool {
			err := c.Queue(f)
			if err == nil {
				sent++
				if q := c.Queued(); q > budget+len(big.bytes) {
					t.Fatalf("%d bytes queued", q)
				}
			} else if !errors.Is(err, ErrSlow) {
				t.Fatal(err)
			}
			return err != nil
		})
		// Once read, it is well again, and nothing of it is lost.
		for range sent {
			p.frame(t)
		}
		eventually(t, "room", func() bool { return c.Queued() == 0 })
		if err := c.Queue(NewEvent([]byte("after"), 0, 0)); err != nil {
			t.Fatal(err)
		}
		p.want(t, ws.OpText, "after")
	})
}

// TestControlHasRoom wants an answer to fit behind events that filled the budget,
// and answers to be bounded as well.
func TestControlHasRoom(t *testing.T) {
	const budget = 256 << 10
	h := startHouse(t, houseOptions{loop: Options{Budget: budget, CloseTimeout: 50 * time.Millisecond}})
	h.raw(t, nil) // reads nothing more
	c := h.next(t)
	full := func(f *Frame) func() bool {
		return func() bool { return errors.Is(c.Queue(f), ErrSlow) && c.backlog.Load() > 0 }
	}
	eventually(t, "the budget to be full", full(NewEvent(bytes.Repeat([]byte{'x'}, 4<<10), 0, 0)))
	if err := c.Queue(NewFrame(ws.OpText, make([]byte, 8<<10), Control)); err != nil {
		t.Errorf("an answer behind events: %v", err)
	}
	eventually(t, "its eighth to be full", full(NewFrame(ws.OpText, make([]byte, 1<<10), Control)))
	if q := c.Queued(); q > budget+budget/8 {
		t.Errorf("%d bytes wait", q)
	}
}

// TestDiscard is the slow consumer's end: events go, the error and the close
// frame still come.
func TestDiscard(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure, loop: Options{Budget: 64 << 20, CloseTimeout: 10 * time.Second}})
		p := h.raw(t, nil)
		c := h.next(t)
		fill(t, h.engine, c)
		for range 20 {
			_ = c.Queue(NewEvent([]byte("never seen"), 0, 0))
		}
		c.Discard()
		_ = c.Queue(NewFrame(ws.OpText, []byte("error"), Control))
		c.Close(4408, "slow-consumer")
		_, _, _, discarded := h.engine.Ledger()
		if discarded < 20 {
			t.Errorf("%d discarded", discarded)
		}
		for {
			op, payload := p.frame(t)
			if payload == "never seen" {
				t.Fatal("a discarded event was sent")
			}
			if op == ws.OpClose {
				break
			}
		}
		p.send(t, masked(0x88, ""))
		if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != 4408 || why.Err != nil {
			t.Errorf("end %+v", why)
		}
	})
}

// TestDeliverWhileLedgerIsRead wants the residual 0 at every moment, whatever
// happens to the sockets.
func TestDeliverWhileLedgerIsRead(t *testing.T) {
	const sockets = 30
	h := startHouse(t, houseOptions{loop: Options{Budget: 100_000, CloseTimeout: time.Second}})
	client := startEngine(t, Options{Client: true})
	var conns []*Conn
	for range sockets {
		h.dial(t, client, &slow{})
		conns = append(conns, h.next(t))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for k := range 2 {
		wg.Go(func() {
			f := NewEvent(bytes.Repeat([]byte{'x'}, 5000*(k+1)), 1, 0)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				c := conns[i%sockets]
				if errors.Is(c.Queue(f), ErrSlow) && i%7 == 0 {
					c.Discard()
				}
				if i%5000 == 4999 {
					c.Close(1000, "")
				}
			}
		})
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		if made, written, queued, discarded := h.engine.Ledger(); made != written+queued+discarded {
			t.Fatalf("made %d, written %d, queued %d, discarded %d", made, written, queued, discarded)
		}
	}
	close(stop)
	wg.Wait()
}

// slow takes its time for each message.
type slow struct{ quietHandler }

func (*slow) Message(*Conn, ws.OpCode, []byte) { time.Sleep(100 * time.Microsecond) }

type quietHandler struct{}

func (quietHandler) Message(*Conn, ws.OpCode, []byte) {}
func (quietHandler) Tick(*Conn, uint32) uint32        { return 0 }
func (quietHandler) Closed(*Conn, End)                {}

// TestDeliverWhileBusy wants the worker to come back to a socket that was queued
// to while it was in its hands.
func TestDeliverWhileBusy(t *testing.T) {
	e, err := New(Options{Flushers: 1, Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := e.NewConn(quietHandler{})
	c.flags.Store(flagOpen)
	s, w := c.shard, c.shard.worker
	queue := func() {
		if err := c.Queue(NewEvent(nil, 0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	queue()
	w.pending.Store(0)
	s.turn, s.ready = s.ready, nil
	w.take(s)
	if len(w.works) != 1 || !c.is(flagBusy) {
		t.Fatalf("%d in the worker's hands", len(w.works))
	}
	queue()
	if w.pending.Load() != 0 {
		t.Error("the worker is to look at a socket that it has in its hands")
	}
	it := &w.works[0]
	_, it.bytes, it.events = w.join(c, it.q)
	w.settle(s, it)
	if w.pending.Load() != s.bit || len(s.ready) != 1 {
		t.Errorf("pending %b, %d ready", w.pending.Load(), len(s.ready))
	}
	checkLedger(t, e, 1)
}

// TestDeliverJoined wants what waits joined into one write, and one event
// written alone.
func TestDeliverJoined(t *testing.T) {
	h := startHouse(t, houseOptions{greet: func(c *Conn) {
		for i := range 10 {
			_ = c.Queue(NewEvent(binary.BigEndian.AppendUint32([]byte("early"), uint32(i)), 0, 0))
		}
	}})
	p := h.raw(t, nil)
	c := h.next(t)
	for range 10 {
		p.frame(t)
	}
	joined, writes := flushes(h.engine)
	if joined != 10 || writes != 1 {
		t.Fatalf("%d frames in %d writes, want 10 in 1, with the 101", joined, writes)
	}
	for range 5 {
		_ = c.Queue(NewEvent([]byte("alone"), 0, 0))
		p.want(t, ws.OpText, "alone")
	}
	eventually(t, "flushes counted", func() bool { joined, writes = flushes(h.engine); return writes >= 6 })
	if joined != 15 || writes != 6 {
		t.Fatalf("%d frames in %d writes, want 15 in 6", joined, writes)
	}
}

func flushes(e *Engine) (joined, writes uint64) {
	t := e.metrics.sum()
	for _, n := range t.frames {
		writes += n
	}
	return t.joined, writes
}
