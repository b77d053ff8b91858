package loop

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// lapse is a rule that a server does not know: a relay before it makes good what
// breaks the rule, or spoils what it answers.
type lapse struct {
	name string
	up   func(*ws.Frame)     // each frame of the client's
	down func(*ws.Frame)     // each frame of the server's
	tail string              // behind the server's last frame
	of   func(c string) bool // the cases in which it must be seen
}

// begins are the cases whose ids begin so.
func begins(with ...string) func(string) bool {
	return func(id string) bool {
		return slices.ContainsFunc(with, func(w string) bool { return strings.HasPrefix(id, w) })
	}
}

// only changes frames of one opcode.
func only(op ws.OpCode, change func(*ws.Frame)) func(*ws.Frame) {
	return func(f *ws.Frame) {
		if f.Header.OpCode == op {
			change(f)
		}
	}
}

// lapses of what is taken from a client.
func lapses() []lapse {
	return []lapse{
		{name: "reserved bits pass", up: func(f *ws.Frame) { f.Header.Rsv = 0 }, of: begins("3, bits")},
		{name: "unknown opcodes are text", of: begins("4, opcode"), up: func(f *ws.Frame) {
			if op := f.Header.OpCode; op > ws.OpBinary && op < ws.OpClose || op > ws.OpPong {
				f.Header.OpCode = ws.OpText
			}
		}},
		{name: "frames need no mask", of: begins("not masked", "unmasked fragment"), up: func(f *ws.Frame) {
			if !f.Header.Masked {
				f.Header.Masked, f.Header.Mask = true, [4]byte{}
			}
		}},
		// A relay writes each length as short as it can be.
		{name: "lengths may be longer than they need be", of: begins("16 bits for"), up: func(f *ws.Frame) {
			if f.Header.Length == 125 {
				f.Payload = make([]byte, 125)
			}
		}},
		{name: "control frames may be fragments", of: func(id string) bool { return id == "5.1" || strings.HasPrefix(id, "5.2") }, up: func(f *ws.Frame) {
			if f.Header.OpCode.IsControl() {
				f.Header.Fin = true
			}
		}},
		{name: "control frames may be long", of: begins("2.5", "7.3.6"), up: func(f *ws.Frame) {
			if f.Header.OpCode.IsControl() && f.Header.Length > 125 {
				f.Payload = f.Payload[:125]
				f.Header.Length = 125
			}
		}},
		{name: "text may be anything", of: begins("6 bad", "6.4"), up: func(f *ws.Frame) {
			if f.Header.OpCode == ws.OpText || f.Header.OpCode == ws.OpContinuation {
				for i, b := range f.Payload {
					f.Payload[i] = b & 0x7f
				}
			}
		}},
		{name: "close reasons may be anything", of: begins("7.5.1"), up: only(ws.OpClose, func(f *ws.Frame) {
			if len(f.Payload) > 2 && !utf8.Valid(f.Payload[2:]) {
				f.Payload, f.Header.Length = f.Payload[:2], 2
			}
		})},
		{name: "close codes may be anything", of: begins("7.9"), up: only(ws.OpClose, func(f *ws.Frame) {
			if len(f.Payload) == 2 && !validCloseCode(binary.BigEndian.Uint16(f.Payload)) {
				copy(f.Payload, "\x03\xe8")
			}
		})},
		{name: "half a close code will do", of: begins("7.3.2"), up: only(ws.OpClose, func(f *ws.Frame) {
			if f.Header.Length == 1 {
				f.Payload, f.Header.Length = nil, 0
			}
		})},
	}
}

// answered are lapses of what a client is told.
func answered() []lapse {
	return []lapse{
		{name: "every close is 1000", of: begins("7.7, 1001", "7.7, 3000", "3, bits", "6 bad", "over it"), down: only(ws.OpClose, func(f *ws.Frame) {
			f.Payload, f.Header.Length = []byte("\x03\xe8"), 2
		})},
		{name: "the last byte of a message is changed", of: begins("1.1.1", "1.2.8", "5.3", "9.2", "9.4, the"), down: func(f *ws.Frame) {
			if f.Header.OpCode.IsData() && f.Header.Length > 0 {
				f.Payload[f.Header.Length-1]++
			}
		}},
		{name: "a pong says something else", of: begins("2.2", "2.10", "5.6"), down: only(ws.OpPong, func(f *ws.Frame) {
			f.Payload = append([]byte(nil), f.Payload...)
			if len(f.Payload) > 0 {
				f.Payload[0]++
			}
		})},
		{name: "it talks on behind the close frame", tail: "\x89\x00", of: begins("7.1.1", "7.3.4")},
	}
}

