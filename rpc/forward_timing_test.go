package rpc

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/daisi/daisi-ws/session"
)

var peerPod = session.Pod{Owner: "b@1", Addr: "127.0.0.1:1"}

// benchBatch has events of 300 bytes for several chats of one agent.
func benchBatch(events int) *session.Batch {
	b := &session.Batch{Stream: "stream-1", N: 1, Upto: uint64(events), Inc: "1795411297285854-8f3a"}
	agent := agentIn(1)
	for i := range events {
		b.Events = append(b.Events, session.Event{
			Seq:   uint64(i + 1),
			Stamp: 1795411297285854000,
			Route: session.Route{Company: "c", Agent: agent, Kind: session.KindMessages, Chat: fmt.Sprintf("62812345%d@s.whatsapp.net", i%5)},
			Body:  make([]byte, 300),
		})
	}
	return b
}

// countSink acks, and counts events.
type countSink struct{ events atomic.Int64 }

func (s *countSink) Take(b *session.Batch, ack func(uint64)) {
	s.events.Add(int64(len(b.Events)))
	ack(b.Upto)
}
func (s *countSink) StreamOpened(session.Owner) {}
func (s *countSink) StreamBroken(session.Owner) {}

// BenchmarkForward is the whole way over loopback TCP, both ends in this
// process: Send, queue, gRPC, decode, Take, ack. At most 4,096 events are on
// their way. cpu-ns/event is the processor time of all of it, which holds on a
// busy machine too.
func BenchmarkForward(b *testing.B) {
	for _, events := range []int{1, 10, 64} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			sink := &countSink{}
			_, pod, _ := serve(b, testOptions("b@1", sink))
			s, _ := forward(b, testOptions("a@1", &testSink{}), pod)
			connected(b, s, "b@1")
			tpl := benchBatch(events)
			b.ReportAllocs()
			pos, sent, cpu := uint64(0), int64(0), cpuTime()
			for b.Loop() {
				batch := &session.Batch{Stream: "stream-1", N: 1, From: pos, Upto: pos + uint64(events), Inc: tpl.Inc, Events: make([]session.Event, events)}
				copy(batch.Events, tpl.Events)
				for i := range batch.Events {
					batch.Events[i].Seq = pos + uint64(i) + 1
				}
				pos = batch.Upto
				for sent-sink.events.Load() > 4096 {
					time.Sleep(50 * time.Microsecond)
				}
				if !s.Send("b@1", batch) {
					b.Fatal("refused")
				}
				sent += int64(events)
			}
			for sink.events.Load() < sent {
				time.Sleep(50 * time.Microsecond)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/event")
			b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(sent), "cpu-ns/event")
		})
	}
}

// cpuTime is what this process used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRoundtrip is one batch alone: from Send to its ack.
func BenchmarkRoundtrip(b *testing.B) {
	sink := &countSink{}
	_, pod, _ := serve(b, testOptions("b@1", sink))
	s, _ := forward(b, testOptions("a@1", &testSink{}), pod)
	connected(b, s, "b@1")
	p := (*s.peers.Load())["b@1"]
	tpl := benchBatch(1)
	b.ReportAllocs()
	pos := uint64(0)
	for b.Loop() {
		batch := *tpl
		batch.From, batch.Upto = pos, pos+1
		batch.Events = []session.Event{tpl.Events[0]}
		batch.Events[0].Seq = pos + 1
		pos++
		if !s.Send("b@1", &batch) {
			b.Fatal("refused")
		}
		for unacked(p, 1) {
			time.Sleep(time.Microsecond)
		}
	}
}

func unacked(p *peer, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.ledgers[n]
	return l.head < len(l.sent)
}

func BenchmarkEncode(b *testing.B) {
	for _, events := range []int{1, 10, 64} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			f, c := &outFrame{batch: chunkOf(benchBatch(events))}, newCodec()
			b.ReportAllocs()
			for b.Loop() {
				data, _ := c.Marshal(f)
				data.Free()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, events := range []int{1, 10, 64} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			data := mem.BufferSlice{mem.SliceBuffer((&outFrame{batch: chunkOf(benchBatch(events))}).append(nil))}
			in, c := newInFrame(testPartitions), newCodec()
			b.ReportAllocs()
			for b.Loop() {
				c.Unmarshal(data, in)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
		})
	}
}
