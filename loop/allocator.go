package loop

import (
	"math/bits"
	"sync"

	"github.com/lesismal/nbio/mempool"
)

// Size classes of an Allocator: 64 B to 1 MiB.
const (
	minClass = 6
	maxClass = 20
)

// Allocator lends buffers of power-of-two sizes. Unlike nbio's own it never
// answers a small request with a giant buffer, and a foreign or empty buffer
// given back does it no harm. Safe for any goroutine.
type Allocator struct {
	pools [maxClass - minClass + 1]sync.Pool
}

var _ mempool.Allocator = (*Allocator)(nil)

// NewAllocator makes an empty one.
func NewAllocator() *Allocator { return &Allocator{} }

// class is the index of the smallest class that holds size bytes.
func class(size int) int {
	if size <= 1<<minClass {
		return 0
	}
	return bits.Len(uint(size-1)) - minClass
}

// Malloc lends a buffer of length size, content undefined.
func (a *Allocator) Malloc(size int) *[]byte {
	i := class(size)
	if i >= len(a.pools) {
		b := make([]byte, size)
		return &b
	}
	if p, ok := a.pools[i].Get().(*[]byte); ok {
		*p = (*p)[:size]
		return p
	}
	b := make([]byte, size, 1<<(i+minClass))
	return &b
}

// Realloc changes the length to size, keeping what fits.
func (a *Allocator) Realloc(p *[]byte, size int) *[]byte {
	if size <= cap(*p) {
		*p = (*p)[:size]
		return p
	}
	q := a.Malloc(size)
	copy(*q, *p)
	a.Free(p)
	return q
}

// Append appends more to *p; the returned buffer takes p's place.
func (a *Allocator) Append(p *[]byte, more ...byte) *[]byte {
	n := len(*p)
	p = a.grow(p, n+len(more))
	copy((*p)[n:], more)
	return p
}

// AppendString is Append of a string.
func (a *Allocator) AppendString(p *[]byte, more string) *[]byte {
	n := len(*p)
	p = a.grow(p, n+len(more))
	copy((*p)[n:], more)
	return p
}

// grow is Realloc that never copies more often than the size doubles.
func (a *Allocator) grow(p *[]byte, size int) *[]byte {
	if size > cap(*p) && size > 1<<maxClass {
		q := a.Malloc(size + size/4)
		copy(*q, *p)
		*q = (*q)[:size]
		a.Free(p)
		return q
	}
	return a.Realloc(p, size)
}

// Free takes p back. The caller must not use it again.
func (a *Allocator) Free(p *[]byte) {
	if p == nil {
		return
	}
	c := cap(*p)
	i := class(c)
	if c == 0 || c != 1<<(i+minClass) || i >= len(a.pools) {
		return // not one of ours, or too big to keep
	}
	*p = (*p)[:0]
	a.pools[i].Put(p)
}
