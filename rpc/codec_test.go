package rpc

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
	"github.com/daisi/daisi-ws/session"
)

const testPartitions = 4

// agentIn finds an agent of company c whose events belong to partition n.
func agentIn(n int) string {
	for i := 0; ; i++ {
		if a := fmt.Sprintf("agent-%d", i); session.Partition("c", a, testPartitions) == n {
			return a
		}
	}
}

// drawBatch makes any batch of partition n that continues from.
func drawBatch(t *rapid.T, n int, from uint64) *session.Batch {
	text := rapid.StringMatching(`[a-zé@]{1,8}(\.[a-z]{1,3})?`)
	id := rapid.StringMatching(`[a-zA-Zéж0-9]{1,9}`)
	b := &session.Batch{N: n, From: from, Upto: from, Inc: rapid.StringN(0, 20, 80).Draw(t, "inc"), Revoked: rapid.Uint64().Draw(t, "revoked")}
	for range rapid.IntRange(0, 5).Draw(t, "events") {
		b.Upto += rapid.Uint64Range(1, 1<<40).Draw(t, "gap")
		route := session.Route{Company: "c", Agent: agentIn(n), Kind: "chats"}
		if rapid.Bool().Draw(t, "message") {
			route.Kind, route.Chat = session.KindMessages, text.Draw(t, "chat")
		}
		b.Events = append(b.Events, session.Event{
			Seq:   b.Upto,
			Stamp: rapid.Int64().Draw(t, "stamp"),
			Route: route,
			Body:  rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body"),
		})
	}
	for range rapid.IntRange(0, 2).Draw(t, "fences") {
		b.Fences = append(b.Fences, session.Fence{Company: "c", Agent: agentIn(n), User: id.Draw(t, "user"), Epoch: rapid.Uint64().Draw(t, "epoch")})
	}
	b.Upto += rapid.Uint64Range(0, 3).Draw(t, "tail")
	return b
}

// generatedOf is the frame as the generated code knows it.
func generatedOf(batches ...*session.Batch) *forwardpb.Frame {
	first := batches[0]
	pb := &forwardpb.Batch{Version: wireVersion, Partition: uint32(first.N), From: first.From, Inc: first.Inc}
	for _, b := range batches {
		pb.Upto, pb.Revoked = b.Upto, max(pb.Revoked, b.Revoked)
		for _, e := range b.Events {
			route := e.Route.Company + "." + e.Route.Agent + "." + e.Route.Kind
			if e.Route.Chat != "" {
				route += "." + e.Route.Chat
			}
			pb.Events = append(pb.Events, &forwardpb.Event{Seq: e.Seq, Stamp: e.Stamp, Route: route, Body: e.Body})
		}
		for _, f := range b.Fences {
			pb.Fences = append(pb.Fences, &forwardpb.Fence{Company: f.Company, Agent: f.Agent, User: f.User, Epoch: f.Epoch})
		}
	}
	return &forwardpb.Frame{Frame: &forwardpb.Frame_Batch{Batch: pb}}
}

func sameBatch(a, b *session.Batch) bool {
	if a.N != b.N || a.From != b.From || a.Upto != b.Upto || a.Inc != b.Inc || a.Revoked != b.Revoked || len(a.Events) != len(b.Events) || len(a.Fences) != len(b.Fences) {
		return false
	}
	for i := range a.Events {
		x, y := &a.Events[i], &b.Events[i]
		if x.Seq != y.Seq || x.Stamp != y.Stamp || x.Route != y.Route || !bytes.Equal(x.Body, y.Body) {
			return false
		}
	}
	for i := range a.Fences {
		if a.Fences[i] != b.Fences[i] {
			return false
		}
	}
	return true
}

