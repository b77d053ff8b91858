package loop

import (
	"testing"
	"unsafe"
)

// TestConnSize holds the density: a Conn and a session fit into 256 bytes.
func TestConnSize(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 112 {
		t.Errorf("Conn is %d bytes, want at most 112", n)
	}
	if n := unsafe.Sizeof(Wire{}); n > 96 {
		t.Errorf("Wire is %d bytes, want at most 96", n)
	}
}
