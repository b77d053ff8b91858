package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
	"github.com/daisi/daisi-ws/session"
)

// fakeNet answers dials with fakeLinks, or as broken says.
type fakeNet struct {
	mu     sync.Mutex // guards the following
	hello  *forwardpb.Hello
	broken error
	dials  []time.Time
	links  []*fakeLink
}

func (n *fakeNet) dial(ctx context.Context, _ string) (link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials = append(n.dials, time.Now())
	if n.broken != nil {
		return nil, n.broken
	}
	l := &fakeLink{ctx: ctx, hello: n.hello, acks: make(chan mark, 64), cut: make(chan struct{}), gate: make(chan struct{}, 1<<16)}
	n.links = append(n.links, l)
	return l, nil
}

func (n *fakeNet) set(broken error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broken = broken
}

func (n *fakeNet) dialed() []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]time.Time(nil), n.dials...)
}

// fakeLink writes a frame for each token in gate.
type fakeLink struct {
	ctx   context.Context
	hello *forwardpb.Hello
	acks  chan mark
	cut   chan struct{}
	gate  chan struct{}

	greeted bool
}

func (l *fakeLink) send(m any) error {
	if _, ok := m.(*outFrame); !ok {
		return nil
	}
	select {
	case <-l.gate:
		return nil
	case <-l.cut:
		return io.EOF
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}

func (l *fakeLink) recv(f *inFrame) error {
	if !l.greeted && l.hello != nil {
		l.greeted = true
		f.kind, f.hello = tagFrameHello, l.hello
		return nil
	}
	select {
	case f.ack = <-l.acks:
		f.kind = tagFrameAck
		return nil
	case <-l.cut:
		return errors.New("connection reset")
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}

func (l *fakeLink) close() {}

func helloFrom(owner session.Owner) *forwardpb.Hello {
	return &forwardpb.Hello{Version: 1, OwnerId: string(owner), Partitions: testPartitions, Stream: "stream-1"}
}

// inBubble runs f with a service whose one peer b@1 is on a fake network.
func inBubble(t *testing.T, f func(t *testing.T, s *Service, n *fakeNet)) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, testOptions("a@1", &testSink{}))
		n := &fakeNet{hello: helloFrom("b@1")}
		s.dial = n
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		s.SetPeers([]session.Pod{{Owner: "b@1", Addr: "b:1"}, {Owner: "a@1", Addr: "a:1"}})
		synctest.Wait()
		f(t, s, n)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestPeerBacksOffAndOpensItsBreaker(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
		n.set(errors.New("connection refused"))
		close(n.links[0].cut)
		began := time.Now()
		time.Sleep(20 * time.Second)
		dials := n.dialed()[1:]
		// 5 quick ones open the breaker, then about one per 2 s.
		if len(dials) < 10 || len(dials) > 20 {
			t.Errorf("%d dials in 20 s", len(dials))
		}
		if early := dials[3].Sub(began); early > time.Second {
			t.Errorf("the 4th dial came after %v", early)
		}
		p := (*s.peers.Load())["b@1"]
		for p.breaker.State() != gobreaker.StateOpen {
			time.Sleep(ms)
		}
		if s.Send("b@1", batchOf(0, 0, 1, 1)) || dropped(s, dropBreaker) != 1 {
			t.Error("sent through an open breaker")
		}
		n.set(nil)
		time.Sleep(3 * time.Second)
		if s.Stream("b@1") == 0 || p.breaker.State() != gobreaker.StateClosed {
			t.Error("a peer that is back is not found within 3 s")
		}
	})
}

func TestPeerRefusedIsTriedSlowly(t *testing.T) {
	f := func(name string, change func(h *forwardpb.Hello)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
				n.mu.Lock()
				n.hello = helloFrom("b@1")
				change(n.hello)
				n.mu.Unlock()
				close(n.links[0].cut)
				time.Sleep(30 * time.Second)
				if s.Stream("b@1") != 0 {
					t.Error("is taken as a peer")
				}
				if dials := len(n.dialed()); dials < 6 || dials > 14 {
					t.Errorf("%d dials in 30 s", dials)
				}
				n.mu.Lock()
				n.hello = helloFrom("b@1")
				n.mu.Unlock()
				time.Sleep(6 * time.Second)
				if s.Stream("b@1") == 0 {
					t.Error("not found when it fits again")
				}
			})
		})
	}
	f("version", func(h *forwardpb.Hello) { h.Version = 2 })
	f("partitions", func(h *forwardpb.Hello) { h.Partitions++ })
	f("stream", func(h *forwardpb.Hello) { h.Stream = "stream-2" })
	f("another boot", func(h *forwardpb.Hello) { h.OwnerId = "b@2" })
	f("no owner", func(h *forwardpb.Hello) { h.OwnerId = "" })
	f("ourselves", func(h *forwardpb.Hello) { h.OwnerId = "a@1" })
}

func TestPeerThatSaysNothingIsGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
		n.mu.Lock()
		n.hello = nil
		n.mu.Unlock()
		close(n.links[0].cut)
		time.Sleep(10 * time.Second)
		if dials := len(n.dialed()); dials < 3 || dials > 6 {
			t.Errorf("%d dials in 10 s", dials)
		}
	})
}

func TestPeerGenerationChangesWithTheStream(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
		first := s.Stream("b@1")
		if first == 0 {
			t.Fatal("no stream")
		}
		for i := range uint64(3) {
			if !s.Send("b@1", batchOf(0, i, i+1, 10)) {
				t.Fatal("refused")
			}
			synctest.Wait() // the first is being written, the others wait
		}
		close(n.links[0].cut)
		synctest.Wait()
		if s.Stream("b@1") != 0 {
			t.Error("a stream that broke has a generation")
		}
		if s.Send("b@1", batchOf(0, 3, 4, 10)) || dropped(s, dropNoStream) != 1 {
			t.Error("sent without a stream")
		}
		if got := dropped(s, dropBroken); got != 3 {
			t.Errorf("%d dropped with the stream, want 3", got)
		}
		time.Sleep(time.Second)
		if again := s.Stream("b@1"); again <= first {
			t.Errorf("generation %d after %d", again, first)
		}
		if p := (*s.peers.Load())["b@1"]; p.queued() != 0 {
			t.Errorf("%d bytes wait for the new stream", p.queued())
		}
	})
}

func TestPeerThatDoesNotReadIsStalled(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
		send := func(i uint64) bool {
			ok := s.Send("b@1", batchOf(int(i%testPartitions), i, i+1, 10))
			synctest.Wait()
			return ok
		}
		for i := range uint64(10) {
			if !send(i) {
				t.Fatal("refused at once")
			}
		}
		time.Sleep(time.Second + ms)
		for range 5 {
			if send(20) {
				t.Fatal("sent although nothing was read for a second")
			}
			time.Sleep(time.Second)
		}
		if dropped(s, dropStalled) != 5 {
			t.Errorf("%d dropped as stalled", dropped(s, dropStalled))
		}
		l := n.links[0]
		for range 100 {
			l.gate <- struct{}{}
		}
		for p := range testPartitions {
			l.acks <- mark{p, 10}
		}
		synctest.Wait()
		if !send(21) {
			t.Error("refused although it reads and acks again")
		}
	})
}

func TestPeerThatDoesNotAckGetsProbes(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
		for range 1 << 15 {
			n.links[0].gate <- struct{}{}
		}
		sent := 0
		for i := range uint64(100) { // 10 s
			if s.Send("b@1", batchOf(1, i, i+1, 10)) {
				sent++
			}
			time.Sleep(100 * ms)
		}
		if sent < 11+6 || sent > 11+9 {
			t.Errorf("%d sent in 10 s without an ack, want those of the first second and one a second", sent)
		}
		if !s.Send("b@1", batchOf(2, 0, 1, 10)) {
			t.Error("a partition that is slow there holds up another")
		}
		n.links[0].acks <- mark{1, 1000}
		synctest.Wait()
		if !s.Send("b@1", batchOf(1, 200, 201, 10)) {
			t.Error("refused after an ack")
		}
	})
}

func TestPeerQueueIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
		sent := uint64(0)
		for i := range uint64(1000) {
			if s.Send("b@1", batchOf(0, i, i+1, 100<<10)) {
				sent += 100 << 10
			}
			synctest.Wait()
		}
		if limit := uint64(s.opts.QueueBytes); sent > limit || sent < limit*9/10 {
			t.Errorf("%d bytes queued of %d", sent, limit)
		}
		if dropped(s, dropFull) == 0 {
			t.Error("none dropped")
		}
		if s.Send("b@1", batchOf(1, 0, 1, 9<<20)) || dropped(s, dropTooBig) != 1 {
			t.Error("took a batch over MaxMessage")
		}
	})
}