func TestFramesAreTheGeneratedOnes(t *testing.T) {
	same := func(t *rapid.T, f *outFrame, want *forwardpb.Frame) []byte {
		got, size := f.append(nil), f.size()
		if len(got) != size {
			t.Fatalf("size says %d, append wrote %d", size, len(got))
		}
		wanted, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, wanted) {
			t.Fatalf("got  %x\nwant %x", got, wanted)
		}
		return got
	}
	t.Run("batch", rapid.MakeCheck(func(t *rapid.T) {
		n := rapid.IntRange(0, testPartitions-1).Draw(t, "n")
		first := drawBatch(t, n, rapid.Uint64Range(0, 1<<50).Draw(t, "from"))
		second := drawBatch(t, n, first.Upto)
		second.Inc = first.Inc
		q := newQueue(1<<30, 1<<30)
		q.push(first, contentSize(first), 0)
		q.push(second, contentSize(second), 0)
		f := &outFrame{}
		if !q.take(f) || f.batch == nil {
			return // progress only
		}
		b := same(t, f, generatedOf(first, second))
		in := newInFrame(testPartitions)
		if err := in.decode(b); err != nil {
			t.Fatalf("decode: %v", err)
		}
		joined := *first
		joined.Upto, joined.Revoked = second.Upto, max(first.Revoked, second.Revoked)
		joined.Events = append(append([]session.Event(nil), first.Events...), second.Events...)
		joined.Fences = append(append([]session.Fence(nil), first.Fences...), second.Fences...)
		if !sameBatch(in.batch, &joined) {
			t.Fatalf("got  %+v\nwant %+v", in.batch, joined)
		}
	}))
	t.Run("progress", rapid.MakeCheck(func(t *rapid.T) {
		f, pb := &outFrame{}, &forwardpb.Progress{}
		for range rapid.IntRange(1, 6).Draw(t, "marks") {
			c := &chunk{n: rapid.IntRange(0, 3).Draw(t, "n"), from: rapid.Uint64Range(0, 1<<40).Draw(t, "from"), inc: rapid.String().Draw(t, "inc")}
			c.upto = c.from + rapid.Uint64Range(0, 1<<40).Draw(t, "upto")
			f.marks = append(f.marks, c)
			pb.Marks = append(pb.Marks, &forwardpb.Mark{Partition: uint32(c.n), From: c.from, Upto: c.upto, Inc: c.inc})
		}
		b := same(t, f, &forwardpb.Frame{Frame: &forwardpb.Frame_Progress{Progress: pb}})
		in := newInFrame(testPartitions)
		if err := in.decode(b); err != nil || len(in.marks) != len(f.marks) {
			t.Fatalf("decode: %v, %d marks", err, len(in.marks))
		}
		for i, c := range f.marks {
			if got := in.marks[i]; got.N != c.n || got.From != c.from || got.Upto != c.upto || got.Inc != c.inc {
				t.Fatalf("mark %d: %+v", i, got)
			}
		}
	}))
	t.Run("ack", rapid.MakeCheck(func(t *rapid.T) {
		m := mark{rapid.IntRange(0, 3).Draw(t, "n"), rapid.Uint64().Draw(t, "upto")}
		b := same(t, &outFrame{ack: m}, &forwardpb.Frame{Frame: &forwardpb.Frame_Ack{Ack: &forwardpb.Ack{Partition: uint32(m.n), Upto: m.upto}}})
		in := newInFrame(testPartitions)
		if err := in.decode(b); err != nil || in.ack != m {
			t.Fatalf("decode: %v, %+v", err, in.ack)
		}
	}))
}

