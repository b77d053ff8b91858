package server

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Times and sizes of giving memory back.
const (
	memoryEvery = 2 * time.Second
	memoryPause = 10 * time.Second // between two give-backs: each is a whole collection
	memorySlack = 4 << 20          // bytes not worth one
)

// memory gives back to the system what a storm of logins or events has left
// behind. The collector lets garbage grow to GOGC percent of what lives, and
// the runtime keeps a tenth more: right for a busy process, but one that holds
// idle sockets would go on holding its busiest moment. So when little is
// allocated and a fourth of the heap is not in use, it is collected and given
// back.
type memory struct {
	samples []metrics.Sample
	before  uint64 // bytes allocated ever, at the last look
	freed   time.Time
}

// What is read of the runtime, in this order.
var memoryNames = [...]string{
	"/gc/heap/allocs:bytes",
	"/gc/heap/live:bytes",
	"/memory/classes/heap/objects:bytes",
	"/memory/classes/heap/unused:bytes",
	"/memory/classes/heap/free:bytes",
}

// heap is the heap at one moment, in bytes.
type heap struct {
	recent uint64 // allocated since the last look
	live   uint64 // after the last collection
	held   uint64 // of the system
}

// isLoose says whether a collection is worth it, and disturbs nobody.
func (h heap) isLoose() bool {
	calm := h.recent < h.live/4
	return calm && h.held > h.live+max(h.live/4, memorySlack)
}

// keepMemoryLow runs until ctx ends.
func keepMemoryLow(ctx context.Context) error {
	m := memory{samples: make([]metrics.Sample, len(memoryNames))}
	for i, name := range memoryNames {
		m.samples[i].Name = name
	}
	for pause(ctx, memoryEvery) {
		if h := m.read(); h.isLoose() && time.Since(m.freed) >= memoryPause {
			debug.FreeOSMemory()
			m.freed = time.Now()
		}
	}
	return nil
}

func (m *memory) read() heap {
	metrics.Read(m.samples)
	v := func(i int) uint64 { return m.samples[i].Value.Uint64() }
	h := heap{recent: v(0) - m.before, live: v(1), held: v(2) + v(3) + v(4)}
	m.before = v(0)
	return h
}