func TestPeersFollowTheLiveList(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
		first := s.Stream("b@1")
		s.SetPeers([]session.Pod{{Owner: "b@1", Addr: "b:1"}})
		synctest.Wait()
		if s.Stream("b@1") != first {
			t.Error("the same list made another stream")
		}
		s.SetPeers([]session.Pod{{Owner: "b@1", Addr: "b:2"}})
		synctest.Wait()
		if again := s.Stream("b@1"); again <= first {
			t.Errorf("another address: generation %d after %d", again, first)
		}
		n.mu.Lock()
		n.hello = helloFrom("b@2")
		n.mu.Unlock()
		s.SetPeers([]session.Pod{{Owner: "b@2", Addr: "b:2"}})
		synctest.Wait()
		if s.Stream("b@1") != 0 || s.Stream("b@2") == 0 {
			t.Error("another boot is another peer")
		}
		if s.Send("b@1", batchOf(0, 0, 1, 1)) || dropped(s, dropNoPeer) != 1 {
			t.Error("sent to a pod that left")
		}
		if s.Send("a@1", batchOf(0, 0, 1, 1)) {
			t.Error("sent to ourselves")
		}
		s.SetPeers(nil)
		synctest.Wait()
		if open := n.links[len(n.links)-1].ctx.Err(); open == nil {
			t.Error("a stream is open to nobody")
		}
	})
}

// The owner of Run starts it again when it failed.
func TestRunCanBeRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, testOptions("a@1", &testSink{}))
		s.dial = &fakeNet{hello: helloFrom("b@1")}
		s.SetPeers([]session.Pod{{Owner: "b@1", Addr: "b:1"}})
		last := uint64(0)
		for i := range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			go func() { time.Sleep(time.Second); synctest.Wait(); cancel() }()
			go func() {
				time.Sleep(ms)
				if g := s.Stream("b@1"); g <= last {
					t.Errorf("run %d: generation %d after %d", i, g, last)
				} else {
					last = g
				}
			}()
			if err := s.Run(ctx); err != nil || s.Stream("b@1") != 0 {
				t.Errorf("run %d: %v, stream %d", i, err, s.Stream("b@1"))
			}
		}
	})
}

func TestStreamIDChangeBreaksTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		id := "stream-1"
		o := testOptions("a@1", &testSink{})
		o.Stream = func() string { mu.Lock(); defer mu.Unlock(); return id }
		s := newService(t, o)
		n := &fakeNet{hello: helloFrom("b@1")}
		s.dial = n
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		s.SetPeers([]session.Pod{{Owner: "b@1", Addr: "b:1"}})
		synctest.Wait()
		mu.Lock()
		id = "stream-2"
		mu.Unlock()
		if s.Send("b@1", batchOf(0, 0, 1, 1)) || dropped(s, dropStreamChanged) != 1 {
			t.Error("sent under an id the peer did not agree on")
		}
		synctest.Wait()
		if s.Stream("b@1") != 0 {
			t.Error("the stream is still open")
		}
		n.mu.Lock()
		n.hello = helloFrom("b@1")
		n.hello.Stream = "stream-2"
		n.mu.Unlock()
		time.Sleep(10 * time.Second)
		if s.Stream("b@1") == 0 {
			t.Error("no stream under the new id")
		}
		cancel()
		<-done
	})
}

func TestOptionsAreChecked(t *testing.T) {
	f := func(name string, change func(o *Options)) {
		t.Helper()
		o := testOptions("a@1", &testSink{})
		change(&o)
		if _, err := New(o); (err != nil) != (name != "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f("", func(*Options) {})
	f("no owner", func(o *Options) { o.Owner = "" })
	f("no partitions", func(o *Options) { o.Partitions = 0 })
	f("no stream", func(o *Options) { o.Stream = nil })
	f("no sink", func(o *Options) { o.Sink = nil })
	f("no creds", func(o *Options) { o.Creds = Creds{} })
	f("small queue", func(o *Options) { o.QueueBytes = 1 })
	f("large message", func(o *Options) { o.MaxMessage = 2 << 30 })
	f("negative timeout", func(o *Options) { o.AckTimeout = -1 })
	f("legacy without push", func(o *Options) { o.Legacy = true })
}