// validCloseCode is section 7.4 in the test's own words.
func validCloseCode(code uint16) bool {
	return code >= 3000 && code <= 4999 || code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006
}

// relayed is what frames become on their way through change; what is no whole
// frame stays as it is.
func relayed(b []byte, change func(*ws.Frame)) []byte {
	var out bytes.Buffer
	for len(b) > 0 {
		r := bytes.NewReader(b)
		h, err := ws.ReadHeader(r)
		if err != nil {
			break
		}
		whole := h.Length <= int64(r.Len())
		f := ws.Frame{Header: h, Payload: slices.Clone(b[len(b)-r.Len():][:min(h.Length, int64(r.Len()))])}
		if h.Masked {
			ws.Cipher(f.Payload, h.Mask, 0)
		}
		change(&f)
		if whole {
			f.Header.Length = int64(len(f.Payload))
		}
		if f.Header.Masked {
			ws.Cipher(f.Payload, f.Header.Mask, 0)
		}
		_ = ws.WriteHeader(&out, f.Header)
		out.Write(f.Payload)
		b = b[len(b)-r.Len()+int(min(h.Length, int64(r.Len()))):]
	}
	out.Write(b)
	return out.Bytes()
}

// spoil has what p reads go through l, until the returned func is called.
func (l lapse) spoil(p *rawPeer) (stop func()) {
	if l.down == nil && l.tail == "" {
		return func() {}
	}
	from := p.br
	r, w := io.Pipe()
	p.br = bufio.NewReader(r)
	go func() {
		defer w.Close()
		for {
			h, err := ws.ReadHeader(from)
			if err != nil {
				return
			}
			f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
			if _, err := io.ReadFull(from, f.Payload); err != nil {
				return
			}
			last := f.Header.OpCode == ws.OpClose
			if l.down != nil {
				l.down(&f)
			}
			if ws.WriteFrame(w, f) != nil {
				return
			}
			if last && l.tail != "" {
				_, _ = io.WriteString(w, l.tail)
			}
		}
	}()
	return func() { _ = r.Close() }
}

// missed gives the cases of all in which l is not seen.
func (l lapse) missed(t *testing.T, h *house, all []conversation) (missed []string) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, c := range all {
		if l.up != nil {
			c.send = relayed(c.send, l.up)
		}
		p := h.raw(t, nil)
		_ = p.SetDeadline(time.Now().Add(time.Second)) // of a server that waits for more than it should
		stop := l.spoil(p)
		wg.Go(func() {
			defer stop()
			if converse(p, c, 1<<30) == nil {
				mu.Lock()
				missed = append(missed, c.id)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return missed
}

// What TestRFC6455 is worth: it sees every lapse, in each case that is about it.
func TestRFC6455SeesFaults(t *testing.T) {
	h := startMirror(t)
	all := conversations()
	for _, l := range append(lapses(), answered()...) {
		var about []conversation
		for _, c := range all {
			if l.of(c.id) {
				about = append(about, c)
			}
		}
		if missed := l.missed(t, h, about); len(about) == 0 || len(missed) > 0 {
			t.Errorf("%s: in %d of %d cases not seen: %q", l.name, len(missed), len(about), missed)
		}
	}
	// A relay that changes nothing is not seen.
	none := lapse{up: func(*ws.Frame) {}, down: func(*ws.Frame) {}}
	for _, c := range all {
		if strings.Contains(c.id, "bits for") || strings.Contains(c.id, "top bit") {
			continue // as a relay writes them, they are right
		}
		c.send = relayed(c.send, none.up)
		p := h.raw(t, nil)
		stop := none.spoil(p)
		if err := converse(p, c, 1<<30); err != nil {
			t.Errorf("%s through a relay: %v", c.id, err)
		}
		stop()
	}
}
