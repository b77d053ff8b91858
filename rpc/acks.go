package rpc

import "sync"

// acks gathers what the sink acked until the stream's handler sends it: any
// number of acks of a partition that wait are one.
type acks struct {
	wake chan struct{} // capacity 1: some wait

	mu    sync.Mutex // guards the following
	parts []ackPart
	dirty []int // partitions with an ack to send, oldest first
	head  int   // those before it are sent
}

type ackPart struct {
	upto uint64
	some bool              // it is among dirty
	ack  func(upto uint64) // made at first use, so that a batch costs none
}

func newAcks(partitions int) *acks {
	return &acks{wake: make(chan struct{}, 1), parts: make([]ackPart, partitions)}
}

// of gives the function that acks partition n.
func (a *acks) of(n int) func(upto uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := &a.parts[n]
	if p.ack == nil {
		p.ack = func(upto uint64) { a.add(n, upto) }
	}
	return p.ack
}

func (a *acks) add(n int, upto uint64) {
	a.mu.Lock()
	p := &a.parts[n]
	p.upto = max(p.upto, upto)
	if !p.some {
		p.some = true
		a.dirty = append(a.dirty, n)
	}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// next takes one ack out; false: none waits.
func (a *acks) next(m *mark) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.head == len(a.dirty) {
		a.dirty, a.head = a.dirty[:0], 0
		return false
	}
	if a.head > len(a.parts) {
		a.dirty, a.head = append(a.dirty[:0], a.dirty[a.head:]...), 0
	}
	n := a.dirty[a.head]
	a.head++
	a.parts[n].some = false
	*m = mark{n: n, upto: a.parts[n].upto}
	return true
}
