package rpc

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/session"
)

// testSink notes what it takes, and acks it when told to.
type testSink struct {
	ack bool

	mu      sync.Mutex // guards the following
	batches []*session.Batch
	acks    []func(uint64)
	streams []string // "+owner" and "-owner"
}

func (s *testSink) Take(b *session.Batch, ack func(uint64)) {
	s.mu.Lock()
	s.batches = append(s.batches, b)
	s.acks = append(s.acks, ack)
	s.mu.Unlock()
	if s.ack {
		ack(b.Upto)
	}
}

func (s *testSink) StreamOpened(from session.Owner) { s.note("+" + string(from)) }
func (s *testSink) StreamBroken(from session.Owner) { s.note("-" + string(from)) }

func (s *testSink) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = append(s.streams, what)
}

func (s *testSink) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.streams...)
}

func (s *testSink) taken() []*session.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*session.Batch(nil), s.batches...)
}

func (s *testSink) events() int {
	n := 0
	for _, b := range s.taken() {
		n += len(b.Events)
	}
	return n
}

// testOptions are those of a service that talks in plain text.
func testOptions(owner session.Owner, sink Sink) Options {
	return Options{
		Owner:      owner,
		Partitions: testPartitions,
		Stream:     func() string { return "stream-1" },
		Sink:       sink,
		Creds:      Creds{Insecure: true},
		Log:        zerolog.Nop(),
	}
}

func newService(t testing.TB, o Options) *Service {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs f until the test ends, or until stop is called.
func start(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

// serve makes a pod that only receives.
func serve(t testing.TB, o Options) (s *Service, pod session.Pod, stop func()) {
	t.Helper()
	s = newService(t, o)
	lis := listen(t, "127.0.0.1:0")
	stop = start(t, func(ctx context.Context) error { return s.Serve(ctx, lis) })
	return s, session.Pod{Owner: o.Owner, Addr: lis.Addr().String()}, stop
}

// forward makes a pod that only sends, to these.
func forward(t testing.TB, o Options, to ...session.Pod) (s *Service, stop func()) {
	t.Helper()
	s = newService(t, o)
	s.SetPeers(to)
	return s, start(t, s.Run)
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func connected(t testing.TB, s *Service, to session.Owner) uint64 {
	t.Helper()
	until(t, "a stream to "+string(to), func() bool { return s.Stream(to) != 0 })
	return s.Stream(to)
}

func dropped(s *Service, why drop) int { return int(s.tally.dropped[why].Get()) }
