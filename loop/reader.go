package loop

import (
	"encoding/binary"
	"sync"
	"unicode/utf8"
	"unsafe"

	"github.com/gobwas/ws"
)

// frameSink takes what a parser found. false: stop, the rest is not wanted.
type frameSink interface {
	message(op ws.OpCode, payload []byte) bool
	control(op ws.OpCode, payload []byte) bool
	empty() bool // a fragment, not the last, that has no byte
}

// parser is the static half of reading RFC 6455: one an Engine.
type parser struct {
	client  bool // frames come from a server: unmasked
	deflate bool // messages may be compressed
	max     int  // bytes of a message
	alloc   *Allocator
	idle    sync.Pool // of *reader
	zip     sync.Pool // of *inflater
}

// reader is the other half: what a socket has between two reads. It is nil at a
// frame's edge with no message under way.
type reader struct {
	began uint32 // Engine.now when the poller first left something in it
	// The frame under way: its header's bytes, then what is left of it.
	head  [ws.MaxHeaderSize]byte
	nhead uint8
	in    bool // header is complete
	frame header
	left  int // payload bytes not seen yet
	// The message under way; op 0: none.
	op   ws.OpCode
	zip  bool // compressed
	buf  *[]byte
	text utf8Stream
	// The control frame under way.
	ctl  [ws.MaxControlFramePayloadSize]byte
	nctl uint8
}

// header of a frame, checked.
type header struct {
	op     ws.OpCode
	fin    bool
	zip    bool // RSV1
	masked bool
	mask   [4]byte
	length int
}

// feed takes the next bytes of a socket, which it may change, and returns the
// state to come with next time. After an error or a sink's false, the state is
// of no more use (nil).
func (p *parser) feed(r *reader, data []byte, to frameSink) (*reader, error) {
	for len(data) > 0 {
		if r == nil || !r.in {
			var h header
			var err error
			n := 0
			if r != nil && r.nhead > 0 {
				n, err = p.resumeHeader(r, data, &h)
			} else {
				n, err = p.header(data, r.message(), &h)
			}
			if err != nil {
				p.drop(r)
				return nil, err
			}
			if n == 0 { // header not complete
				if r == nil {
					r = p.get()
				}
				if r.nhead == 0 {
					r.nhead = uint8(copy(r.head[:], data))
				}
				return r, nil
			}
			data = data[n:]
			if whole := len(data) >= h.length; whole && (h.op.IsControl() || h.fin && h.op != ws.OpContinuation) {
				on, err := p.deliver(&h, data[:h.length], to)
				if err != nil || !on {
					p.drop(r)
					return nil, err
				}
				data = data[h.length:]
				r = p.rest(r)
				continue
			}
			if r == nil {
				r = p.get()
			}
			r.begin(&h)
		}
		n := min(len(data), r.left)
		on, err := p.payload(r, data[:n], to)
		if err != nil || !on {
			p.drop(r)
			return nil, err
		}
		data = data[n:]
		r = p.rest(r)
	}
	return r, nil
}

// message is the opcode of the message under way, 0 for none.
func (r *reader) message() ws.OpCode {
	if r == nil {
		return 0
	}
	return r.op
}

// size is the memory that r takes.
func (r *reader) size() int {
	n := int(unsafe.Sizeof(*r))
	if r.buf != nil {
		n += cap(*r.buf)
	}
	return n
}

// begin enters the payload of h.
func (r *reader) begin(h *header) {
	r.in, r.frame, r.left, r.nhead = true, *h, h.length, 0
	if h.op == ws.OpText || h.op == ws.OpBinary {
		r.op, r.zip = h.op, h.zip
	}
}

// rest gives r back when there is nothing in it.
func (p *parser) rest(r *reader) *reader {
	if r == nil || r.in || r.op != 0 || r.nhead > 0 {
		return r
	}
	p.drop(r)
	return nil
}

func (p *parser) get() *reader {
	if r, ok := p.idle.Get().(*reader); ok {
		return r
	}
	return new(reader)
}

func (p *parser) drop(r *reader) {
	if r == nil {
		return
	}
	if r.buf != nil {
		p.alloc.Free(r.buf)
	}
	*r = reader{}
	p.idle.Put(r)
}

// resumeHeader completes the header in r with data's first bytes; it returns
// how many it took, 0 when it took all and the header is still not complete.
func (p *parser) resumeHeader(r *reader, data []byte, h *header) (int, error) {
	had := int(r.nhead)
	c := copy(r.head[had:], data)
	n, err := p.header(r.head[:had+c], r.op, h)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		r.nhead += uint8(c)
		return 0, nil
	}
	r.nhead = 0
	return n - had, nil
}

