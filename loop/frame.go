package loop

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"

	"github.com/gobwas/ws"
)

// Lane of a Frame: within a lane frames keep their order, Control overtakes
// Events.
type Lane uint8

// Lanes.
const (
	Control Lane = iota
	Events
)

// Frame is one WebSocket message as it goes over the wire, header included. It
// is immutable and shared by every Conn it is queued on; nobody ends it.
type Frame struct {
	bytes  []byte
	small  atomic.Pointer[[]byte] // compressed, once a socket wanted it; bytes where that does not pay
	stamp  int64                  // unix ns of publishing, 0: not measured
	lane   Lane
	kind   uint8
	events uint8 // event copies that one queueing of it makes: 0 or 1
}

// NewFrame makes an unmasked frame, as servers send them, that is no event. The
// payload is copied. op is text, binary or, with at most 125 bytes, a control
// opcode.
func NewFrame(op ws.OpCode, payload []byte, lane Lane) *Frame {
	return &Frame{bytes: appendFrame(op, payload), lane: lane}
}

// NewEvent makes a text frame of one event. stamp is the unix time of its
// publishing in ns, 0 if unknown; kind is an index into Options.Kinds.
func NewEvent(payload []byte, stamp int64, kind uint8) *Frame {
	return NewEventParts(stamp, kind, payload)
}

// NewEventParts is NewEvent of the parts joined.
func NewEventParts(stamp int64, kind uint8, parts ...[]byte) *Frame {
	return &Frame{bytes: appendFrame(ws.OpText, parts...), stamp: stamp, lane: Events, kind: kind, events: 1}
}

// Len is the size on the wire in bytes, before TLS.
func (f *Frame) Len() int { return len(f.bytes) }

// Bytes are those on the wire; read only.
func (f *Frame) Bytes() []byte { return f.bytes }

// Lane that it is queued in.
func (f *Frame) Lane() Lane { return f.lane }

// Stamp as given to NewEvent.
func (f *Frame) Stamp() int64 { return f.stamp }

func appendFrame(op ws.OpCode, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := appendHeader(make([]byte, 0, headerSize(n)+n), op, n, false)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// newMasked makes a frame as clients send them.
func newMasked(op ws.OpCode, payload []byte, lane Lane) *Frame {
	n := len(payload)
	b := appendHeader(make([]byte, 0, headerSize(n)+4+n), op, n, true)
	var mask [4]byte
	binary.LittleEndian.PutUint32(mask[:], rand.Uint32())
	b = append(b, mask[:]...)
	at := len(b)
	b = append(b, payload...)
	ws.Cipher(b[at:], mask, 0)
	return &Frame{bytes: b, lane: lane}
}

func headerSize(payload int) int {
	switch {
	case payload <= 125:
		return 2
	case payload <= 0xffff:
		return 4
	default:
		return 10
	}
}

func appendHeader(b []byte, op ws.OpCode, n int, masked bool) []byte {
	b = append(b, 0x80|byte(op))
	var bit byte
	if masked {
		bit = 0x80
	}
	switch {
	case n <= 125:
		return append(b, bit|byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, bit|126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, bit|127), uint64(n))
	}
}

// closeBody is the payload of a close frame; 1005 and 1006 are never sent.
func closeBody(code uint16, reason string) []byte {
	if code == codeNoStatus || code == codeAbnormal || code == 0 {
		return nil
	}
	if len(reason) > 123 {
		reason = trimUTF8(reason, 123)
	}
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reason)), code), reason...)
}
