//go:build !race

package server

import (
	"testing"
	"unsafe"

	"github.com/daisi/daisi-ws/loop"
)

// What the server keeps of a session, beside nbio's connection: one object of
// the class of 160 bytes and one of 112.
func TestClientSize(t *testing.T) {
	if n := unsafe.Sizeof(client{}); n > 160 {
		t.Errorf("client is %d bytes", n)
	}
	if n := unsafe.Sizeof(client{}) + unsafe.Sizeof(loop.Conn{}); n > 272 {
		t.Errorf("client and Conn are %d bytes", n)
	}
}

// A barrier, the commonest message, is answered without an allocation of ours.
func TestDecodeAllocations(t *testing.T) {
	message := []byte(`{"type":"ready"}`)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := decode(message); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// An event that has its type costs the frame's bytes and the frame.
func TestEventFrameAllocations(t *testing.T) {
	ev := event("chats", `{"event_type":"chat","row_data":{"a":1}}`)
	if n := testing.AllocsPerRun(1000, func() { eventFrame(ev) }); n > 3 {
		t.Errorf("%v allocations", n)
	}
}
