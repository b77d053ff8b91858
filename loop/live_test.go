package loop

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

func TestPingAndTick(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		hd := newCatcher()
		h := startHouse(t, houseOptions{tls: secure, loop: Options{PingInterval: time.Second}, handler: func() Handler { return hd }})
		p := h.raw(t, nil)
		c := h.next(t)
		op, stamp := p.frame(t)
		if op != ws.OpPing || len(stamp) != 12 {
			t.Fatalf("got %v %q, want a ping", op, stamp)
		}
		if c.RTT() != 0 {
			t.Errorf("rtt %v before the pong", c.RTT())
		}
		p.send(t, masked(0x8a, "xx"))
		p.send(t, masked(0x8a, stamp[:4]+"\x00\x00\x00\x00\x00\x00\x00"))
		p.send(t, masked(0x8a, stamp[:4]+"\xff\xff\xff\xff\xff\xff\xff\xff"))
		p.send(t, masked(0x8a, stamp))
		eventually(t, "a round trip", func() bool { return c.RTT() > 0 })
		if rtt := c.RTT(); rtt > 10*time.Second {
			t.Errorf("rtt %v", rtt)
		}
		p.send(t, masked(0x89, "mine"))
		for {
			if op, payload := p.frame(t); op == ws.OpPong {
				if payload != "mine" {
					t.Fatalf("pong %q", payload)
				}
				break
			}
		}
		if now := int64(<-hd.ticks); now < time.Now().Unix()-20 || now > time.Now().Unix()+1 {
			t.Errorf("tick at %d", now)
		}
		if last := int64(c.LastByte()); last < time.Now().Unix()-20 {
			t.Errorf("last byte at %d", last)
		}
		if c.RemoteAddr() != p.LocalAddr().String() {
			t.Errorf("remote address %q, want %q", c.RemoteAddr(), p.LocalAddr())
		}
	})
}

// TestTickAsked wants Tick when it was asked for, and not before; TickSoon
// overrules that.
func TestTickAsked(t *testing.T) {
	start := time.Now()
	asked := uint32(start.Add(5 * time.Second).Unix())
	hd := &asker{newEcho(), make(chan uint32, 10), asked}
	h := startHouse(t, houseOptions{handler: func() Handler { return hd }})
	h.raw(t, nil)
	c := h.next(t)
	tick := func(what string, from, to uint32) {
		t.Helper()
		select {
		case now := <-hd.ticks:
			if now < from || now > to {
				t.Errorf("%s: tick at %d, want %d to %d", what, now, from, to)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: no tick", what)
		}
	}
	tick("adopted", uint32(start.Unix()), asked-1)
	tick("asked for", asked, asked+5)

	c.TickSoon()
	tick("soon", asked, asked+10)
	if len(hd.ticks) != 0 {
		t.Errorf("%d more", len(hd.ticks))
	}
}

// asker asks for a tick at next.
type asker struct {
	*echo
	ticks chan uint32
	next  uint32
}

func (h *asker) Tick(_ *Conn, now uint32) uint32 {
	h.ticks <- now
	if now >= h.next {
		return 0
	}
	return h.next
}

// TestDeadPeer wants a silent peer closed after PongTimeout, and a talking one
// kept although it answers no ping.
func TestDeadPeer(t *testing.T) {
	h := startHouse(t, houseOptions{loop: Options{PingInterval: time.Second, PongTimeout: 2 * time.Second}})
	h.raw(t, nil)
	silent := h.next(t)
	talker := h.raw(t, nil)
	talking := h.next(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(300 * time.Millisecond):
				_, _ = talker.Write(masked(0x8a, ""))
			}
		}
	}()
	why := waitEnd(t, silent.Handler().(*echo).ended)
	if !errors.Is(why.Err, ErrTimeout) || !why.Local || why.Code != 1006 {
		t.Errorf("end %+v", why)
	}
	if talking.is(flagDead) {
		t.Error("the talking one was closed too")
	}
	close(stop)
	<-done
}

