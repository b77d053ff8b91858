package loop

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gobwas/ws"
	"github.com/klauspost/compress/flate"
)

// Deflate is permessage-deflate (RFC 7692) without context takeover in either
// direction: a connection keeps nothing but the flag that it was negotiated. An
// event is compressed at most once, by the worker that first writes it to a
// socket that wants it so, and its bytes are shared by all of those.

// DeflateAnswer is what Sec-WebSocket-Extensions answers when deflate was
// accepted.
const DeflateAnswer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

const (
	// deflateFrom is the payload in bytes from which compressing is worth it.
	deflateFrom = 160
	// maxWindow is the only window of ours, in bits.
	maxWindow = 15
	// rsv1 marks a compressed message.
	rsv1 = 0x40
)

// OffersDeflate says whether h has an offer of permessage-deflate that this
// package can accept with DeflateAnswer.
func OffersDeflate(h http.Header) bool {
	for _, line := range h["Sec-Websocket-Extensions"] {
		for offer := range strings.SplitSeq(line, ",") {
			if acceptable(offer) {
				return true
			}
		}
	}
	return false
}

// acceptable reads one offer. What is not in RFC 7692, or twice, makes it none.
func acceptable(offer string) bool {
	name, params, more := strings.Cut(offer, ";")
	if strings.TrimSpace(name) != "permessage-deflate" {
		return false
	}
	seen := map[string]bool{}
	for param := range strings.SplitSeq(params, ";") {
		if !more {
			break
		}
		key, value, has := strings.Cut(strings.TrimSpace(param), "=")
		if seen[key] {
			return false
		}
		seen[key] = true
		bits, err := strconv.Atoi(strings.Trim(value, `"`))
		inRange := err == nil && bits >= 8 && bits <= maxWindow
		switch key {
		case "server_no_context_takeover", "client_no_context_takeover":
			if has {
				return false
			}
		case "client_max_window_bits": // it may keep a smaller window: we read any
			if has && !inRange {
				return false
			}
		case "server_max_window_bits":
			if !inRange || bits != maxWindow {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// UseDeflate says that permessage-deflate was negotiated for c, which is not
// adopted yet.
func (c *Conn) UseDeflate() {
	c.shard.mu.Lock()
	c.set(flagDeflate)
	c.shard.mu.Unlock()
}

// on is the frame as c gets it: compressed if that was negotiated and pays.
func (f *Frame) on(c *Conn) []byte {
	if !c.is(flagDeflate) || f.lane != Events || len(f.bytes) < deflateFrom {
		return f.bytes
	}
	if z := f.small.Load(); z != nil {
		return *z
	}
	return c.engine().press.press(f)
}

// press compresses frames, each once.
type press struct {
	making [16]sync.Mutex // of frames, spread by their stamps
	bufs   sync.Pool      // of *bytes.Buffer
	made   atomic.Uint64
}

// press fills f.small and returns its bytes.
func (p *press) press(f *Frame) []byte {
	mu := &p.making[uint64(f.stamp)%uint64(len(p.making))]
	mu.Lock()
	defer mu.Unlock()
	if z := f.small.Load(); z != nil { // another worker was faster
		return *z
	}
	buf, ok := p.bufs.Get().(*bytes.Buffer)
	if !ok {
		buf = new(bytes.Buffer)
	}
	defer func() { buf.Reset(); p.bufs.Put(buf) }()
	p.made.Add(1)
	small := f.bytes
	payload := f.bytes[headerSizeOf(f.bytes):]
	// Never fails on a buffer; if it did, plain bytes are right too.
	if flate.StatelessDeflate(buf, payload, false, nil) == nil {
		z := bytes.TrimSuffix(buf.Bytes(), syncTail)
		if headerSize(len(z))+len(z) < len(f.bytes) {
			small = appendHeader(make([]byte, 0, headerSize(len(z))+len(z)), ws.OpText, len(z), false)
			small[0] = f.bytes[0] | rsv1
			small = append(small, z...)
		}
	}
	f.small.Store(&small)
	return small
}

// headerSizeOf is the size of the header of an unmasked frame.
func headerSizeOf(frame []byte) int {
	switch frame[1] {
	case 126:
		return 4
	case 127:
		return 10
	}
	return 2
}

// syncTail ends every flushed block; it is left out on the wire (RFC 7692, 7.2.1).
var syncTail = []byte{0x00, 0x00, 0xff, 0xff}

// lastBlock stands behind a message for the reader: the tail that was left out,
// and an empty final block, so that it ends.
const lastBlock = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

// inflater decompresses messages; pooled, for its window is 32 KiB.
type inflater struct {
	in  deflated
	z   io.ReadCloser
	out []byte
}

// deflated is a message and lastBlock, read byte by byte: a buffer in front of
// it would hide what is left behind a final block.
type deflated struct {
	data []byte
	end  string
}

func (d *deflated) ReadByte() (byte, error) {
	switch {
	case len(d.data) > 0:
		b := d.data[0]
		d.data = d.data[1:]
		return b, nil
	case d.end != "":
		b := d.end[0]
		d.end = d.end[1:]
		return b, nil
	}
	return 0, io.ErrUnexpectedEOF
}

func (d *deflated) Read(b []byte) (n int, err error) {
	if len(d.data) > 0 {
		n = copy(b, d.data)
		d.data = d.data[n:]
		return n, nil
	}
	if d.end == "" {
		return 0, io.ErrUnexpectedEOF
	}
	n = copy(b, d.end)
	d.end = d.end[n:]
	return n, nil
}

func newInflater() *inflater {
	i := &inflater{}
	i.z = flate.NewReader(&i.in)
	return i
}

// Sizes of an inflater's buffer, in bytes.
const (
	firstInflated = 4 << 10
	keepInflated  = 64 << 10
)

// inflate returns the message inside payload, unless it is over limit; the
// bytes are the inflater's until the next call.
func (i *inflater) inflate(payload []byte, limit int) ([]byte, error) {
	i.in = deflated{payload, lastBlock}
	if err := i.z.(flate.Resetter).Reset(&i.in, nil); err != nil {
		return nil, errDeflate
	}
	if cap(i.out) == 0 || cap(i.out) > keepInflated {
		i.out = make([]byte, 0, firstInflated)
	}
	i.out = i.out[:0]
	for {
		if len(i.out) == cap(i.out) {
			i.out = append(i.out, 0)[:len(i.out)]
		}
		n, err := i.z.Read(i.out[len(i.out):cap(i.out)])
		i.out = i.out[:len(i.out)+n]
		switch {
		case len(i.out) > limit:
			return nil, errTooBig
		case err == io.EOF && i.in.ended():
			return i.out, nil
		case err != nil:
			return nil, errDeflate
		}
	}
}

// ended says whether nothing is left of the message. One that ended with a
// final block of its own has an empty byte behind it (RFC 7692, 7.2.3.4).
func (d *deflated) ended() bool {
	return len(d.data) == 0 || len(d.data) == 1 && d.data[0] == 0
}
