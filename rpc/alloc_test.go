//go:build !race

package rpc

import (
	"testing"

	"google.golang.org/grpc/mem"
)

// Queueing for a peer, and taking out again, costs no memory once it is warm.
func TestSendAllocatesNothing(t *testing.T) {
	s := newService(t, testOptions("a@1", &testSink{}))
	p := newPeer(s, peerPod)
	defer p.leave()
	p.open("stream-1", func() {})
	b := batchOf(1, 0, 0, 300)
	var f outFrame
	one := func() {
		b.From, b.Upto = b.Upto, b.Upto+1
		if !p.send(b) || !p.next(&f) {
			t.Fatal("refused")
		}
		p.wrote(&f, nil)
		p.acked(mark{1, b.Upto})
	}
	for range 1000 {
		one()
	}
	if n := testing.AllocsPerRun(1000, one); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

// Reading a batch of 64 events costs as many allocations as one of 1: the
// copy of the message, the batch, its events, their routes.
func TestDecodeAllocatesPerBatch(t *testing.T) {
	for _, events := range []int{1, 64} {
		data := mem.BufferSlice{mem.SliceBuffer((&outFrame{batch: chunkOf(benchBatch(events))}).append(nil))}
		in, c := newInFrame(testPartitions), newCodec()
		n := testing.AllocsPerRun(1000, func() {
			if c.Unmarshal(data, in); in.err != nil {
				t.Fatal(in.err)
			}
		})
		if n > 4 {
			t.Errorf("%v allocations for %d events", n, events)
		}
	}
}
