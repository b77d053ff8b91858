package rpc

import (
	"context"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
	"github.com/daisi/daisi-ws/session"
)

// fakeStream is what gRPC gives a handler: frames come in as bytes.
type fakeStream struct {
	grpc.ServerStream
	frames [][]byte
	codec  codec
}

func (s *fakeStream) RecvMsg(m any) error {
	if len(s.frames) == 0 {
		return io.EOF
	}
	f := s.frames[0]
	s.frames = s.frames[1:]
	return s.codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(f)}, m)
}

func (s *fakeStream) SendMsg(m any) error {
	data, err := s.codec.Marshal(m)
	data.Free()
	return err
}

// FuzzServe: whatever a peer says after whatever hello, nothing panics, the
// sink is only given batches that fit, and hears of a beginning and an end.
func FuzzServe(f *testing.F) {
	frame := func(m *forwardpb.Frame) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	hello := frame(&forwardpb.Frame{Frame: &forwardpb.Frame_Hello{Hello: helloFrom("a@1")}})
	batch := frame(generatedOf(batchOf(1, 5, 9, 20)))
	marks := (&outFrame{marks: []*chunk{{n: 1, from: 9, upto: 12, inc: "i"}}}).append(nil)
	f.Add(hello, batch, marks)
	f.Add(hello, marks, hello)
	f.Add(hello, []byte{}, batch)
	f.Add(batch, hello, marks)
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		sink := &testSink{ack: true}
		s := newService(t, testOptions("b@1", sink))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s.recv.serve(ctx, &fakeStream{frames: [][]byte{a, b, c}, codec: newCodec()})
		s.recv.wg.Wait()
		if n := s.tally.panics.Get(); n != 0 {
			t.Fatalf("%d panics", n)
		}
		told := sink.told()
		if len(told) != 0 && (len(told) != 2 || told[0][0] != '+' || told[1][0] != '-') || len(told) == 0 && len(sink.taken()) > 0 {
			t.Fatalf("%d batches, and was told %v", len(sink.taken()), told)
		}
		for _, got := range sink.taken() {
			checkTaken(t, got)
		}
	})
}

func checkTaken(t *testing.T, b *session.Batch) {
	if b.N < 0 || b.N >= testPartitions || b.From > b.Upto {
		t.Fatalf("took %+v", b)
	}
	last := b.From
	for _, e := range b.Events {
		if e.Seq <= last || e.Seq > b.Upto || session.Partition(e.Route.Company, e.Route.Agent, testPartitions) != b.N {
			t.Fatalf("took %+v of %+v", e, b)
		}
		last = e.Seq
	}
}
