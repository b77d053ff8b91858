package loop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// conversation is one case: what the client sends, what it hears, and the close
// code that the server ends with. close 0: the client ends it with 1000, which
// is answered.
type conversation struct {
	id    string
	send  []byte
	hear  []found
	close uint16
}

// heard is one frame back from an echo.
func heard(op ws.OpCode, payload string) []found { return []found{{op, payload}} }

// closing is a client's close frame.
func closing(code uint16, reason string) []byte {
	return masked(0x88, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// conversations are all cases, in the order and with the numbers of the Autobahn
// test suite.
func conversations() (all []conversation) {
	for _, group := range [][]conversation{framing(), pings(), reserved(), fragments(), texts(), closes(), limits()} {
		all = append(all, group...)
	}
	return all
}

func startMirror(t *testing.T) *house {
	t.Helper()
	return startHouse(t, houseOptions{
		loop:    Options{MaxMessage: 1 << 20, Budget: 8 << 20},
		handler: func() Handler { return mirror{newEcho()} },
	})
}

// TestRFC6455 goes through the rules of RFC 6455 on real sockets, against an
// echo: each case whole, in pieces, and byte by byte. What must be refused must
// be refused with its code, and nothing but what was complete before may have
// been delivered.
func TestRFC6455(t *testing.T) {
	h := startMirror(t)
	all := conversations()
	for _, c := range all {
		for _, piece := range []int{1 << 30, 7, 1} {
			if len(c.send)/piece > 400 {
				continue // byte by byte is for small ones
			}
			if err := converse(h.raw(t, nil), c, piece); err != nil {
				t.Errorf("%s, pieces of %d: %v", c.id, piece, err)
			}
		}
	}
	t.Logf("%d cases", len(all))
}

// mirror is an echo in the lane that a close does not empty.
type mirror struct{ *echo }

func (mirror) Message(c *Conn, op ws.OpCode, p []byte) { _ = c.Queue(NewFrame(op, p, Control)) }

// converse has c with a server, and says what it did not do by the rules.
func converse(p *rawPeer, c conversation, piece int) error {
	defer func() { _ = p.Close() }()
	sent := make(chan error, 1)
	go func() {
		rest := c.send
		if c.close == 0 {
			rest = join(rest, closing(1000, ""))
		}
		var err error
		for len(rest) > 0 && err == nil {
			n := min(piece, len(rest))
			_, err = p.Write(rest[:n])
			rest = rest[n:]
		}
		sent <- err
	}()
	if err := answers(p, c); err != nil {
		return err
	}
	// After the close frame nothing comes but the end: the peer's side hangs up.
	if b, err := p.br.ReadByte(); err == nil {
		return fmt.Errorf("byte %x behind the close frame", b)
	}
	_ = p.Close()
	<-sent
	return nil
}

// answers reads all that is to be heard, and the close frame.
func answers(p *rawPeer, c conversation) error {
	want := c.close
	if want == 0 {
		want = 1000
	}
	for i := 0; ; i++ {
		head, err := ws.ReadHeader(p.br)
		if err != nil {
			return fmt.Errorf("frame %d: %w", i, err)
		}
		payload := make([]byte, head.Length)
		if _, err := io.ReadFull(p.br, payload); err != nil {
			return fmt.Errorf("payload %d: %w", i, err)
		}
		if head.OpCode == ws.OpClose {
			if code, err := closeCode(payload); err != nil || code != want {
				return fmt.Errorf("closed with %q, want %d", payload, want)
			}
			if i != len(c.hear) {
				return fmt.Errorf("%d frames heard before the close, want %d", i, len(c.hear))
			}
			return nil
		}
		if i >= len(c.hear) || head.OpCode != c.hear[i].op || string(payload) != c.hear[i].payload {
			return fmt.Errorf("frame %d is %v %q", i, head.OpCode, cut(string(payload)))
		}
	}
}

// framing: 1, lengths at every edge; and lengths that are wrong.
func framing() (all []conversation) {
	for i, n := range []int{0, 1, 125, 126, 127, 128, 0xfffe, 0xffff, 0x10000} {
		text := strings.Repeat("*", n)
		all = append(all,
			conversation{id: fmt.Sprintf("1.1.%d", i), send: masked(0x81, text), hear: heard(ws.OpText, text)},
			conversation{id: fmt.Sprintf("1.2.%d", i), send: masked(0x82, strings.Repeat("\xfe", n)), hear: heard(ws.OpBinary, strings.Repeat("\xfe", n))})
	}
	raw := func(id string, code uint16, b ...byte) {
		all = append(all, conversation{id: id, send: b, close: code})
	}
	raw("not masked", 1002, 0x81, 0x01, 'x')
	raw("not masked, empty", 1002, 0x81, 0x00)
	raw("not masked ping", 1002, 0x89, 0x00)
	raw("16 bits for 125", 1002, 0x82, 0xfe, 0, 125, 1, 2, 3, 4)
	raw("64 bits for 65535", 1002, 0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4)
	raw("top bit of 64", 1002, 0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4)
	raw("2^63-1", 1009, 0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	raw("2^32+1, which 32 bits would take for 1", 1009, 0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 1)
	raw("2^31", 1009, 0x82, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0)
	all = append(all, conversation{id: "mask of zeros", send: join([]byte{0x81, 0x82, 0, 0, 0, 0}, []byte("hi")), hear: heard(ws.OpText, "hi")})
	return all
}

// pings: 2.
func pings() []conversation {
	var ten []byte
	var pongs []found
	for i := range 10 {
		ten = append(ten, masked(0x89, fmt.Sprint("p", i))...)
		pongs = append(pongs, found{ws.OpPong, fmt.Sprint("p", i)})
	}
	full := strings.Repeat("\xfe", 125)
	return []conversation{
		{id: "2.1", send: masked(0x89, ""), hear: heard(ws.OpPong, "")},
		{id: "2.2", send: masked(0x89, "Hello, world!"), hear: heard(ws.OpPong, "Hello, world!")},
		{id: "2.3", send: masked(0x89, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), hear: heard(ws.OpPong, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff")},
		{id: "2.4", send: masked(0x89, full), hear: heard(ws.OpPong, full)},
		{id: "2.5", send: masked(0x89, full+"\xfe"), close: 1002},
		{id: "2.7", send: masked(0x8a, "")},
		{id: "2.8", send: masked(0x8a, "unasked")},
		{id: "2.9", send: join(masked(0x8a, "unasked"), masked(0x89, "p")), hear: heard(ws.OpPong, "p")},
		{id: "2.10", send: ten, hear: pongs},
	}
}

// reserved: 3 and 4, bits and opcodes that nobody defined.
func reserved() (all []conversation) {
	hello := masked(0x81, "Hello")
	echoed := heard(ws.OpText, "Hello")
	for rsv := byte(1); rsv < 8; rsv++ {
		for _, op := range []byte{1, 2, 8, 9, 10} {
			bad := masked(0x80|rsv<<4|op, "\x03\xe8") // which would be a right close, too
			all = append(all, conversation{id: fmt.Sprintf("3, bits %d, opcode %d", rsv, op), send: bad, close: 1002})
		}
		all = append(all, conversation{id: fmt.Sprintf("3, bits %d, after a message", rsv), send: join(hello, masked(0x81|rsv<<4, "x")), hear: echoed, close: 1002})
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		all = append(all,
			conversation{id: fmt.Sprintf("4, opcode %d", op), send: masked(0x80|op, ""), close: 1002},
			conversation{id: fmt.Sprintf("4, opcode %d with payload, after a message", op), send: join(hello, masked(0x80|op, "x"), masked(0x89, "")), hear: echoed, close: 1002})
	}
	return all
}

// fragments: 5.
func fragments() []conversation {
	one, two := masked(0x01, "frag1"), masked(0x80, "frag2")
	whole := heard(ws.OpText, "frag1frag2")
	ponged := append(heard(ws.OpPong, "p"), whole...)
	return []conversation{
		{id: "5.1", send: join(masked(0x09, "p"), masked(0x80, "q")), close: 1002},
		{id: "5.2", send: masked(0x0a, "p"), close: 1002},
		{id: "5.2, close", send: join(masked(0x08, ""), masked(0x80, "")), close: 1002},
		{id: "5.3", send: join(one, two), hear: whole},
		{id: "5.6", send: join(one, masked(0x89, "p"), two), hear: ponged},
		{id: "5.9", send: join(masked(0x80, "x"), masked(0x81, "Hello")), close: 1002},
		{id: "5.11", send: join(masked(0x00, "x"), masked(0x81, "Hello")), close: 1002},
		{id: "5.12", send: join(one, two, masked(0x80, "x")), hear: whole, close: 1002},
		{id: "5.15", send: join(one, two, masked(0x00, "frag3"), masked(0x81, "frag4")), hear: whole, close: 1002},
		{id: "5.16", send: join(masked(0x01, "a"), masked(0x01, "b"), masked(0x80, "c")), close: 1002},
		{id: "5.18", send: join(masked(0x01, "frag1"), masked(0x81, "frag2")), close: 1002},
		{id: "5.18, binary inside text", send: join(masked(0x01, "frag1"), masked(0x82, "frag2")), close: 1002},
		{
			id:   "5.19",
			send: join(masked(0x01, "f1"), masked(0x00, "f2"), masked(0x89, "p"), masked(0x00, "f3"), masked(0x00, "f4"), masked(0x89, "p"), masked(0x80, "f5")),
			hear: append(append(heard(ws.OpPong, "p"), heard(ws.OpPong, "p")...), found{ws.OpText, "f1f2f3f4f5"}),
		},
		{id: "empty fragments", send: join(masked(0x01, ""), masked(0x00, ""), masked(0x80, "")), hear: heard(ws.OpText, "")},
		{id: "empty at the end", send: join(masked(0x02, "\xff"), masked(0x80, "")), hear: heard(ws.OpBinary, "\xff")},
		{id: "unmasked fragment", send: join(one, rawFrame(0x80, []byte("x"), 0)), close: 1002},
	}
}

// texts: 6, UTF-8. What is wrong is refused as it streams: no more bytes than
// up to the wrong one are sent where that is marked.
func texts() (all []conversation) {
	good := []string{
		"", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\x00", "\x7f", "\u0080", "߿", "ࠀ", "\uffff", "\ufffd", "\U00010000", "\U0010ffff",
		"\ud7ff", "\ue000", "\ufdd0", "\ufffe", "\U0001fffe", "😀",
	}
	for i, s := range good {
		all = append(all,
			conversation{id: fmt.Sprintf("6 good %d", i), send: masked(0x81, s), hear: heard(ws.OpText, s)},
			conversation{id: fmt.Sprintf("6 good %d, a byte a fragment", i), send: shredded(s), hear: heard(ws.OpText, s)})
	}
	bad := []string{
		"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64", // 6.3.1
		"\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xfe", "\xff", "\x80", "\xbf",
		"\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xe0\x9f\xbf", "\xf0\x80\x80\xaf", "\xf0\x8f\xbf\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
		"\xed\xa0\x80\xed\xb0\x80", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc3(", "\xe2\x28\xa1", "\xf0\x28\x8c\xbc", "a\xc3\x28",
	}
	for i, s := range bad {
		all = append(all,
			conversation{id: fmt.Sprintf("6 bad %d", i), send: masked(0x81, s), close: 1007},
			conversation{id: fmt.Sprintf("6 bad %d, a byte a fragment", i), send: shredded(s), close: 1007})
	}
	// 6.4: the frame announces more than was sent; the answer must not wait for it.
	early := masked(0x81, "κόσμε\xf4\x90\x80\x80edited")
	all = append(all,
		conversation{id: "6.4.3, in a frame that is not complete", send: early[:6+len("κόσμε")+2], close: 1007},
		conversation{id: "6.4.1, in a message that is not complete", send: join(masked(0x01, "κόσμε"), masked(0x00, "\xf4\x90")), close: 1007})
	return all
}

// shredded is text with a byte a fragment.
func shredded(s string) []byte {
	b := masked(0x01, "")
	for i := range len(s) {
		b = append(b, masked(0x00, s[i:i+1])...)
	}
	return append(b, masked(0x80, "")...)
}

// closes: 7.
func closes() []conversation {
	all := []conversation{
		{id: "7.1.1", send: masked(0x81, "Hello World!"), hear: heard(ws.OpText, "Hello World!")},
		{id: "7.1.2", send: join(closing(1000, ""), closing(1000, "")), close: 1000},
		{id: "7.1.3", send: join(closing(1000, ""), masked(0x89, "late")), close: 1000},
		{id: "7.1.4", send: join(closing(1000, ""), masked(0x81, "late")), close: 1000},
		{id: "7.1.5", send: join(masked(0x01, "frag1"), closing(1000, ""), masked(0x80, "frag2")), close: 1000},
		{id: "7.1.6", send: join(masked(0x82, strings.Repeat("x", 200<<10)), closing(1000, ""), masked(0x89, "late")), hear: heard(ws.OpBinary, strings.Repeat("x", 200<<10)), close: 1000},
		{id: "7.3.1", send: masked(0x88, ""), close: codeNoStatus},
		{id: "7.3.2", send: masked(0x88, "a"), close: 1002},
		{id: "7.3.4", send: closing(1000, "Hello World!"), close: 1000},
		{id: "7.3.5", send: closing(1000, strings.Repeat("*", 123)), close: 1000},
		{id: "7.3.6", send: closing(1000, strings.Repeat("*", 124)), close: 1002},
		{id: "7.5.1", send: closing(1000, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64"), close: 1007},
		{id: "garbage behind a close", send: join(closing(1000, ""), bytes.Repeat([]byte{0xff}, 100)), close: 1000},
	}
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		all = append(all, conversation{id: fmt.Sprint("7.7, ", code), send: closing(code, ""), close: code})
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		all = append(all, conversation{id: fmt.Sprint("7.9, ", code), send: closing(code, ""), close: 1002})
	}
	return all
}

// limits: 9, sizes; and nothing over the limit is even read.
func limits() []conversation {
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB, the limit
	var parts []byte
	for i := 0; i < len(big); i += 64 << 10 {
		b0 := byte(0x00)
		if i == 0 {
			b0 = 0x02
		}
		parts = append(parts, masked(b0, big[i:i+64<<10])...)
	}
	return []conversation{
		{id: "9.2, the limit", send: masked(0x82, big), hear: heard(ws.OpBinary, big)},
		{id: "9.4, the limit in fragments", send: join(parts, masked(0x80, "")), hear: heard(ws.OpBinary, big)},
		{id: "over it", send: masked(0x82, big+"x")[:14], close: 1009},
		{id: "over it in fragments", send: join(parts, masked(0x80, "x")), close: 1009},
	}
}
