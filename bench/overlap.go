package bench

import (
	"sync"
	"time"
)

// silence is how long a gateway waits for the pod of an older socket to say that
// it has ended it (guarantee S3). Where a login took so long the newcomer may
// have been let in without that word: its older socket is given nothing stored
// since, which the oracle judges by the events themselves, but it may hear of
// its end late.
const silence = 250 * time.Millisecond

// silenceLeft is for how long after such a login others may not have waited for
// the same pod at all: it is not asked for twice before it was heard of again.
const silenceLeft = time.Second

// overlaps are the older sockets of keys that were told of their end after the
// newer one's ready was seen.
type overlaps struct {
	after func(do func()) // static; runs do when all that had reached this machine was handled; nil: not judged
	late  Hist            // by how much

	mu sync.Mutex
	// mu guards the following.
	seen   []overlap
	silent []span // when logins were under way that took silence or more
}

type overlap struct {
	at      time.Time // of the newcomer's ready
	finding Finding
}

type span struct{ from, to time.Time }

// ready notes that a login begun then is through now.
func (o *overlaps) ready(began, now time.Time) {
	if o.after == nil || now.Sub(began) < silence {
		return
	}
	s := span{began, now.Add(silenceLeft)}
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.silent); n > 0 && !s.from.After(o.silent[n-1].to) {
		last := &o.silent[n-1]
		if s.from.Before(last.from) {
			last.from = s.from
		}
		if s.to.After(last.to) {
			last.to = s.to
		}
		return
	}
	o.silent = append(o.silent, s)
}

func (o *overlaps) add(at time.Time, f Finding) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f.Breach, f.At = TwoOwners.String(), at
	o.seen = append(o.seen, overlap{at, f})
}

// verdict gives how many there were, and what is known of those for which no pod
// can have been waited for in vain.
func (o *overlaps) verdict() (all int64, breaches []Finding) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range o.seen {
		if !o.excused(x.at) {
			breaches = append(breaches, x.finding)
		}
	}
	return int64(len(o.seen)), breaches
}

func (o *overlaps) excused(at time.Time) bool {
	for _, s := range o.silent {
		if !at.Before(s.from) && !at.After(s.to) {
			return true
		}
	}
	return false
}
