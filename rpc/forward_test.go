package rpc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
	"github.com/daisi/daisi-ws/session"
)

// sender sends batches that continue each other, one after the other, and
// starts again from its position when the stream is another one.
type sender struct {
	s    *Service
	to   session.Owner
	n    int
	pos  uint64
	sent uint64
	gen  uint64
}

func (x *sender) send(size int) bool {
	if g := x.s.Stream(x.to); g != x.gen {
		x.gen, x.sent = g, x.pos
	}
	x.pos++
	b := batchOf(x.n, x.sent, x.pos, size)
	x.sent = x.pos
	return x.s.Send(x.to, b)
}

func TestForwardKeepsOrder(t *testing.T) {
	sink := &testSink{ack: true}
	_, pod, _ := serve(t, testOptions("b@1", sink))
	o := testOptions("a@1", &testSink{})
	o.AckTimeout = 10 * time.Second // a busy machine is not what is tested
	s, _ := forward(t, o, pod)
	connected(t, s, "b@1")

	const each = 2000
	var wg sync.WaitGroup
	for n := range testPartitions {
		wg.Go(func() {
			x := &sender{s: s, to: "b@1", n: n}
			for x.pos < each {
				size := int(x.pos % 7 * 50) // every 7th is progress
				if !x.send(size) {
					t.Errorf("partition %d: %d was refused", n, x.pos)
					return
				}
			}
		})
	}
	wg.Wait()
	want := testPartitions * each
	until(t, "all is sent", func() bool { return int(s.tally.batches.Get()) == want })
	var upto [testPartitions]uint64
	until(t, "all has come", func() bool {
		upto = [testPartitions]uint64{}
		for _, b := range sink.taken() {
			if b.From != upto[b.N] || b.Inc != "i" {
				t.Fatalf("(%d, %d] of %d after %d", b.From, b.Upto, b.N, upto[b.N])
			}
			upto[b.N] = b.Upto
		}
		return upto == [testPartitions]uint64{each, each, each, each}
	})
	var seqs [testPartitions][]uint64
	for _, b := range sink.taken() {
		for _, e := range b.Events {
			seqs[b.N] = append(seqs[b.N], e.Seq)
		}
	}
	for n := range seqs {
		events := each - (each+6)/7
		if !slices.IsSorted(seqs[n]) || len(seqs[n]) != events || len(slices.Compact(seqs[n])) != events {
			t.Errorf("partition %d: %d events, want %d, in order", n, len(seqs[n]), events)
		}
	}
	p := (*s.peers.Load())["b@1"]
	until(t, "all is acked", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, l := range p.ledgers {
			if l.head < len(l.sent) {
				return false
			}
		}
		return p.queue.bytes == 0
	})
}

func TestForwardCarriesAllOfABatch(t *testing.T) {
	sink := &testSink{ack: true}
	_, pod, _ := serve(t, testOptions("b@1", sink))
	s, _ := forward(t, testOptions("a@1", &testSink{}), pod)
	connected(t, s, "b@1")
	b := &session.Batch{Stream: "stream-1", N: 2, From: 7, Upto: 1 << 52, Inc: "inc-é", Fences: []session.Fence{{Company: "c", Agent: agentIn(2), User: "ü", Epoch: 1<<63 + 1}}}
	for i := range uint64(50) {
		r := session.Route{Company: "c", Agent: agentIn(2), Kind: session.KindMessages, Chat: fmt.Sprintf("62%d@s.whatsapp.net", i)}
		b.Events = append(b.Events, session.Event{Seq: 8 + i, Stamp: -int64(i), Route: r, Body: fmt.Appendf(nil, `{"i":%d}`, i)})
	}
	if !s.Send("b@1", b) {
		t.Fatal("refused")
	}
	until(t, "it has come", func() bool { return len(sink.taken()) == 1 })
	if got := sink.taken()[0]; !sameBatch(got, b) {
		t.Errorf("got  %+v\nwant %+v", got, b)
	}
}

// A peer that reads but never acks is sent a second's worth, then probes, and
// an ack sets it free.
func TestForwardToOneThatNeverAcks(t *testing.T) {
	sink := &testSink{}
	_, pod, _ := serve(t, testOptions("b@1", sink))
	o := testOptions("a@1", &testSink{})
	o.AckTimeout = 100 * ms
	s, _ := forward(t, o, pod)
	connected(t, s, "b@1")
	x := &sender{s: s, to: "b@1", n: 1}
	until(t, "it is refused", func() bool { return !x.send(10) })
	if dropped(s, dropUnacked) != 1 {
		t.Errorf("dropped as unacked: %d", dropped(s, dropUnacked))
	}
	until(t, "a probe goes out", func() bool { return x.send(10) })
	sink.mu.Lock()
	ack := sink.acks[0]
	sink.mu.Unlock()
	ack(1 << 40)
	until(t, "it is free", func() bool {
		for range 3 {
			if !x.send(10) {
				return false
			}
		}
		return true
	})
}