// TestClockStandsStill wants nobody taken for dead because the process was
// stopped, or because the system's clock was set.
func TestClockStandsStill(t *testing.T) {
	e, err := New(Options{PingInterval: 10 * time.Second, PongTimeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	w := newSweeper(e, now)
	run := func(d time.Duration) {
		for range d / sweepTick {
			now = now.Add(sweepTick)
			w.begin(now)
		}
	}
	c := e.NewConn(quietHandler{})
	c.lastByte.Store(e.now.Load())
	c.pingAt.Store(e.now.Load())
	want := func(when string, dead, due bool) {
		t.Helper()
		if w.isDead(c) != dead || w.isDue(c) != due {
			t.Errorf("%s: dead %v, ping due %v", when, w.isDead(c), w.isDue(c))
		}
	}
	run(5 * time.Second)
	want("after 5 s", false, false)
	now = now.Add(time.Hour)
	w.begin(now)
	want("after the process stood still", false, false)
	if w.now != uint32(now.Unix()) {
		t.Errorf("handlers are told %d, want %d", w.now, now.Unix())
	}
	now = now.Add(-2 * time.Hour)
	w.begin(now)
	want("after the clock was set back", false, false)
	run(20 * time.Second)
	want("after 26 s", false, true)
	if idle := c.Idle(); idle < 25*time.Second || idle > 27*time.Second {
		t.Errorf("idle %v after 26 s", idle)
	}
	run(5 * time.Second)
	want("after 31 s", true, true)
}

// TestTickPanic wants a panic in Tick to cost one socket.
func TestTickPanic(t *testing.T) {
	h := startHouse(t, houseOptions{handler: func() Handler { return &tickPanicker{newEcho()} }})
	p := h.raw(t, nil)
	c := h.next(t)
	p.want(t, ws.OpClose, "\x03\xf3internal error")
	_ = p.Close()
	if why := waitEnd(t, c.Handler().(*tickPanicker).ended); why.Code != 1011 {
		t.Errorf("end %+v", why)
	}
}

type tickPanicker struct{ *echo }

func (*tickPanicker) Tick(*Conn, uint32) uint32 { panic("told to") }

// TestRunEnds wants everything closed when ctx ends, whatever is under way.
func TestRunEnds(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var ends []chan End
	for range 50 {
		hd := newEcho()
		server, _ := tcpPair(t)
		if err := e.Adopt(e.NewConn(hd), server, nil, nil); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, hd.ended)
	}
	n := 0
	e.Each(func(*Conn) { n++ })
	if n != 50 || e.Len() != 50 {
		t.Errorf("%d seen, %d counted", n, e.Len())
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, ch := range ends {
		if why := waitEnd(t, ch); why.Code != 1001 || !errors.Is(why.Err, ErrClosed) || !why.Local {
			t.Fatalf("end %+v", why)
		}
	}
	hd := newEcho()
	server, _ := tcpPair(t)
	if err := e.Adopt(e.NewConn(hd), server, nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("adopted after the end: %v", err)
	}
	waitEnd(t, hd.ended)
}

// TestRunEndsAtOnce wants Run to return although ctx had ended before.
func TestRunEndsAtOnce(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestUrgentData wants a poller that does not spin on TCP's urgent byte.
func TestUrgentData(t *testing.T) {
	h := startHouse(t, houseOptions{})
	p := h.raw(t, nil)
	h.next(t)
	raw, err := p.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB, nil) })
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	before := cpuTime()
	time.Sleep(300 * time.Millisecond)
	if used := cpuTime() - before; used > 150*time.Millisecond {
		t.Errorf("%v of CPU in 300 ms of nothing", used)
	}
	p.send(t, masked(0x81, "still there"))
	p.want(t, ws.OpText, "still there")
}

func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestOptions(t *testing.T) {
	bad := func(name string, o Options) {
		t.Helper()
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	bad("pollers", Options{Pollers: -1})
	bad("shards", Options{Flushers: 4, Shards: 2})
	bad("many shards", Options{Flushers: 1, Shards: 65})
	bad("budget", Options{Budget: -1})
	bad("message", Options{MaxMessage: -1})
	bad("ping", Options{PingInterval: time.Millisecond})
	bad("pong", Options{PingInterval: time.Minute, PongTimeout: time.Second})
	bad("close", Options{CloseTimeout: -1})
	bad("kinds", Options{Kinds: make([]string, 300)})
}
