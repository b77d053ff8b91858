package session

import (
	"context"
	"time"
)

// closed is gone with the lock.
func (m *Manager[C]) closed(l *login[C]) error {
	sh := m.shard(l.s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return l.gone()
}

// acquire is step 2: the lock. The same call is repeated until its outcome is
// known: a lost reply is recognised by our connection number.
func (m *Manager[C]) acquire(ctx context.Context, l *login[C]) (Acquired, error) {
	s, n := l.s, int(l.s.part)
	key := s.Key()
	var expect uint64
	var try attempt
	for {
		if err := m.closed(l); err != nil {
			return Acquired{}, err
		}
		inc, err := m.inc(ctx, n)
		if err != nil {
			return Acquired{}, err
		}
		began := m.o.Now()
		l.asked = true
		call := m.call(ctx, &try)
		got, err := m.o.Locks.Acquire(call, n, inc, key, s.conn, m.o.Reject, expect)
		switch {
		case err != nil:
			l.unsure = true
			err = m.failed(ctx, &try, err)
		case got.Verdict == Stale:
			try, err = attempt{}, m.assert(ctx, n)
		case got.Verdict == Taken:
			l.unsure = false
			if got.Prev == nil || m.holds(key, got.Prev) {
				return Acquired{}, &Refusal{Reason: ReasonConflict}
			}
			expect = got.Prev.Epoch // its holder is gone: that one may be taken over
		case got.Verdict == Limited:
			l.unsure = false
			return Acquired{}, &Refusal{
				Reason: ReasonRate, Again: got.Again,
				Details: "this session was taken over too often: two clients log in as the same user",
			}
		default:
			err = m.acquired(l, got.Epoch, began)
			l.unsure = err != nil
			return got, err
		}
		if err != nil {
			return Acquired{}, err
		}
	}
}

// holds says whether the holder of a lock is there, as far as we know.
func (m *Manager[C]) holds(key Key, k *Lock) bool {
	if k.Owner != m.o.Owner {
		return m.o.Live(k.Owner)
	}
	s := m.index.Find(key)
	return s != nil && s.conn == k.Conn
}

// acquired takes note of the epoch, answers the kills that waited for it, and
// ends the former socket of this pod: we have its lock.
func (m *Manager[C]) acquired(l *login[C], epoch uint64, began time.Duration) error {
	s, sh := l.s, m.shard(l.s)
	sh.mu.Lock()
	err := l.gone()
	var old, own ended[C]
	var evicted, killed bool
	var answers []func()
	if err == nil {
		s.epoch, s.verified = epoch, seconds(began)
		if old.s = s.agent.find(s.user); old.s != nil {
			old, evicted = m.end(sh, old.s, ReasonReplaced, "")
		}
		if l.noted > epoch {
			own, killed = m.end(sh, s, ReasonReplaced, "by a later login on another pod")
			err = l.gone()
		} else {
			answers, l.answers = l.answers, nil
		}
	}
	sh.mu.Unlock()
	if evicted {
		m.metrics.takeovers.Inc()
		gone := make(chan struct{})
		l.former, old.sent = gone, func() { close(gone) }
		m.bid(old)
	}
	if killed {
		m.bid(own)
	}
	for _, answer := range answers {
		answer()
	}
	return err
}

// formerWait bounds how long a newcomer's ready waits for the close frame of
// the socket it replaced on this pod: as long as for one on another.
const formerWait = 250 * time.Millisecond

// awaitFormer lets the former socket's close frame go out before our ready, so
// that whoever watches both sees them in that order. The round trip to Redis in
// between has mostly been enough.
func (l *login[C]) awaitFormer(ctx context.Context) {
	if l.former == nil {
		return
	}
	select {
	case <-l.former:
		return
	default:
	}
	t := time.NewTimer(formerWait)
	defer t.Stop()
	select {
	case <-l.former:
	case <-t.C:
	case <-ctx.Done():
	}
}

// confirm is step 3: it asks the former owner to end its sockets, and says
// whether open must write a fence because that is not certain.
func (m *Manager[C]) confirm(ctx context.Context, l *login[C], prev *Lock) (fence bool) {
	if prev == nil {
		return false
	}
	m.metrics.takeovers.Inc()
	ended := m.ask(ctx, l, prev)
	if ended && prev.Settled { // P6: what stood before an unsettled lock was never confirmed
		return false
	}
	m.metrics.fences.Inc()
	return true
}

// ask has the owner of a lower lock end its sessions. True: none is left.
func (m *Manager[C]) ask(ctx context.Context, l *login[C], prev *Lock) bool {
	switch {
	case prev.Owner == m.o.Owner:
		return true // acquired has ended it, and logins of a key go one after the other
	case prev.Owner.Pod() == m.o.Owner.Pod():
		return false // our own former life: nobody to wait for
	}
	if l.opt.Waiting != nil {
		l.opt.Waiting(true)
		defer l.opt.Waiting(false)
	}
	return m.o.Killer.Kill(ctx, prev.Owner, l.s.Key(), l.s.epoch, l.s.conn)
}