func TestDecodeRefuses(t *testing.T) {
	agent := agentIn(1)
	event := func(seq uint64, route string) *forwardpb.Event {
		return &forwardpb.Event{Seq: seq, Route: route, Body: []byte("{}")}
	}
	f := func(name string, change func(b *forwardpb.Batch)) {
		t.Helper()
		b := &forwardpb.Batch{Version: 1, Partition: 1, From: 5, Upto: 9, Inc: "i"}
		b.Events = []*forwardpb.Event{event(6, "c."+agent+".chats"), event(7, "c."+agent+".messages.x.y")}
		b.Fences = []*forwardpb.Fence{{Company: "c", Agent: agent, User: "u", Epoch: 3}}
		change(b)
		raw, err := proto.Marshal(&forwardpb.Frame{Frame: &forwardpb.Frame_Batch{Batch: b}})
		if err != nil {
			t.Fatal(err)
		}
		err = newInFrame(testPartitions).decode(raw)
		if (err != nil) != (name != "as it should be") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f("as it should be", func(*forwardpb.Batch) {})
	f("another version", func(b *forwardpb.Batch) { b.Version = 2 })
	f("no version", func(b *forwardpb.Batch) { b.Version = 0 })
	f("partition too large", func(b *forwardpb.Batch) { b.Partition = testPartitions })
	f("partition very large", func(b *forwardpb.Batch) { b.Partition = 1<<32 - 1 })
	f("upto before from", func(b *forwardpb.Batch) { b.From = 10 })
	f("long incarnation", func(b *forwardpb.Batch) { b.Inc = string(make([]byte, maxInc+1)) })
	f("event not after from", func(b *forwardpb.Batch) { b.Events[0].Seq = 5 })
	f("event after upto", func(b *forwardpb.Batch) { b.Events[1].Seq = 10 })
	f("events out of order", func(b *forwardpb.Batch) { b.Events[0].Seq = 8 })
	f("event twice", func(b *forwardpb.Batch) { b.Events[0].Seq = 7 })
	f("no route", func(b *forwardpb.Batch) { b.Events[0].Route = "" })
	f("route without kind", func(b *forwardpb.Batch) { b.Events[0].Route = "c." + agent })
	f("messages without chat", func(b *forwardpb.Batch) { b.Events[0].Route = "c." + agent + ".messages" })
	f("route of another partition", func(b *forwardpb.Batch) { b.Events[0].Route = "c." + agentIn(2) + ".chats" })
	f("fence of another partition", func(b *forwardpb.Batch) { b.Fences[0].Agent = agentIn(2) })

	raw := func(name string, b []byte) {
		t.Helper()
		if err := newInFrame(testPartitions).decode(b); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
	ack := (&outFrame{ack: mark{1, 2}}).append(nil)
	raw("nothing", nil)
	raw("unknown part only", []byte{5<<3 | 2, 0})
	raw("two parts", append(ack[:len(ack):len(ack)], ack...))
	raw("cut", ack[:len(ack)-1])
	raw("length beyond the end", []byte{tagFrameBatch, 0xff, 0xff, 0xff, 0xff, 0x7f})
	raw("ack of no partition", (&outFrame{ack: mark{testPartitions, 2}}).append(nil))
	raw("bad UTF-8", []byte{tagFrameBatch, 5, tagBatchVersion, 1, tagBatchInc, 1, 0xff})
}

// What is read must stay as it was although gRPC takes its buffer back.
func TestBodiesOutliveTheMessage(t *testing.T) {
	b := &session.Batch{N: 1, Upto: 3, Inc: "i", Events: []session.Event{{Seq: 3, Route: session.Route{Company: "c", Agent: agentIn(1), Kind: "chats"}, Body: []byte(`{"a":1}`)}}}
	raw := (&outFrame{batch: chunkOf(b)}).append(nil)
	in := newInFrame(testPartitions)
	if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, in); err != nil || in.err != nil {
		t.Fatal(err, in.err)
	}
	clear(raw)
	if !sameBatch(in.batch, b) {
		t.Fatalf("changed with the buffer: %+v", in.batch)
	}
}

func chunkOf(b *session.Batch) *chunk {
	c := &chunk{n: b.N, from: b.From, inc: b.Inc, since: time.Duration(0)}
	c.add(b, contentSize(b))
	return c
}

// FuzzDecode: no bytes panic, and what we take, the generated code takes too,
// with the same meaning.
func FuzzDecode(f *testing.F) {
	b := &session.Batch{
		N: 1, From: 5, Upto: 300, Inc: "i", Revoked: 7,
		Events: []session.Event{
			{Seq: 6, Stamp: -1, Route: session.Route{Company: "c", Agent: agentIn(1), Kind: "messages", Chat: "a@b.c"}, Body: []byte(`{}`)},
			{Seq: 299, Route: session.Route{Company: "c", Agent: agentIn(1), Kind: "chats"}},
		},
		Fences: []session.Fence{{Company: "c", Agent: agentIn(1), User: "u", Epoch: 1 << 60}},
	}
	f.Add((&outFrame{batch: chunkOf(b)}).append(nil))
	f.Add((&outFrame{marks: []*chunk{{n: 1, from: 4, upto: 8, inc: "i"}, {n: 2}}}).append(nil))
	f.Add((&outFrame{ack: mark{3, 1 << 63}}).append(nil))
	hello, _ := proto.Marshal(&forwardpb.Frame{Frame: &forwardpb.Frame_Hello{Hello: &forwardpb.Hello{Version: 1, OwnerId: "a@1", Partitions: 4, Stream: "s"}}})
	f.Add(hello)
	f.Add([]byte{0x0b, 0x0c, tagFrameAck, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		in := newInFrame(testPartitions)
		if in.decode(data) != nil {
			return
		}
		var pb forwardpb.Frame
		if err := proto.Unmarshal(data, &pb); err != nil {
			t.Fatalf("taken, although the generated code says %v", err)
		}
		compareFrame(t, in, &pb)
	})
}

func compareFrame(t *testing.T, in *inFrame, pb *forwardpb.Frame) {
	switch in.kind {
	case tagFrameHello:
		if !proto.Equal(in.hello, pb.GetHello()) {
			t.Fatalf("hello %v, want %v", in.hello, pb)
		}
	case tagFrameBatch:
		want, again := pb.GetBatch(), generatedOf(in.batch).GetBatch()
		stripUnknown(want)
		if !proto.Equal(again, want) {
			t.Fatalf("batch %v, want %v", again, want)
		}
	case tagFrameProgress:
		for i, m := range pb.GetProgress().Marks {
			if got := in.marks[i]; got.N != int(m.Partition) || got.From != m.From || got.Upto != m.Upto || got.Inc != m.Inc {
				t.Fatalf("mark %+v, want %v", got, m)
			}
		}
	case tagFrameAck:
		if m := pb.GetAck(); in.ack != (mark{int(m.Partition), m.Upto}) {
			t.Fatalf("ack %+v, want %v", in.ack, m)
		}
	}
}

func stripUnknown(b *forwardpb.Batch) {
	b.ProtoReflect().SetUnknown(nil)
	for _, e := range b.Events {
		e.ProtoReflect().SetUnknown(nil)
	}
	for _, f := range b.Fences {
		f.ProtoReflect().SetUnknown(nil)
	}
}
