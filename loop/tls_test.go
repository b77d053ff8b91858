package loop

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestEarlyBytes sends frames with the request: they end up in http's buffer,
// in the tls.Conn decrypted, in it encrypted, and in the kernel.
func TestEarlyBytes(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure, loop: Options{Budget: 8 << 20}})
		for _, frames := range []int{1, 3, 40, 400} {
			text := strings.Repeat("x", 220)
			var behind []byte
			for range frames {
				behind = append(behind, masked(0x81, text)...)
			}
			behind = append(behind, masked(0x81, "cut")[:5]...)
			p := h.raw(t, behind)
			for range frames {
				p.want(t, ws.OpText, text)
			}
			p.send(t, masked(0x81, "cut")[5:])
			p.want(t, ws.OpText, "cut")
		}
	})
}

// TestEarlyClose wants a close frame that came with the request answered.
func TestEarlyClose(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure})
		p := h.raw(t, masked(0x88, closed1000))
		p.want(t, ws.OpClose, closed1000)
		p.wantEOF(t)
		if why := waitEnd(t, h.next(t).Handler().(*echo).ended); why.Code != 1000 || why.Local {
			t.Errorf("end %+v", why)
		}
		p = h.raw(t, masked(0x83, "bad"))
		p.want(t, ws.OpClose, string(closeBody(1002, errOpCode.What)))
	})
}

// TestTLSFields wants the self-test to pass with this toolchain: when it does
// not, an idle WSS socket costs 3.5 KB more.
func TestTLSFields(t *testing.T) {
	f := findTLSFields()
	if f == nil {
		t.Fatal("buffers of tls.Conn can't be given back with this Go version")
	}
	var none *tlsFields // the fallback
	c := tls.Server(nil, nil)
	none.takeBack(c, NewAllocator(), none.lend(c, NewAllocator()))
	// A field that is not what it should be must be noticed.
	wrong := &tlsFields{raw: f.hand, hand: f.raw, input: f.input, export: f.export, resume: f.resume}
	if wrong.try() == nil {
		t.Error("the self-test passed with two fields exchanged")
	}
}

// TestTLSBuffersGivenBack feeds records in pieces: an idle connection has no
// buffers, and one in the middle of a record loses nothing.
func TestTLSBuffersGivenBack(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	serverConfig, clientConfig := tlsConfigs(t)
	left, right := tcpPair(t)
	client := tls.Client(right, clientConfig)
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	w := newWire(left, time.Now().Add(20*time.Second), nil)
	server := tls.Server(w, serverConfig)
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	tcp := w.pre.tcp
	var kept []byte
	w.wear(e.NewConn(newEcho()), server, &kept)

	f := e.fields()
	plain := make([]byte, plainSize)
	records := make([]byte, 64<<10)
	for _, n := range []int{1, 500, 16 << 10, 40_000} {
		for _, piece := range []int{1, 5, 6, 100, 16_000, 1 << 20} {
			want := bytes.Repeat([]byte{byte(n)}, n)
			go func() { _, _ = client.Write(want) }()
			var got []byte
			for len(got) < n {
				k, err := tcp.Read(records[:min(piece, len(records))])
				if err != nil {
					t.Fatal(err)
				}
				err = w.open(records[:k], plain, func(p []byte) bool {
					got = append(got, p...)
					return true
				})
				if err != nil {
					t.Fatal(err)
				}
				if raw := f.rawInput(server); raw.Cap() > raw.Len()+raw.Len()/4+64 {
					t.Fatalf("%d bytes kept for %d of a record", raw.Cap(), raw.Len())
				}
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bytes in pieces of %d changed", n, piece)
			}
			if raw := f.rawInput(server); raw.Cap() != 0 {
				t.Fatalf("%d bytes kept by an idle connection", raw.Cap())
			}
		}
	}
}

// TestTLSOneWriteAFlush wants one write to the socket for a flush, however many
// records it is: 4 and 13 here. The kernel counts the calls of the whole process,
// in which little else writes.
func TestTLSOneWriteAFlush(t *testing.T) {
	h := startHouse(t, houseOptions{tls: true})
	p := h.raw(t, nil)
	c := h.next(t)
	for _, n := range []int{60_000, 200_000} {
		const flushes = 20
		want := strings.Repeat("z", n)
		before := writeCalls(t)
		for range flushes {
			if err := c.Queue(NewEvent([]byte(want), 0, 0)); err != nil {
				t.Fatal(err)
			}
			p.want(t, ws.OpText, want)
		}
		if calls := writeCalls(t) - before; calls < flushes-1 || calls >= 2*flushes {
			t.Errorf("%d calls for %d flushes of %d bytes", calls, flushes, n)
		}
	}
}

// writeCalls is how often this process called write.
func writeCalls(t *testing.T) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "syscw: ")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatalf("read %q: %v", b, err)
	}
	return n
}

// TestTLS12 wants the older version served as well.
func TestTLS12(t *testing.T) {
	h := startHouse(t, houseOptions{tls: true})
	h.tls.MaxVersion = tls.VersionTLS12
	p := h.raw(t, masked(0x81, "early"))
	p.want(t, ws.OpText, "early")
	text := string(bytes.Repeat([]byte("long"), 8000))
	p.send(t, masked(0x81, text))
	p.want(t, ws.OpText, text)
}

// TestTLSGarbage wants a peer that leaves TLS ended.
func TestTLSGarbage(t *testing.T) {
	h := startHouse(t, houseOptions{tls: true})
	p := h.raw(t, nil)
	c := h.next(t)
	if _, err := p.Conn.(*tls.Conn).NetConn().Write(bytes.Repeat([]byte{23, 3, 3, 0, 5}, 10)); err != nil {
		t.Fatal(err)
	}
	if why := waitEnd(t, c.Handler().(*echo).ended); why.Code != 1006 || why.Err == nil {
		t.Errorf("end %+v", why)
	}
}