func TestForwardNoticesARestart(t *testing.T) {
	old := &testSink{ack: true}
	_, pod, stop := serve(t, testOptions("b@1", old))
	s, _ := forward(t, testOptions("a@1", &testSink{}), pod)
	first := connected(t, s, "b@1")
	x := &sender{s: s, to: "b@1", n: 0}
	if !x.send(10) {
		t.Fatal("refused")
	}
	until(t, "it came", func() bool { return old.events() == 1 })
	stop()
	until(t, "the stream is gone", func() bool { return s.Stream("b@1") == 0 })
	if x.send(10) {
		t.Error("sent to nobody")
	}
	if got := old.told(); !slices.Equal(got, []string{"+a@1", "-a@1"}) {
		t.Errorf("the sink was told %v", got)
	}

	// The same address, the same pod, another boot.
	sink := &testSink{ack: true}
	next := newService(t, testOptions("b@2", sink))
	lis := listen(t, pod.Addr)
	start(t, func(ctx context.Context) error { return next.Serve(ctx, lis) })
	time.Sleep(200 * ms)
	if s.Stream("b@1") != 0 {
		t.Error("another boot is taken for the former")
	}
	s.SetPeers([]session.Pod{{Owner: "b@2", Addr: pod.Addr}})
	if g := connected(t, s, "b@2"); g <= first {
		t.Errorf("generation %d after %d", g, first)
	}
	x.to = "b@2"
	if !x.send(10) {
		t.Error("refused")
	}
	until(t, "it came", func() bool { return sink.events() == 1 })
	if b := sink.taken()[0]; b.From != 2 || b.Upto != 3 {
		t.Errorf("(%d, %d], want from the sender's position on", b.From, b.Upto)
	}
}

// A peer may be back before its former connection is known to be lost.
func TestServeReplacesAnOlderStream(t *testing.T) {
	sink := &testSink{ack: true}
	_, pod, _ := serve(t, testOptions("b@1", sink))
	a, _ := forward(t, testOptions("a@1", &testSink{}), pod)
	connected(t, a, "b@1")
	again, stop := forward(t, testOptions("a@1", &testSink{}), pod)
	connected(t, again, "b@1")
	until(t, "the older one is ended", func() bool { return len(sink.told()) >= 3 })
	stop()
	for i, what := range sink.told() {
		if want := []string{"+a@1", "-a@1"}[i%2]; what != want {
			t.Fatalf("told %v, which does not alternate", sink.told())
		}
	}
}

func TestServeRefusesWhatDoesNotFit(t *testing.T) {
	f := func(name string, want codes.Code, frames ...*forwardpb.Frame) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			sink := &testSink{}
			_, pod, _ := serve(t, testOptions("b@1", sink))
			_, err := talk(t, pod.Addr, frames...)
			if status.Code(err) != want {
				t.Errorf("answered %v, want %v", err, want)
			}
			if len(sink.taken()) != 0 {
				t.Error("the sink was given something")
			}
			if told := sink.told(); len(told)%2 != 0 {
				t.Errorf("the sink was told %v", told)
			}
		})
	}
	hello := func(change func(*forwardpb.Hello)) *forwardpb.Frame {
		h := helloFrom("a@1")
		change(h)
		return &forwardpb.Frame{Frame: &forwardpb.Frame_Hello{Hello: h}}
	}
	good := hello(func(*forwardpb.Hello) {})
	f("version", codes.FailedPrecondition, hello(func(h *forwardpb.Hello) { h.Version = 9 }))
	f("partitions", codes.FailedPrecondition, hello(func(h *forwardpb.Hello) { h.Partitions = 64 }))
	f("stream", codes.FailedPrecondition, hello(func(h *forwardpb.Hello) { h.Stream = "x" }))
	f("our own id", codes.FailedPrecondition, hello(func(h *forwardpb.Hello) { h.OwnerId = "b@1" }))
	f("no hello", codes.InvalidArgument, &forwardpb.Frame{Frame: &forwardpb.Frame_Ack{Ack: &forwardpb.Ack{}}})
	f("nothing in it", codes.InvalidArgument, &forwardpb.Frame{})
	f("hello twice", codes.InvalidArgument, good, good)
	f("ack to a receiver", codes.InvalidArgument, good, &forwardpb.Frame{Frame: &forwardpb.Frame_Ack{Ack: &forwardpb.Ack{}}})
	f("bad batch", codes.InvalidArgument, good, &forwardpb.Frame{Frame: &forwardpb.Frame_Batch{Batch: &forwardpb.Batch{}}})
}

