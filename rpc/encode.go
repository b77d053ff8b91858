package rpc

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/daisi/daisi-ws/session"
)

// wireVersion of Hello and Batch. A pod that says another one is refused.
const wireVersion = 1

// Tags of forward.proto: field number << 3 | wire type. All fit one byte, so
// that sizes below count 1 for each.
const (
	tagFrameHello    = 1<<3 | 2
	tagFrameBatch    = 2<<3 | 2
	tagFrameProgress = 3<<3 | 2
	tagFrameAck      = 4<<3 | 2

	tagBatchVersion   = 1 << 3
	tagBatchPartition = 2 << 3
	tagBatchFrom      = 3 << 3
	tagBatchUpto      = 4 << 3
	tagBatchInc       = 5<<3 | 2
	tagBatchEvent     = 6<<3 | 2
	tagBatchFence     = 7<<3 | 2
	tagBatchRevoked   = 8 << 3

	tagEventSeq   = 1 << 3
	tagEventStamp = 2<<3 | 1
	tagEventRoute = 3<<3 | 2
	tagEventBody  = 4<<3 | 2

	tagFenceCompany = 1<<3 | 2
	tagFenceAgent   = 2<<3 | 2
	tagFenceUser    = 3<<3 | 2
	tagFenceEpoch   = 4 << 3

	tagProgressMark = 1<<3 | 2

	tagMarkPartition = 1 << 3
	tagMarkFrom      = 2 << 3
	tagMarkUpto      = 3 << 3
	tagMarkInc       = 4<<3 | 2

	tagAckPartition = 1 << 3
	tagAckUpto      = 2 << 3
)

// outFrame is one Frame to be written: a chunk with events or fences, or the
// marks of several chunks without, or an ack. It is encoded while SendMsg runs.
type outFrame struct {
	batch *chunk
	marks []*chunk
	ack   mark
}

// mark is a partition and how far it got.
type mark struct {
	n    int
	upto uint64
}

// size is the exact number of bytes that append adds.
func (f *outFrame) size() int {
	inner := f.inner()
	return 1 + protowire.SizeVarint(uint64(inner)) + inner
}

func (f *outFrame) inner() int {
	switch {
	case f.batch != nil:
		return f.batch.size()
	case len(f.marks) > 0:
		n := 0
		for _, c := range f.marks {
			n += sizeBytes(markSize(c))
		}
		return n
	default:
		return sizeUint(uint64(f.ack.n)) + sizeUint(f.ack.upto)
	}
}

func (f *outFrame) append(b []byte) []byte {
	inner := uint64(f.inner())
	switch {
	case f.batch != nil:
		b = protowire.AppendVarint(append(b, tagFrameBatch), inner)
		return appendBatch(b, f.batch)
	case len(f.marks) > 0:
		b = protowire.AppendVarint(append(b, tagFrameProgress), inner)
		for _, c := range f.marks {
			b = protowire.AppendVarint(append(b, tagProgressMark), uint64(markSize(c)))
			b = appendUint(b, tagMarkPartition, uint64(c.n))
			b = appendUint(b, tagMarkFrom, c.from)
			b = appendUint(b, tagMarkUpto, c.upto)
			b = appendString(b, tagMarkInc, c.inc)
		}
		return b
	default:
		b = protowire.AppendVarint(append(b, tagFrameAck), inner)
		b = appendUint(b, tagAckPartition, uint64(f.ack.n))
		return appendUint(b, tagAckUpto, f.ack.upto)
	}
}

// size is that of the Batch message a chunk becomes.
func (c *chunk) size() int {
	return sizeUint(wireVersion) + sizeUint(uint64(c.n)) + sizeUint(c.from) + sizeUint(c.upto) + sizeString(c.inc) + c.content + sizeUint(c.revoked)
}

func appendBatch(b []byte, c *chunk) []byte {
	b = appendUint(b, tagBatchVersion, wireVersion)
	b = appendUint(b, tagBatchPartition, uint64(c.n))
	b = appendUint(b, tagBatchFrom, c.from)
	b = appendUint(b, tagBatchUpto, c.upto)
	b = appendString(b, tagBatchInc, c.inc)
	for _, part := range c.parts {
		for i := range part.Events {
			b = appendEvent(b, &part.Events[i])
		}
	}
	for _, part := range c.parts {
		for i := range part.Fences {
			b = appendFence(b, &part.Fences[i])
		}
	}
	return appendUint(b, tagBatchRevoked, c.revoked)
}

func appendEvent(b []byte, e *session.Event) []byte {
	b = protowire.AppendVarint(append(b, tagBatchEvent), uint64(eventSize(e)))
	b = appendUint(b, tagEventSeq, e.Seq)
	if e.Stamp != 0 {
		b = protowire.AppendFixed64(append(b, tagEventStamp), uint64(e.Stamp))
	}
	b = protowire.AppendVarint(append(b, tagEventRoute), uint64(routeSize(&e.Route)))
	b = append(append(b, e.Route.Company...), '.')
	b = append(append(b, e.Route.Agent...), '.')
	b = append(b, e.Route.Kind...)
	if e.Route.Chat != "" {
		b = append(append(b, '.'), e.Route.Chat...)
	}
	if len(e.Body) > 0 {
		b = protowire.AppendBytes(append(b, tagEventBody), e.Body)
	}
	return b
}

func appendFence(b []byte, f *session.Fence) []byte {
	b = protowire.AppendVarint(append(b, tagBatchFence), uint64(fenceSize(f)))
	b = appendString(b, tagFenceCompany, f.Company)
	b = appendString(b, tagFenceAgent, f.Agent)
	b = appendString(b, tagFenceUser, f.User)
	return appendUint(b, tagFenceEpoch, f.Epoch)
}

// contentSize is what the events and fences of b take within a Batch.
func contentSize(b *session.Batch) int {
	n := 0
	for i := range b.Events {
		n += sizeBytes(eventSize(&b.Events[i]))
	}
	for i := range b.Fences {
		n += sizeBytes(fenceSize(&b.Fences[i]))
	}
	return n
}

func eventSize(e *session.Event) int {
	n := sizeUint(e.Seq) + sizeBytes(routeSize(&e.Route))
	if e.Stamp != 0 {
		n += 1 + 8
	}
	if len(e.Body) > 0 {
		n += sizeBytes(len(e.Body))
	}
	return n
}

func routeSize(r *session.Route) int {
	n := len(r.Company) + 1 + len(r.Agent) + 1 + len(r.Kind)
	if r.Chat != "" {
		n += 1 + len(r.Chat)
	}
	return n
}

func fenceSize(f *session.Fence) int {
	return sizeString(f.Company) + sizeString(f.Agent) + sizeString(f.User) + sizeUint(f.Epoch)
}

func markSize(c *chunk) int {
	return sizeUint(uint64(c.n)) + sizeUint(c.from) + sizeUint(c.upto) + sizeString(c.inc)
}

// proto3 leaves out what is zero; so do these.

func sizeUint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func sizeString(s string) int {
	if s == "" {
		return 0
	}
	return sizeBytes(len(s))
}

func sizeBytes(n int) int { return 1 + protowire.SizeVarint(uint64(n)) + n }

func appendUint(b []byte, tag byte, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, tag), v)
}

func appendString(b []byte, tag byte, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(append(b, tag), s)
}
