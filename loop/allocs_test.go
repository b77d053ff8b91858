//go:build !race

package loop

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestDeliverAllocs wants no allocation for a delivered frame, on real sockets,
// from Queue to the kernel.
func TestDeliverAllocs(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		const sockets, rounds = 50, 50
		e := startEngine(t, Options{})
		conns := adoptFar(t, e, sockets, secure)
		f := NewEvent(bytes.Repeat([]byte{'x'}, 260), 1, 0)
		g := NewFrame(ws.OpText, []byte("control"), Control)
		total := uint64(0)
		deliver := func() {
			for range rounds {
				for _, c := range conns {
					if c.Queue(f) != nil || c.Queue(g) != nil {
						t.Fatal("not queued")
					}
				}
				total += sockets
				for {
					if _, written, _, _ := e.Ledger(); written == total {
						break
					}
					runtime.Gosched()
				}
			}
		}
		deliver()
		if perRun := testing.AllocsPerRun(5, deliver); perRun/(rounds*sockets) > 0.001 {
			t.Errorf("%v allocations for %d deliveries", perRun, rounds*sockets)
		}
	})
}

// TestReceiveAllocs wants none for a message, plain or in pieces.
func TestReceiveAllocs(t *testing.T) {
	p := newParser(false, 1<<20)
	frame := masked(0x81, "a message of some length, as clients send them")
	data := make([]byte, len(frame))
	var sink countingSink
	whole := func() {
		copy(data, frame)
		_, _ = p.feed(nil, data, &sink)
	}
	pieces := func() {
		copy(data, frame)
		r, _ := p.feed(nil, data[:3], &sink)
		r, _ = p.feed(r, data[3:20], &sink)
		_, _ = p.feed(r, data[20:], &sink)
	}
	pieces()
	if n := testing.AllocsPerRun(100, whole); n != 0 {
		t.Errorf("%v allocations for a message", n)
	}
	if n := testing.AllocsPerRun(100, pieces); n > 0.5 {
		t.Errorf("%v allocations for a message in pieces", n)
	}
}

// TestFootprint holds the heap of an idle adopted socket; far ends are in
// another process.
func TestFootprint(t *testing.T) {
	f := func(secure bool, limit uint64) {
		t.Helper()
		const sockets = 500
		e := startEngine(t, Options{})
		adoptFar(t, e, 10, secure)
		before := heap()
		adoptFar(t, e, sockets, secure)
		after := heap()
		perConn := (after - min(after, before)) / sockets
		t.Logf("tls %v: %d bytes of heap a socket", secure, perConn)
		if perConn > limit {
			t.Errorf("tls %v: %d bytes of heap a socket, want at most %d", secure, perConn, limit)
		}
	}
	f(false, 440)
	f(true, 3600)
}

func heap() uint64 {
	time.Sleep(10 * time.Millisecond)
	runtime.GC()
	runtime.GC()
	runtime.GC() // pools take two to be emptied
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
