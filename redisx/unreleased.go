package redisx

import (
	"sync"

	"github.com/daisi/daisi-ws/session"
)

// maxUnreleased bounds what is kept per partition, at about 100 bytes each.
const maxUnreleased = 1024

// heldLock names a lock that this pod should not hold any more. A connection
// number never comes again, so it can be released at any later time.
type heldLock struct {
	key  session.Key
	conn uint64
}

// unreleased are locks of a partition whose release found no room, or no Redis
// for as long as it was repeated. Where the oldest session wins, each keeps its
// user out until it expires.
type unreleased struct {
	mu    sync.Mutex
	locks map[heldLock]struct{} // nil when there are none
}

// keep notes h, unless there are too many.
func (u *unreleased) keep(h heldLock) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, known := u.locks[h]; !known && len(u.locks) >= maxUnreleased {
		return false
	}
	if u.locks == nil {
		u.locks = make(map[heldLock]struct{})
	}
	u.locks[h] = struct{}{}
	return true
}

// take empties u.
func (u *unreleased) take() map[heldLock]struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	locks := u.locks
	u.locks = nil
	return locks
}

// released is how a release ended. What Redis refuses it would refuse again;
// everything else is tried again with the next JoinAll.
func (c *Client) released(n int, h heldLock, err error) {
	if v := judge(err); v == answered || v == failed {
		return
	}
	if !c.part[n].unreleased.keep(h) {
		c.counts.droppedLock.Inc()
	}
}

// releaseAgain repeats what was kept of n: Redis has just answered.
func (c *Client) releaseAgain(n int) {
	for h := range c.part[n].unreleased.take() {
		c.Release(n, h.key, h.conn)
	}
}
