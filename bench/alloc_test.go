//go:build !race

package bench

import (
	"testing"
	"unsafe"

	"github.com/gobwas/ws"
)

// A frame in the usual spelling costs no allocation from the poller to the
// verdict.
func TestMessageAllocs(t *testing.T) {
	b := newBed(t)
	c := benchClient(b)
	msg := benchMessage(b, b.publish(0))
	allocs := testing.AllocsPerRun(1000, func() {
		c.watch.next, c.watch.seq = 0, 0
		c.Message(nil, ws.OpText, msg)
	})
	if allocs != 0 {
		t.Errorf("%v allocations a frame, want 0", allocs)
	}
	b.want(fine, c.watch.met, 0)
}

// What a client socket costs beside loop.Conn.
func TestClientSize(t *testing.T) {
	if n := unsafe.Sizeof(client{}) + unsafe.Sizeof(Watch{}) + unsafe.Sizeof(User{}); n > 448 {
		t.Errorf("client, Watch and User have %d bytes, want 448 at most", n)
	}
}
