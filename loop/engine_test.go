package loop

import (
	"bytes"
	"testing"

	"github.com/gobwas/ws"
)

// eachTransport runs f plain and over TLS.
func eachTransport(t *testing.T, f func(t *testing.T, secure bool)) {
	t.Run("plain", func(t *testing.T) { f(t, false) })
	t.Run("tls", func(t *testing.T) { f(t, true) })
}

func TestEchoSizes(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{loop: Options{MaxMessage: 1 << 20}, tls: secure})
		e := startEngine(t, Options{Client: true, MaxMessage: 1 << 20})
		hd := newCatcher()
		c := h.dial(t, e, hd)
		for _, n := range []int{0, 1, 125, 126, 1000, 0xffff, 0x10000, 300_000} {
			want := bytes.Repeat([]byte{'x'}, n)
			if err := c.Send(ws.OpText, want); err != nil {
				t.Fatal(err)
			}
			if got := hd.message(t); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes: got %d", n, len(got))
			}
		}
		c.Close(1000, "bye")
		if why := waitEnd(t, hd.ended); why.Code != 1000 || !why.Local || why.Err != nil {
			t.Fatalf("client end %+v", why)
		}
		srv := h.next(t)
		why := waitEnd(t, srv.Handler().(*echo).ended)
		if why.Code != 1000 || why.Local || why.Err != nil {
			t.Fatalf("server end %+v", why)
		}
	})
}
