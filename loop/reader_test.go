package loop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// found is what a parser handed on.
type found struct {
	op      ws.OpCode
	payload string
}

// collector is a frameSink; it stops at a close frame, as Conn does.
type collector struct{ found []found }

func (s *collector) message(op ws.OpCode, p []byte) bool {
	s.found = append(s.found, found{op, string(p)})
	return true
}

// empty is nothing to see: the message says what came.
func (s *collector) empty() bool { return true }

func (s *collector) control(op ws.OpCode, p []byte) bool {
	s.found = append(s.found, found{op, string(p)})
	return op != ws.OpClose
}

func newParser(client bool, limit int) *parser {
	return &parser{client: client, max: limit, alloc: NewAllocator()}
}

// parse feeds data in pieces of the given size; it returns what was found, the
// error, and whether anything was left open.
func parse(p *parser, data []byte, piece int) ([]found, error, bool) {
	var s collector
	var r *reader
	for len(data) > 0 {
		n := min(piece, len(data))
		var err error
		if r, err = p.feed(r, bytes.Clone(data[:n]), &s); err != nil {
			return s.found, err, false
		}
		data = data[n:]
		if k := len(s.found); k > 0 && s.found[k-1].op == ws.OpClose {
			break
		}
	}
	return s.found, nil, r != nil
}

// rawFrame builds a frame bit by bit; mask 0 is unmasked.
func rawFrame(b0 byte, payload []byte, mask uint32) []byte {
	b := appendHeader(nil, 0, len(payload), mask != 0)
	b[0] = b0
	if mask != 0 {
		var m [4]byte
		binary.BigEndian.PutUint32(m[:], mask)
		b = append(b, m[:]...)
		payload = bytes.Clone(payload)
		ws.Cipher(payload, m, 0)
	}
	return append(b, payload...)
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

const testMask = 0x37fa213d

func masked(b0 byte, payload string) []byte { return rawFrame(b0, []byte(payload), testMask) }

func TestReaderSuccess(t *testing.T) {
	long := strings.Repeat("0123456789äöü€😀", 3000)
	f := func(name string, data []byte, want ...found) {
		t.Helper()
		for _, piece := range []int{1, 2, 3, 7, 64, 1000, len(data) + 1} {
			got, err, open := parse(newParser(false, 1<<20), data, piece)
			if err != nil || open {
				t.Fatalf("%s, pieces of %d: error %v, left open %v", name, piece, err, open)
			}
			if len(got) != len(want) {
				t.Fatalf("%s, pieces of %d: %d found, want %d", name, piece, len(got), len(want))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("%s, pieces of %d: %d: got %v %q, want %v %q", name, piece, i, got[i].op, cut(got[i].payload), want[i].op, cut(want[i].payload))
				}
			}
		}
	}
	f("text", masked(0x81, "Hello"), found{ws.OpText, "Hello"})
	f("empty text", masked(0x81, ""), found{ws.OpText, ""})
	f("empty binary", masked(0x82, ""), found{ws.OpBinary, ""})
	f("binary that is no text", masked(0x82, "\xff\xfe"), found{ws.OpBinary, "\xff\xfe"})
	f("126 bytes", masked(0x82, long[:126]), found{ws.OpBinary, long[:126]})
	f("long", masked(0x81, long), found{ws.OpText, long})
	f("two", join(masked(0x81, "a"), masked(0x82, "b")), found{ws.OpText, "a"}, found{ws.OpBinary, "b"})
	f("fragments", join(masked(0x01, "Hel"), masked(0x00, ""), masked(0x80, "lo")), found{ws.OpText, "Hello"})
	f("empty fragments", join(masked(0x01, ""), masked(0x00, ""), masked(0x80, "")), found{ws.OpText, ""})
	f("rune over fragments", join(masked(0x01, "\xf0\x9f"), masked(0x00, "\x98"), masked(0x80, "\x80")), found{ws.OpText, "😀"})
	f("control inside", join(masked(0x01, "a"), masked(0x89, "ping"), masked(0x80, "b")), found{ws.OpPing, "ping"}, found{ws.OpText, "ab"})
	f("largest control", masked(0x89, long[:120]), found{ws.OpPing, long[:120]})
	f("empty control", join(masked(0x89, ""), masked(0x8a, "")), found{ws.OpPing, ""}, found{ws.OpPong, ""})
	f("nothing after close", join(masked(0x88, "\x03\xe8"), []byte{0xff, 0xff}), found{ws.OpClose, "\x03\xe8"})
}

func cut(s string) string { return s[:min(len(s), 40)] }

