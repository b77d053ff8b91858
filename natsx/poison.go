package natsx

import (
	"slices"
	"sync"
)

// poisonKept is how many of the latest poison messages are listed.
const poisonKept = 128

// Poison is a stored message that is no event. It was skipped.
type Poison struct {
	Stream string // id of our stream
	Seq    uint64 // in our stream
	Reason PoisonReason
}

// poisonRing keeps the latest, each once although it is met again by a repair.
type poisonRing struct {
	mu   sync.Mutex
	list [poisonKept]Poison
	n    int // ever added
}

// add says whether p is new.
func (r *poisonRing) add(p Poison) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.list[:], p) {
		return false
	}
	r.list[r.n%poisonKept] = p
	r.n++
	return true
}

// Poison lists the latest messages that were skipped because they are no
// events, oldest first; at most 128.
func (c *Client) Poison() []Poison {
	r := &c.poison
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := min(r.n, poisonKept)
	list := make([]Poison, 0, kept)
	for i := r.n - kept; i < r.n; i++ {
		list = append(list, r.list[i%poisonKept])
	}
	return list
}

// skip counts a message that is no event.
func (c *Client) skip(stream string, seq uint64, reason PoisonReason) {
	if c.poison.add(Poison{Stream: stream, Seq: seq, Reason: reason}) {
		c.m.poison[reason].Inc()
	}
}
