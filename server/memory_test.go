package server

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

func TestHeapIsLoose(t *testing.T) {
	f := func(what string, h heap, want bool) {
		t.Helper()
		if got := h.isLoose(); got != want {
			t.Errorf("%s: loose %v, want %v", what, got, want)
		}
	}
	const mib = 1 << 20
	f("after a storm", heap{recent: mib, live: 40 * mib, held: 80 * mib}, true)
	f("during one", heap{recent: 200 * mib, live: 40 * mib, held: 80 * mib}, false)
	f("nothing to win", heap{recent: mib, live: 40 * mib, held: 45 * mib}, false)
	f("small", heap{recent: 0, live: mib, held: 4 * mib}, false)
}

// The runtime knows all the names, and what they count is what we take it for.
func TestMemoryReads(t *testing.T) {
	m := memory{samples: make([]metrics.Sample, len(memoryNames))}
	for i, name := range memoryNames {
		m.samples[i].Name = name
	}
	m.read()
	kept := make([]byte, 32<<20)
	runtime.GC()
	h := m.read()
	if h.recent < 32<<20 || h.live < 32<<20 || h.held < h.live {
		t.Errorf("with 32 MiB more: %+v", h)
	}
	runtime.KeepAlive(kept)
}
