package loop

import (
	"bytes"
	stdflate "compress/flate"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// squeezed is what a client that speaks permessage-deflate sends for s, made by
// another implementation than ours.
func squeezed(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := stdflate.NewWriter(&b, stdflate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// unsqueezed reads a compressed payload as a client does.
func unsqueezed(t testing.TB, payload string) string {
	t.Helper()
	r := stdflate.NewReader(strings.NewReader(payload + lastBlock))
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("inflate %d bytes: %v", len(payload), err)
	}
	return string(b)
}

func TestOffersDeflate(t *testing.T) {
	f := func(want bool, lines ...string) {
		t.Helper()
		if got := OffersDeflate(http.Header{"Sec-Websocket-Extensions": lines}); got != want {
			t.Errorf("%q: %v, want %v", lines, got, want)
		}
	}
	f(true, "permessage-deflate")
	f(true, "permessage-deflate; client_max_window_bits")
	f(true, "permessage-deflate; client_max_window_bits=10; server_no_context_takeover")
	f(true, "permessage-deflate; server_max_window_bits=15; client_no_context_takeover")
	f(true, `permessage-deflate; server_max_window_bits="15"`)
	f(true, "x-webkit-deflate-frame", "permessage-deflate")
	f(true, "permessage-deflate; server_max_window_bits=10, permessage-deflate") // the fallback
	f(false)
	f(false, "")
	f(false, "permessage-bzip2")
	f(false, "permessage-deflate; server_max_window_bits=10") // a window that we can't keep
	f(false, "permessage-deflate; server_max_window_bits")
	f(false, "permessage-deflate; client_max_window_bits=16")
	f(false, "permessage-deflate; client_max_window_bits=x")
	f(false, "permessage-deflate; client_max_window_bits; client_max_window_bits")
	f(false, "permessage-deflate; server_no_context_takeover=1")
	f(false, "permessage-deflate; unknown")
	f(false, "permessage-deflate;")
}

// zipParser reads for a socket that negotiated deflate.
func zipParser(limit int) *parser {
	p := newParser(false, limit)
	p.deflate = true
	return p
}

func TestInflate(t *testing.T) {
	const limit = 4096
	long := strings.Repeat("κόσμε 0123 ", 200)
	small := squeezed(t, long)
	f := func(name, want string, frames ...[]byte) {
		t.Helper()
		data := join(frames...)
		for _, piece := range []int{1, 3, 50, len(data)} {
			got, err, open := parse(zipParser(limit), data, piece)
			if err != nil || open || len(got) == 0 || got[len(got)-1].payload != want {
				t.Errorf("%s, pieces of %d: %d found, %v, open %v", name, piece, len(got), err, open)
			}
		}
	}
	f("whole", long, masked(0xc1, small))
	f("plain all the same", "Hello", masked(0x81, "Hello"))
	f("RFC 7692, 7.2.3.1", "Hello", masked(0xc1, "\xf2\x48\xcd\xc9\xc9\x07\x00"))
	f("RFC 7692, 7.2.3.1, in fragments", "Hello", masked(0x41, "\xf2\x48\xcd"), masked(0x80, "\xc9\xc9\x07\x00"))
	f("RFC 7692, 7.2.3.3, no compression", "Hello", masked(0xc1, "\x00\x05\x00\xfa\xffHello\x00"))
	f("RFC 7692, 7.2.3.4, final block", "Hello", masked(0xc1, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"))
	f("RFC 7692, 7.2.3.5, two blocks", "Hello", masked(0xc1, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"))
	f("empty", "", masked(0xc1, "\x00"))
	f("fragments with a ping inside", long, masked(0x41, small[:20]), masked(0x89, "x"), masked(0x00, small[20:25]), masked(0x00, ""), masked(0x80, small[25:]))
	f("rune over fragments of plain text", "é", masked(0x01, "\xc3"), masked(0x80, "\xa9"))
	f("exactly the limit", strings.Repeat("x", limit), masked(0xc2, squeezed(t, strings.Repeat("x", limit))))
}

func TestInflateFailure(t *testing.T) {
	const limit = 4096
	f := func(name string, want error, frames ...[]byte) {
		t.Helper()
		data := join(frames...)
		for _, piece := range []int{1, 3, len(data)} {
			if got, err, _ := parse(zipParser(limit), data, piece); !errors.Is(err, want) || len(got) != 0 {
				t.Errorf("%s, pieces of %d: %d found, %v, want %v", name, piece, len(got), err, want)
			}
		}
	}
	bomb := squeezed(t, strings.Repeat("\x00", 64<<20))
	if len(bomb) > 100<<10 {
		t.Fatalf("a bomb of %d bytes is none", len(bomb))
	}
	f("bomb in a small frame", errTooBig, masked(0xc2, bomb[:4000]))
	f("one byte over the limit", errTooBig, masked(0xc2, squeezed(t, strings.Repeat("x", limit+1))))
	f("bomb in fragments", errTooBig, masked(0x42, bomb[:2000]), masked(0x80, bomb[2000:4000]))
	f("compressed size over the limit", errTooBig, rawFrame(0xc2, []byte(bomb[:limit+1]), testMask))
	f("bad text inside", errText, masked(0xc1, squeezed(t, "a\xffb")))
	f("no deflate", errDeflate, masked(0xc1, "\xff\xff\xff"))
	f("reserved block type", errDeflate, masked(0xc1, "\x07"))
	f("cut off inside a block", errDeflate, masked(0xc1, squeezed(t, strings.Repeat("abcd0123", 100))[:5]))
	f("bytes behind a final block", errDeflate, masked(0xc1, "\xf3\x48\xcd\xc9\xc9\x07\x00\x01\x02"))
	f("no byte at all", errDeflate, masked(0xc1, ""), masked(0xc1, ""))
	f("rsv1 on a continuation", errReservedBits, masked(0x41, "\xf2\x48\xcd"), masked(0xc0, "\xc9\xc9\x07\x00"))
	f("rsv1 on a ping", errReservedBits, masked(0xc9, ""))
	f("rsv1 on a close", errReservedBits, masked(0xc8, ""))
	f("rsv1 and rsv2", errReservedBits, masked(0xe1, "\x00"))
	f("rsv2", errReservedBits, masked(0xa1, "x"))
	if _, err, _ := parse(newParser(false, limit), masked(0xc1, small7692), 100); !errors.Is(err, errReservedBits) {
		t.Errorf("compressed without having been negotiated: %v", err)
	}
}

const small7692 = "\xf2\x48\xcd\xc9\xc9\x07\x00"

// TestInflateKeepsNothing wants no window or buffer of a bomb to stay.
func TestInflateKeepsNothing(t *testing.T) {
	i := newInflater()
	if _, err := i.inflate([]byte(squeezed(t, strings.Repeat("\x00", 1<<20))), 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := i.inflate([]byte(small7692), 1<<20); err != nil {
		t.Fatal(err)
	}
	if cap(i.out) > keepInflated {
		t.Errorf("%d bytes kept", cap(i.out))
	}
}

// TestDeflateOnce wants an event compressed once for all that negotiated it, on
// whichever workers; the others get it plain, in the same order.
func TestDeflateOnce(t *testing.T) {
	const sockets, events = 24, 60
	var turn sync.Mutex
	n := 0
	h := startHouse(t, houseOptions{loop: Options{Flushers: 4}, greet: func(c *Conn) {
		turn.Lock()
		defer turn.Unlock()
		if n++; n%3 != 0 {
			c.UseDeflate()
		}
	}})
	var peers []*rawPeer
	var conns []*Conn
	for range sockets {
		peers = append(peers, h.raw(t, nil))
		conns = append(conns, h.next(t))
	}
	body := func(i int) string {
		return strings.Repeat(`{"chat_id":"628@s.whatsapp.net","n":`+string(rune('0'+i%10))+`}`, 1+i%20)
	}
	for i := range events {
		f := NewEvent([]byte(body(i)), time.Now().UnixNano(), 0)
		for _, c := range conns {
			if err := c.Queue(f); err != nil {
				t.Fatal(err)
			}
		}
		_ = conns[0].Queue(NewFrame(ws.OpText, []byte(body(19)), Control)) // never compressed
	}
	worth := 0
	for i := range events {
		if len(body(i))+headerSize(len(body(i))) >= deflateFrom {
			worth++
		}
	}
	for s, p := range peers {
		zipped := 0
		for i := 0; i < events; {
			head, err := p.br.Peek(1)
			if err != nil {
				t.Fatal(err)
			}
			small := head[0]&rsv1 != 0
			_, payload := p.frame(t)
			if small {
				zipped++
				payload = unsqueezed(t, payload)
			} else if s == 0 && payload == body(19) && i%20 != 19 {
				continue // the control frame
			}
			if payload != body(i) {
				t.Fatalf("socket %d, event %d: %q", s, i, cut(payload))
			}
			i++
		}
		if want := worth; s%3 == 2 && zipped != 0 || s%3 != 2 && zipped != want {
			t.Errorf("socket %d: %d compressed, want %d where it was negotiated", s, zipped, want)
		}
	}
	if got := h.engine.press.made.Load(); got != uint64(worth) {
		t.Errorf("compressed %d times, want %d", got, worth)
	}
	eventually(t, "all booked", func() bool {
		made, written, queued, _ := h.engine.Ledger()
		return made == sockets*events && written == made && queued == 0
	})
}

// TestDeflateOnlyWhenItPays wants what does not shrink sent as it is.
func TestDeflateOnlyWhenItPays(t *testing.T) {
	h := startHouse(t, houseOptions{greet: func(c *Conn) { c.UseDeflate() }})
	p := h.raw(t, nil)
	c := h.next(t)
	var noise strings.Builder
	for x := uint32(1); noise.Len() < 1000; x = x*1664525 + 1013904223 {
		noise.WriteByte(' ' + byte(x>>24)%95)
	}
	for _, text := range []string{"short", noise.String(), strings.Repeat("long", 40<<10)} {
		f := NewEvent([]byte(text), 0, 0)
		if err := c.Queue(f); err != nil {
			t.Fatal(err)
		}
		head, err := p.br.Peek(1)
		if err != nil {
			t.Fatal(err)
		}
		_, payload := p.frame(t)
		if head[0]&rsv1 != 0 {
			if len(payload) >= len(text) {
				t.Errorf("%d bytes became %d", len(text), len(payload))
			}
			payload = unsqueezed(t, payload)
		}
		if payload != text {
			t.Errorf("%q became %q", cut(text), cut(payload))
		}
	}
	// What the peer compressed is answered, and understood.
	p.send(t, masked(0xc1, squeezed(t, "echo me")))
	p.want(t, ws.OpText, "echo me")
	p.send(t, masked(0xc2, squeezed(t, strings.Repeat("\x00", 10<<20))[:9000]))
	p.want(t, ws.OpClose, string(closeBody(1009, errTooBig.What)))
}