func TestReaderFailure(t *testing.T) {
	const limit = 1000
	f := func(name string, data []byte, want *ProtocolError) {
		t.Helper()
		for _, piece := range []int{1, 3, len(data)} {
			_, err, _ := parse(newParser(false, limit), data, piece)
			if !errors.Is(err, want) {
				t.Errorf("%s, pieces of %d: got %v, want %v", name, piece, err, want)
			}
		}
	}
	f("unmasked", rawFrame(0x81, []byte("a"), 0), errMaskMissing)
	f("rsv1", masked(0xc1, "a"), errReservedBits)
	f("rsv2", masked(0xa1, "a"), errReservedBits)
	f("rsv3", masked(0x91, "a"), errReservedBits)
	for _, op := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		f("opcode", masked(0x80|op, "a"), errOpCode)
	}
	f("long control", rawFrame(0x89, bytes.Repeat([]byte{'x'}, 126), testMask), errControlSize)
	f("fragmented control", masked(0x09, "a"), errControlFrag)
	f("continuation of nothing", masked(0x80, "a"), errContinuation)
	f("continuation after the end", join(masked(0x81, "a"), masked(0x80, "b")), errContinuation)
	f("message inside a message", join(masked(0x01, "a"), masked(0x81, "b")), errInterleaved)
	f("16-bit length for 125", []byte{0x81, 0xfe, 0, 125, 0, 0, 0, 0}, errLength)
	f("64-bit length for 65535", []byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, errLength)
	f("top bit of the length", []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}, errLengthBit)
	f("length of 2^63-1, no payload", []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, errTooBig)
	f("length of 2^32+1, no payload", []byte{0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 1}, errTooBig)
	f("one over the limit", rawFrame(0x82, make([]byte, limit+1), testMask), errTooBig)
	f("fragments over the limit", join(rawFrame(0x02, make([]byte, limit), testMask), masked(0x80, "x")), errTooBig)
	f("bad text", masked(0x81, "a\xffb"), errText)
	f("surrogate", masked(0x81, "\xed\xa0\x80"), errText)
	f("overlong", masked(0x81, "\xc0\xaf"), errText)
	f("beyond unicode", masked(0x81, "\xf4\x90\x80\x80"), errText)
	f("text that stops inside a rune", masked(0x81, "\xe2\x82"), errText)
	f("fragments that stop inside a rune", join(masked(0x01, "\xe2"), masked(0x80, "\x82")), errText)
	f("fragments that stop with an empty one", join(masked(0x01, "\xe2\x82"), masked(0x80, "")), errText)
}

// TestReaderFailsAsItStreams wants bad text refused before its message ends.
func TestReaderFailsAsItStreams(t *testing.T) {
	whole := masked(0x81, "κόσμε\xf4\x90\x80\x80edited")
	_, err, _ := parse(newParser(false, 1000), whole[:6+len("κόσμε")+2], 1)
	if !errors.Is(err, errText) {
		t.Fatalf("got %v before the message's end, want %v", err, errText)
	}
}

func TestReaderClientRole(t *testing.T) {
	p := newParser(true, 1000)
	if got, err, _ := parse(p, NewFrame(ws.OpText, []byte("hi"), Control).bytes, 1); err != nil || len(got) != 1 || got[0].payload != "hi" {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err, _ := parse(p, masked(0x81, "hi"), 1); !errors.Is(err, errMaskPresent) {
		t.Fatalf("masked frame from a server: %v", err)
	}
}

// TestReaderIdleStateIsNil wants nothing kept between messages.
func TestReaderIdleStateIsNil(t *testing.T) {
	p := newParser(false, 1<<20)
	data := join(masked(0x01, "a"), masked(0x89, "x"), masked(0x80, "b"), masked(0x81, strings.Repeat("y", 5000)))
	var s collector
	var r *reader
	for i := range data {
		var err error
		if r, err = p.feed(r, []byte{data[i]}, &s); err != nil {
			t.Fatal(err)
		}
	}
	if r != nil || len(s.found) != 3 {
		t.Fatalf("state %v, found %d", r, len(s.found))
	}
}

func TestCloseCode(t *testing.T) {
	f := func(body string, want uint16, wantErr *ProtocolError) {
		t.Helper()
		code, err := closeCode([]byte(body))
		if code != want || !errors.Is(err, wantErr) {
			t.Errorf("%q: got %d %v, want %d %v", body, code, err, want, wantErr)
		}
	}
	code := func(n uint16) string { return string(binary.BigEndian.AppendUint16(nil, n)) }
	f("", 1005, nil)
	f("\x03", 0, errCloseBody)
	for _, n := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		f(code(n), n, nil)
		f(code(n)+"why", n, nil)
	}
	for _, n := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		f(code(n), 0, errCloseBody)
	}
	f(code(1000)+"\xff", 0, errCloseText)
	f(code(1000)+"\xe2\x82", 0, errCloseText)
}

func TestFrameLengths(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 0xffff, 0x10000} {
		payload := bytes.Repeat([]byte{'x'}, n)
		for _, client := range []bool{false, true} {
			f := NewFrame(ws.OpBinary, payload, Control)
			if client {
				f = newMasked(ws.OpBinary, payload, Control)
			}
			got, err, open := parse(newParser(!client, 1<<20), f.bytes, 1000)
			if err != nil || open || len(got) != 1 || got[0].payload != string(payload) {
				t.Errorf("%d bytes, client %v: %d found, %v", n, client, len(got), err)
			}
		}
	}
	parts := NewEventParts(7, 1, []byte(`{"a":`), []byte(`1`), []byte(`}`))
	if string(parts.Bytes()[2:]) != `{"a":1}` || parts.Stamp() != 7 || parts.Lane() != Events || parts.Len() != 9 {
		t.Errorf("parts: %q", parts.Bytes())
	}
	if got := closeBody(1000, strings.Repeat("€", 100)); len(got) > 125 || !strings.HasSuffix(string(got), "€") {
		t.Errorf("close reason of %d bytes: %q", len(got), got)
	}
}
