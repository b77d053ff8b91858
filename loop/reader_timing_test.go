package loop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// BenchmarkReader parses one message as a client sends it, whole and in pieces
// of 100 bytes.
func BenchmarkReader(b *testing.B) {
	for _, size := range []int{64, 1024, 16 << 10} {
		for _, piece := range []int{1 << 20, 100} {
			b.Run(fmt.Sprintf("size=%d/piece=%d", size, piece), func(b *testing.B) {
				p := newParser(false, 1<<20)
				frame := masked(0x81, strings.Repeat("x", size))
				data := make([]byte, len(frame))
				var sink countingSink
				var r *reader
				b.SetBytes(int64(len(frame)))
				b.ReportAllocs()
				for b.Loop() {
					copy(data, frame)
					for rest := data; len(rest) > 0; {
						n := min(piece, len(rest))
						r, _ = p.feed(r, rest[:n], &sink)
						rest = rest[n:]
					}
				}
			})
		}
	}
}

// countingSink counts what a parser found.
type countingSink int

func (s *countingSink) message(ws.OpCode, []byte) bool { *s++; return true }
func (s *countingSink) control(ws.OpCode, []byte) bool { *s++; return true }
func (s *countingSink) empty() bool                    { *s++; return true }

// BenchmarkQueue puts an event on a socket that can't be written: what the
// delivering goroutine pays.
func BenchmarkQueue(b *testing.B) {
	e, err := New(Options{Budget: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	var conns []*Conn
	for range 1000 {
		conns = append(conns, e.NewConn(quietHandler{}))
	}
	f := NewEvent([]byte("x"), 0, 0)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		_ = conns[i%1000].Queue(f)
		if i++; i%100_000 == 0 {
			for _, c := range conns {
				c.Discard()
			}
		}
	}
}

// BenchmarkSweep looks at idle sockets once: what a second costs each.
func BenchmarkSweep(b *testing.B) {
	const sockets = 10_000
	e, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	for range sockets {
		c := e.NewConn(quietHandler{})
		c.flags.Store(flagOpen)
		c.lastByte.Store(uint32(now.Unix()))
		c.pingAt.Store(uint32(now.Unix()))
		c.shard.table.add(c, uint32(now.Unix()))
	}
	w := newSweeper(e, now)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		w.begin(now)
		w.sweep()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/sockets, "ns/socket")
}

// BenchmarkFrame encodes an event once.
func BenchmarkFrame(b *testing.B) {
	head, body, tail := []byte(`{"type":"event","payload":`), []byte(strings.Repeat("x", 200)), []byte(`,"seq":12345}`)
	b.ReportAllocs()
	for b.Loop() {
		_ = NewEventParts(1, 0, head, body, tail)
	}
}
