package rpc

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// proxy stands between two pods. While it is stopped, connections stay open and
// nothing passes: what a peer under SIGSTOP looks like from outside.
type proxy struct {
	lis    net.Listener
	target string
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the following
	running chan struct{}
	conns   []net.Conn
}

func newProxy(t *testing.T, target string) *proxy {
	p := &proxy{lis: listen(t, "127.0.0.1:0"), target: target, running: make(chan struct{})}
	close(p.running)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.lis.Close()
		p.resume()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		in, err := p.lis.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(in, out) })
		p.wg.Go(func() { p.copy(out, in) })
	}
}

func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 16<<10)
	for {
		p.mu.Lock()
		running := p.running
		p.mu.Unlock()
		<-running
		n, err := from.Read(buf)
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (p *proxy) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = make(chan struct{})
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.running:
	default:
		close(p.running)
	}
}

// cut resets all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		c.Close()
	}
	p.conns = nil
}

// A peer that stands still costs a bounded queue and refused batches, holds up
// nobody who sends, and goes on where it was when it wakes.
func TestForwardToOneThatStandsStill(t *testing.T) {
	sink := &testSink{ack: true}
	_, pod, _ := serve(t, testOptions("b@1", sink))
	still := newProxy(t, pod.Addr)
	healthy := &testSink{ack: true}
	_, other, _ := serve(t, testOptions("c@1", healthy))
	s, _ := forward(t, testOptions("a@1", &testSink{}), session.Pod{Owner: "b@1", Addr: still.lis.Addr().String()}, other)
	gen := connected(t, s, "b@1")
	connected(t, s, "c@1")

	x, y := &sender{s: s, to: "b@1"}, &sender{s: s, to: "c@1"}
	x.send(10)
	until(t, "it runs", func() bool { return sink.events() == 1 })
	still.stop()
	var longest time.Duration
	sends := 0
	until(t, "it is refused", func() bool {
		began := time.Now()
		ok := x.send(64 << 10)
		longest = max(longest, time.Since(began))
		sends++
		return !ok
	})
	for range 200 {
		began := time.Now()
		x.send(64 << 10)
		longest = max(longest, time.Since(began))
		if !y.send(10) {
			t.Fatal("one peer that stands still keeps batches from another")
		}
	}
	until(t, "the other has all", func() bool { return healthy.events() == 200 })
	if longest > 500*ms {
		t.Errorf("a Send took %v", longest)
	}
	p := (*s.peers.Load())["b@1"]
	if bytes := p.queued(); bytes > s.opts.QueueBytes {
		t.Errorf("%d bytes wait", bytes)
	}

	still.resume()
	until(t, "it takes batches again", func() bool { return x.send(10) })
	last := x.pos
	until(t, "the newest came", func() bool {
		got := sink.taken()
		return got[len(got)-1].Upto == last
	})
	if s.Stream("b@1") != gen {
		t.Error("the stream was made anew, for a pause below the keepalive")
	}
	upto := uint64(0)
	for _, b := range sink.taken() {
		if b.From < upto {
			t.Fatalf("(%d, %d] after %d: came twice or out of order", b.From, b.Upto, upto)
		}
		upto = b.Upto
	}
}

// A cut connection is another generation; the receiver is told.
func TestForwardAcrossACut(t *testing.T) {
	sink := &testSink{ack: true}
	_, pod, _ := serve(t, testOptions("b@1", sink))
	wire := newProxy(t, pod.Addr)
	s, _ := forward(t, testOptions("a@1", &testSink{}), session.Pod{Owner: "b@1", Addr: wire.lis.Addr().String()})
	for round := range 5 {
		gen := connected(t, s, "b@1")
		x := &sender{s: s, to: "b@1", pos: uint64(100 * round)}
		until(t, "one came", func() bool { return x.send(10) })
		until(t, "the receiver has it", func() bool { return sink.events() >= round+1 })
		wire.cut()
		until(t, "it is another stream", func() bool { return s.Stream("b@1") > gen })
	}
	until(t, "the sink was told of each", func() bool { return len(sink.told()) >= 11 })
	for i, what := range sink.told() {
		if want := []string{"+a@1", "-a@1"}[i%2]; what != want {
			t.Fatalf("told %v, which does not alternate", sink.told())
		}
	}
}

// Bytes that are no HTTP/2 and frames that are none end their connection only.
func TestServeSurvivesGarbage(t *testing.T) {
	sink := &testSink{ack: true}
	_, pod, _ := serve(t, testOptions("b@1", sink))
	s, _ := forward(t, testOptions("a@1", &testSink{}), pod)
	connected(t, s, "b@1")
	for _, junk := range []string{"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x16\x03\x01\x02\x00\x01"} {
		c, err := net.Dial("tcp", pod.Addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, junk)
		c.(*net.TCPConn).CloseWrite()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		io.Copy(io.Discard, c)
		c.Close()
	}
	x := &sender{s: s, to: "b@1"}
	if !x.send(10) {
		t.Error("refused")
	}
	until(t, "it came", func() bool { return sink.events() == 1 })
}
