package redisx

import (
	"slices"
	"sync"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// Bounds of what is remembered of operators' deeds.
const (
	deedLife = 10 * time.Minute // longer than any failover takes to be noticed
	maxDeeds = 4096
)

// deed is something that an operator had this pod do, and was told is done.
type deed struct {
	r      session.Revocation // At of a lift: of what was lifted
	lifted bool               // else revoked
	at     time.Duration
}

// deeds are those of the last minutes. Redis may acknowledge one and lose it, to
// a failover or with all keys, before any other pod has read it, and by the time
// this one reads again the set may have gone on, so that nothing in it tells of
// the loss. So a pod stands by what it said.
type deeds struct {
	mu   sync.Mutex
	list []deed // mu; the oldest first
}

func (d *deeds) add(one deed, now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expire(now)
	d.list = slices.DeleteFunc(d.list, func(old deed) bool { return old.r.Revoked == one.r.Revoked })
	if len(d.list) == maxDeeds {
		d.list = slices.Delete(d.list, 0, 1)
	}
	one.at = now
	d.list = append(d.list, one)
}

func (d *deeds) expire(now time.Duration) {
	n := 0
	for n < len(d.list) && now-d.list[n].at >= deedLife {
		n++
	}
	if n > 0 {
		d.list = slices.Delete(d.list, 0, n)
	}
}

// missing are the changes that do again what got does not show. When keys were
// lost, lifts are told again in any case: others may be about to write again what
// was lifted.
func (d *deeds) missing(got *session.Revocations, lost bool, now time.Duration) (changes []change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expire(now)
	for _, one := range d.list {
		stands, ok := got.Find(one.r.Revoked)
		switch {
		case one.lifted && (lost || ok && !stands.At.After(one.r.At)):
			changes = append(changes, change{'T', one.r})
		case !one.lifted && (!ok || stands.At.Before(one.r.At)) && !runOut(one.r, time.Now()):
			changes = append(changes, change{'A', one.r})
		}
	}
	return changes
}

// settle forgets what others have undone: what was done again, and does not show
// in what was read then.
func (d *deeds) settle(got *session.Revocations) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = slices.DeleteFunc(d.list, func(one deed) bool {
		stands, ok := got.Find(one.r.Revoked)
		if one.lifted {
			return ok
		}
		return !ok || stands.At.Before(one.r.At)
	})
}
