package server

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// The real thing: a session that reads nothing is ended, one that reads is not.
func TestShed(t *testing.T) {
	h := newHouse(t, nil)
	slow, quick := h.login("ag1", "u1", "", nil), h.login("ag1", "u2", "", nil)
	s := h.core.index.Find(session.Key{Company: "acme", Agent: "ag1", User: "u1"})
	f := loop.NewFrame(ws.OpText, []byte(`{"type":"`+strings.Repeat("x", 60<<10)+`"}`), loop.Events)
	for s.Sock().Queued() < 256<<10 {
		if err := s.Sock().Queue(f); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.edge.shed(1 << 20); n != 0 {
		t.Errorf("%d hold more than a budget", n)
	}
	if n := h.edge.shed(128 << 10); n != 1 || h.edge.m.shed.Get() != 1 {
		t.Errorf("%d ended, %d counted", n, h.edge.m.shed.Get())
	}
	var end closed
	for err := error(nil); !errors.As(err, &end); {
		if _, err = slow.read(); err != nil && !errors.As(err, &end) {
			t.Fatal(err)
		}
	}
	if end.code != 4408 {
		t.Errorf("closed with %v", end)
	}
	quick.barrier()
}

// A session that sends half a message is ended when so much is held for it, or
// when any is too much: it is told why, and its socket gone at once.
func TestShedHalfMessages(t *testing.T) {
	h := newHouse(t, nil)
	most, some, quick := h.login("ag1", "u1", "", nil), h.login("ag1", "u2", "", nil), h.login("ag1", "u3", "", nil)
	part := func(s *socket, user string, n int) {
		t.Helper()
		if _, err := s.nc.Write(text(strings.Repeat("x", 30<<10))[:n]); err != nil {
			t.Fatal(err)
		}
		conn := h.core.index.Find(session.Key{Company: "acme", Agent: "ag1", User: user}).Sock()
		eventually(t, "it is held", func() bool { return conn.Partial() >= n-14 })
	}
	part(most, "u1", 20<<10)
	part(some, "u2", 100)
	shed := func(keep, left int, gone ...*socket) {
		t.Helper()
		if n := h.edge.shed(keep); n != len(gone) {
			t.Errorf("%d hold more than %d", n, keep)
		}
		for _, s := range gone {
			s.expect("error", map[string]any{"code": "SlowConsumer", "details": "this pod is short of memory"})
			s.expectClose(4408, "slow-consumer")
		}
		eventually(t, "its socket is gone", func() bool { return h.env.engine.Len() == left })
	}
	shed(64<<10, 3)
	shed(16<<10, 2, most)
	shed(8<<10, 2)
	shed(shedLeast, 1, some)
	if n := h.edge.m.shed.Get(); n != 2 {
		t.Errorf("%d counted", n)
	}
	quick.barrier()
}

// Connections that do not come to their request are closed when memory is short,
// those that have just come and sessions are not. Many are relief enough.
func TestShedPending(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Limits.MaxPending = 8 })
	in := h.login("ag1", "u1", "", nil)
	f := func(n int, relief bool) {
		t.Helper()
		var all []net.Conn
		for range n {
			nc, err := h.tryDial()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := nc.Write([]byte("GET / HTTP/1.1\r\nX-Big: ")); err != nil {
				t.Fatal(err)
			}
			all = append(all, nc)
		}
		eventually(t, "they are there", func() bool { return h.public.pending() == n })
		if had := h.public.evict(time.Hour); had != 0 {
			t.Errorf("%d were ended before their time", had)
		}
		time.Sleep(shedPending)
		if got := h.edge.evictPending(); got != relief {
			t.Errorf("of %d: relief %v, want %v", n, got, relief)
		}
		for _, nc := range all {
			_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
			var late net.Error
			if _, err := nc.Read(make([]byte, 1)); err == nil || errors.As(err, &late) && late.Timeout() {
				t.Errorf("read: %v", err)
			}
		}
		eventually(t, "they are gone", func() bool { return h.public.pending() == 0 })
	}
	f(1, false)
	f(3, true)
	if n := h.public.evicted(); n != 4 {
		t.Errorf("%d evicted", n)
	}
	in.barrier()
}

// What the kernel keeps for one who does not read is held for it like what waits
// here; if its close frame gets nowhere, it is cut off.
func TestShedWhatTheKernelKeeps(t *testing.T) {
	h := newHouse(t, nil)
	slow, quick := h.login("ag1", "u1", "", nil), h.login("ag1", "u2", "", nil)
	if err := slow.nc.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	conn := h.core.index.Find(session.Key{Company: "acme", Agent: "ag1", User: "u1"}).Sock()
	f := loop.NewFrame(ws.OpText, []byte(`{"type":"`+strings.Repeat("x", 4<<10)+`"}`), loop.Events)
	for conn.Unsent() < 32<<10 {
		if err := conn.Queue(f); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the kernel takes it", func() bool { return conn.Queued() == 0 })
	}
	if n := h.edge.shed(128 << 10); n != 0 {
		t.Errorf("%d hold more than there is", n)
	}
	for range 2 { // the first is told so
		if n := h.edge.shed(16 << 10); n != 1 || h.edge.m.shed.Get() != 1 {
			t.Errorf("%d ended, %d counted", n, h.edge.m.shed.Get())
		}
	}
	eventually(t, "its socket is gone", func() bool { return h.env.engine.Len() == 1 })
	quick.barrier()
}