// header reads and checks one; 0 when data does not hold all of it. What is
// wrong is found as soon as its byte is there.
func (p *parser) header(data []byte, under ws.OpCode, h *header) (int, error) {
	if len(data) < 2 {
		return 0, nil
	}
	b0, b1 := data[0], data[1]
	h.fin = b0&0x80 != 0
	h.op = ws.OpCode(b0 & 0x0f)
	h.masked = b1&0x80 != 0
	h.zip = b0&0x70 == rsv1
	switch {
	case b0&0x70 != 0 && !(h.zip && p.deflate && (h.op == ws.OpText || h.op == ws.OpBinary)):
		return 0, errReservedBits
	case h.op.IsReserved():
		return 0, errOpCode
	case !h.masked && !p.client:
		return 0, errMaskMissing
	case h.masked && p.client:
		return 0, errMaskPresent
	case h.op.IsControl() && b1&0x7f > ws.MaxControlFramePayloadSize:
		return 0, errControlSize
	case h.op.IsControl() && !h.fin:
		return 0, errControlFrag
	case h.op == ws.OpContinuation && under == 0:
		return 0, errContinuation
	case !h.op.IsControl() && h.op != ws.OpContinuation && under != 0:
		return 0, errInterleaved
	}
	n := 2
	length := uint64(b1 & 0x7f)
	switch length {
	case 126:
		if n += 2; len(data) < n {
			return 0, nil
		}
		if length = uint64(binary.BigEndian.Uint16(data[2:])); length <= 125 {
			return 0, errLength
		}
	case 127:
		if n += 8; len(data) < n {
			return 0, nil
		}
		length = binary.BigEndian.Uint64(data[2:])
		switch {
		case length>>63 != 0:
			return 0, errLengthBit
		case length <= 0xffff:
			return 0, errLength
		}
	}
	if !h.op.IsControl() && length > uint64(p.max) {
		return 0, errTooBig // before the mask, and before any cast
	}
	h.length = int(length)
	if h.masked {
		if len(data) < n+4 {
			return 0, nil
		}
		h.mask = [4]byte(data[n:])
		n += 4
	}
	return n, nil
}

// deliver hands on a frame that is whole in one piece and no part of a message.
func (p *parser) deliver(h *header, payload []byte, to frameSink) (bool, error) {
	if h.masked {
		ws.Cipher(payload, h.mask, 0)
	}
	if h.op.IsControl() {
		return to.control(h.op, payload), nil
	}
	if h.zip {
		return p.inflate(h.op, payload, to)
	}
	if h.op == ws.OpText {
		var u utf8Stream
		if !u.write(payload) || !u.whole() {
			return false, errText
		}
	}
	return to.message(h.op, payload), nil
}

// payload takes the next bytes of the frame in r.
func (p *parser) payload(r *reader, b []byte, to frameSink) (bool, error) {
	if r.frame.masked {
		ws.Cipher(b, r.frame.mask, r.frame.length-r.left)
	}
	r.left -= len(b)
	if r.left == 0 {
		r.in = false
	}
	if r.frame.op.IsControl() {
		r.nctl += uint8(copy(r.ctl[r.nctl:], b))
		if r.in {
			return true, nil
		}
		n := r.nctl
		r.nctl = 0
		return to.control(r.frame.op, r.ctl[:n]), nil
	}
	if len(b) > 0 {
		if r.buf == nil {
			r.buf = p.alloc.Malloc(0)
		}
		if len(*r.buf)+len(b)+r.left > p.max {
			return false, errTooBig
		}
		if r.op == ws.OpText && !r.zip && !r.text.write(b) {
			return false, errText
		}
		r.buf = p.alloc.Append(r.buf, b...)
	}
	if r.in || !r.frame.fin {
		return r.frame.length > 0 || to.empty(), nil
	}
	if !r.text.whole() {
		return false, errText
	}
	return p.complete(r, to)
}

// complete hands on the message in r and forgets it.
func (p *parser) complete(r *reader, to frameSink) (bool, error) {
	op, buf, zip := r.op, r.buf, r.zip
	r.op, r.buf, r.zip = 0, nil, false
	if buf == nil {
		if zip {
			return false, errDeflate // an empty message has a byte
		}
		return to.message(op, nil), nil
	}
	defer p.alloc.Free(buf)
	if zip {
		return p.inflate(op, *buf, to)
	}
	return to.message(op, *buf), nil
}

// inflate hands on a compressed message. Its text is looked at as a whole: what
// it holds is known only when it is there.
func (p *parser) inflate(op ws.OpCode, payload []byte, to frameSink) (bool, error) {
	z, ok := p.zip.Get().(*inflater)
	if !ok {
		z = newInflater()
	}
	defer p.zip.Put(z)
	plain, err := z.inflate(payload, p.max)
	if err != nil {
		return false, err
	}
	if op == ws.OpText && !utf8.Valid(plain) {
		return false, errText
	}
	return to.message(op, plain), nil
}
