package session

import (
	"context"
	"errors"
	"sync"
	"time"
)

// patience is how long an unknown outcome is asked about again before a login
// is refused: a slot that moves takes this long (protocols.md, Failures).
const patience = 2 * time.Second

// attempt paces the repetitions of one step of a login.
type attempt struct {
	errors int
	since  time.Duration // of the first error
}

// failed waits before the next try. Not nil: no more tries.
func (m *Manager[C]) failed(ctx context.Context, a *attempt, err error) error {
	m.metrics.lockErrors.Inc()
	now := m.o.Now()
	if a.errors == 0 {
		a.since = now
	}
	if errors.Is(err, ErrBusy) || ctx.Err() != nil || now-a.since >= patience {
		return &Refusal{Reason: ReasonOverloaded, Details: "sessions can't be confirmed now", Err: err}
	}
	pause := time.Millisecond << min(a.errors, 7)
	a.errors++
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return &Refusal{Reason: ReasonOverloaded, Details: "the login took too long", Err: err}
	}
}

// assert has n agree with Redis again.
func (m *Manager[C]) assert(ctx context.Context, n int) error {
	m.metrics.lockStale.Inc()
	if err := m.o.Parts.Assert(ctx, n); err != nil {
		return &Refusal{Reason: ReasonOverloaded, Details: "the partition can't be asserted now", Err: err}
	}
	return nil
}

// inc is the incarnation of n, asserted first when there is none.
func (m *Manager[C]) inc(ctx context.Context, n int) (string, error) {
	for {
		if inc := m.o.Parts.Inc(n); inc != "" {
			return inc, nil
		}
		if err := m.assert(ctx, n); err != nil {
			return "", err
		}
	}
}

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
		got, err := m.o.Locks.Acquire(ctx, n, inc, key, s.conn, m.o.Reject, expect)
		switch {
		case err != nil:
			err = m.failed(ctx, &try, err)
		case got.Verdict == Stale:
			err = m.assert(ctx, n)
		case got.Verdict == Taken:
			if got.Prev == nil || m.holds(key, got.Prev) {
				return Acquired{}, &Refusal{Reason: ReasonConflict}
			}
			expect = got.Prev.Epoch // its holder is gone: that one may be taken over
		default:
			return got, m.acquired(l, got.Epoch, began)
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

// settle is step 5: the lock is confirmed as ours, fenced when needed, routes
// joined, all in one script.
func (m *Manager[C]) settle(ctx context.Context, l *login[C], fence bool) error {
	s, n := l.s, int(l.s.part)
	h := Held{Key: s.Key(), Conn: s.conn, Epoch: s.epoch, Chat: l.chat, Fresh: true}
	var try attempt
	for {
		inc, err := m.inc(ctx, n)
		if err != nil {
			return err
		}
		began := m.o.Now()
		got, err := m.o.Locks.Open(ctx, n, inc, h, fence)
		if gone := m.closed(l); gone != nil {
			return gone
		}
		switch {
		case err != nil:
			err = m.failed(ctx, &try, err)
		case got.Verdict == Stale:
			err = m.assert(ctx, n)
		case got.Verdict == OK:
			m.verify(s, began)
			return nil
		case got.Higher:
			return &Refusal{Reason: ReasonConflict, Details: "outranked by a later login"}
		default:
			var lower *Lock
			lower, err = m.reclaim(ctx, n, h, &try)
			if lower != nil {
				fence = true
				m.ask(ctx, l, lower)
			}
		}
		if err != nil {
			return err
		}
	}
}

// reclaim re-asserts one lock that Redis lost, or has lower than ours.
func (m *Manager[C]) reclaim(ctx context.Context, n int, h Held, try *attempt) (*Lock, error) {
	inc, err := m.inc(ctx, n)
	if err != nil {
		return nil, err
	}
	answers, stale, err := m.o.Renewer.Reassert(ctx, n, inc, m.parts[n].lastSeen(), []Held{h})
	switch {
	case err != nil || !stale && len(answers) != 1:
		return nil, m.failed(ctx, try, errors.Join(err, ErrStale))
	case stale:
		return nil, m.assert(ctx, n)
	case answers[0].Verdict == Lost && answers[0].Unconfirmed:
		return nil, &Refusal{Reason: ReasonLost}
	case answers[0].Verdict == Lost:
		return nil, &Refusal{Reason: ReasonConflict, Details: "outranked by a later login"}
	}
	return answers[0].Prev, nil
}

// verify notes that Redis agreed, as of began.
func (m *Manager[C]) verify(s *Session[C], began time.Duration) {
	sh := m.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.verified = max(s.verified, seconds(began))
}

// joinAdmins is how many partitions an admin's login joins at a time.
const joinAdmins = 16

// joinAdmin joins the admins' route in every partition. Every admin login does
// it, so that none depends on another one that has not finished.
func (m *Manager[C]) joinAdmin(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for first := range min(joinAdmins, m.o.Partitions) {
		wg.Go(func() {
			for n := first; n < m.o.Partitions; n += joinAdmins {
				if err := m.joinAdminOf(ctx, n); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (m *Manager[C]) joinAdminOf(ctx context.Context, n int) error {
	var try attempt
	for {
		inc, err := m.inc(ctx, n)
		if err != nil {
			return err
		}
		stale, err := m.o.Renewer.JoinAll(ctx, n, inc, []Want{AdminWant()})
		switch {
		case err != nil:
			err = m.failed(ctx, &try, err)
		case stale:
			err = m.assert(ctx, n)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// leaveLate takes back what the open of a failed login may have joined after
// its end had left the edges.
func (m *Manager[C]) leaveLate(key Key, chat string) {
	if key.IsAdmin() {
		for n := range m.o.Partitions {
			m.index.unwant(n, []Want{AdminWant()})
		}
		return
	}
	wants := []Want{{Company: key.Company, Agent: key.Agent}}
	if chat != "" {
		wants = append(wants, Want{Company: key.Company, Agent: key.Agent, Chat: chat})
	}
	m.index.unwant(key.Partition(m.o.Partitions), wants)
}
