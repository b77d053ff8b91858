package server

import (
	"sync"
	"time"
)

// ending is the time that the stop of a Gateway has, all steps of it together.
// A step gets no more than a part of what is left, so those behind it, which
// can't know how many stuck before them, always have some, and all of them
// together never take more than there is.
type ending struct {
	timeout time.Duration
	once    sync.Once
	over    time.Time // once
}

// begin starts the clock, once; the first step would do so too.
func (e *ending) begin() { e.once.Do(func() { e.over = time.Now().Add(e.timeout) }) }

// left is what there is for all that is still to be done.
func (e *ending) left() time.Duration {
	e.begin()
	return max(0, time.Until(e.over))
}

// step bounds one step that would wait for own at most: to a quarter of what is
// left, half of what its component gets (half), so that it ends by itself.
func (e *ending) step(own time.Duration) time.Duration { return min(own, e.left()/4) }

// half is how long the end of a component is awaited.
func (e *ending) half() time.Duration { return e.left() / 2 }
