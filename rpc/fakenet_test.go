package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