// talk sends frames by generated code and returns what is answered, and how it
// ended.
func talk(t *testing.T, addr string, frames ...*forwardpb.Frame) (answers []*forwardpb.Frame, err error) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stream, err := forwardpb.NewMessageForwardingServiceClient(conn).Forward(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if err := stream.Send(f); err != nil {
			break // Recv says why
		}
	}
	for {
		f, err := stream.Recv()
		if err != nil {
			return answers, err
		}
		answers = append(answers, f)
	}
}

// What a refused peer is told names both sides.
func TestRefusalSaysWhat(t *testing.T) {
	_, pod, _ := serve(t, testOptions("b@1", &testSink{}))
	h := helloFrom("a@1")
	h.Partitions = 64
	_, err := talk(t, pod.Addr, &forwardpb.Frame{Frame: &forwardpb.Frame_Hello{Hello: h}})
	if got, want := status.Convert(err).Message(), "the events stream has 64 partitions there, 4 here"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestServeWaitsForHelloOnlySoLong(t *testing.T) {
	o := testOptions("b@1", &testSink{})
	s := newService(t, o)
	s.recv.hello = 50 * ms
	lis := listen(t, "127.0.0.1:0")
	start(t, func(ctx context.Context) error { return s.Serve(ctx, lis) })
	if _, err := talk(t, lis.Addr().String()); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("ended with %v", err)
	}
}

func TestServeSurvivesAPanic(t *testing.T) {
	s, pod, _ := serve(t, testOptions("b@1", panicSink{}))
	a, _ := forward(t, testOptions("a@1", &testSink{}), pod)
	connected(t, a, "b@1")
	a.Send("b@1", batchOf(0, 0, 1, 1))
	until(t, "it panicked", func() bool { return s.tally.panics.Get() == 1 })
	until(t, "the peer is back", func() bool { return a.Stream("b@1") > 1 })
}

type panicSink struct{}

func (panicSink) Take(*session.Batch, func(uint64)) { panic("boo") }
func (panicSink) StreamOpened(session.Owner)        {}
func (panicSink) StreamBroken(session.Owner)        {}

func TestServeReportsHealth(t *testing.T) {
	_, pod, _ := serve(t, testOptions("b@1", &testSink{}))
	conn, err := grpc.NewClient(pod.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, name := range []string{"", "dws_message_fwd.MessageForwardingService"} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: name})
		cancel()
		if err != nil || answer.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v %v", name, answer, err)
		}
	}
}

// A watch of the health is a call that does not end by itself.
func TestServeEndsWithCallsOpen(t *testing.T) {
	_, pod, stop := serve(t, testOptions("b@1", &testSink{}))
	conn, err := grpc.NewClient(pod.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	a, _ := forward(t, testOptions("a@1", &testSink{}), pod)
	connected(t, a, "b@1")
	began := time.Now()
	stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestServeSaysWhenItsListenerFails(t *testing.T) {
	s := newService(t, testOptions("b@1", &testSink{}))
	lis := listen(t, "127.0.0.1:0")
	lis.Close()
	if err := s.Serve(t.Context(), lis); err == nil {
		t.Error("no error")
	}
}

// Two pods that forward to each other use a stream each.
func TestForwardBothWays(t *testing.T) {
	sinks := []*testSink{{ack: true}, {ack: true}}
	owners := []session.Owner{"a@1", "b@1"}
	var services []*Service
	var pods []session.Pod
	for i, sink := range sinks {
		s, pod, _ := serve(t, testOptions(owners[i], sink))
		services, pods = append(services, s), append(pods, pod)
	}
	for i, s := range services {
		s.SetPeers(pods)
		start(t, s.Run)
		connected(t, s, owners[1-i])
		if !s.Send(owners[1-i], batchOf(0, 0, 1, 10)) {
			t.Error("refused")
		}
	}
	for _, sink := range sinks {
		until(t, "both have it", func() bool { return sink.events() == 1 })
	}
}
