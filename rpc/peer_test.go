package rpc

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
	"github.com/daisi/daisi-ws/session"
)

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

// A sign of life has no ack, so that a peer which was sent nothing else is never
// taken for a slow one.
func TestPeerNeedsNoAckForSigns(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
		for range 1 << 10 {
			n.links[0].gate <- struct{}{}
		}
		sign := &session.Batch{Stream: "stream-1", N: 1, From: 7, Upto: 7, Inc: "inc"}
		for range 10 {
			if !s.Send("b@1", sign) {
				t.Fatal("a sign was refused")
			}
			time.Sleep(time.Second)
		}
		real := *sign
		real.Upto = 8
		for i, want := range []bool{true, true, false} {
			if s.Send("b@1", &real) != want {
				t.Errorf("send %d without an ack: %v", i, !want)
			}
			real.From, real.Upto = real.Upto, real.Upto+1
			time.Sleep(900 * ms)
		}
	})
}

// Signs must not take the place of the probe by which a slow peer comes back.
func TestPeerSignsAreNoProbes(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
		for range 1 << 10 {
			n.links[0].gate <- struct{}{}
		}
		b := &session.Batch{Stream: "stream-1", N: 1, From: 7, Upto: 8, Inc: "inc"}
		s.Send("b@1", b)
		time.Sleep(2 * time.Second)
		if s.Send("b@1", &session.Batch{Stream: "stream-1", N: 1, From: 8, Upto: 9, Inc: "inc"}) {
			t.Error("sent although the last was not acked for 2 s")
		}
		for range 10 {
			if !s.Send("b@1", &session.Batch{Stream: "stream-1", N: 1, From: 9, Upto: 9, Inc: "inc"}) {
				t.Error("a sign was refused")
			}
			time.Sleep(500 * ms)
		}
		if !s.Send("b@1", &session.Batch{Stream: "stream-1", N: 1, From: 9, Upto: 10, Inc: "inc"}) {
			t.Error("no probe after 5 s: the signs took its place")
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
