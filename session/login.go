package session

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Login is what a client asked for when it connected.
type Login struct {
	// Claims of its token, to be held against the revocations; nil: it can't be
	// revoked.
	Claims *Claims
	Token  TokenID // of the same
	// Chat is selected before ready; nil: the one of the former session.
	Chat *string
	// Replay makes the session Replay instead of Live: ready is sent, then the
	// caller replays the stream from After.
	Replay bool
	After  uint64
	// Waiting is called with true before and with false after another pod is
	// waited for (<= 250 ms), so that no admission slot is held. May be nil.
	Waiting func(bool)
}

// Ready is what the ready frame tells.
type Ready struct {
	Epoch uint64
	Floor uint64 // W of the partition; 0 for admins, whose events have no common order
	Chat  string
}

// login is one Open under way. The shard keeps the one that runs per key; the
// newest of those after it waits in next, so that at most one waits.
type login[C Socket] struct {
	s      *Session[C]
	cancel context.CancelFunc
	opt    Login

	// Owned by its goroutine.
	began   time.Duration
	asked   bool            // an acquire may have reached Redis
	unsure  bool            // one may have taken the lock from a session here that has not been ended
	entered bool            // an open may have joined the routes
	checked *Revocations    // the set it was held against
	chat    string          // with this chat
	former  <-chan struct{} // closed when the socket replaced here has its close frame out; nil: none was

	// The shard's lock guards the following.
	noted   uint64   // highest kill while the epoch is unknown
	answers []func() // of those kills
	fence   bool     // a live lower lock was overwritten: open must fence
	details string   // why it was closed
	next    *login[C]
	turn    chan struct{} // nil unless it had to wait; closed when it may go on
}

// loginOf finds the login of s, running or waiting; the lock is held.
func (sh *shard[C]) loginOf(s *Session[C]) *login[C] {
	for l := sh.logins[s.Key()]; l != nil; l = l.next {
		if l.s == s {
			return l
		}
	}
	return nil
}

// Open logs s in, by the steps of protocols.md: acquire the lock, have the
// former socket ended, join the index, settle the lock, go live. greet is
// called under the shard's lock just before s takes events, and queues ready;
// it must not block nor call back into session. The error is a *Refusal, after
// which nothing of s is left here, and its socket was not touched. s must come
// from Init and be opened once. Blocks for a few Redis round trips: it is refused
// when one of them takes 2 s, or all of it LoginTimeout.
func (m *Manager[C]) Open(ctx context.Context, s *Session[C], opt Login, greet func(*Session[C], Ready)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.LoginTimeout)
	defer cancel()
	l := &login[C]{s: s, cancel: cancel, opt: opt, began: m.o.Now()}
	if err := m.begin(ctx, l); err != nil {
		return err
	}
	err = &Refusal{Reason: ReasonInternal} // stands if a step panics
	defer func() {
		if err != nil {
			err = m.fail(l, err)
		}
	}()
	err = m.steps(ctx, l, greet)
	return err
}

func (m *Manager[C]) steps(ctx context.Context, l *login[C], greet func(*Session[C], Ready)) error {
	got, err := m.acquire(ctx, l)
	if err != nil {
		return err
	}
	fence := m.confirm(ctx, l, got.Prev)
	if err := m.enter(l, got.Chat, &fence); err != nil {
		return err
	}
	if err := m.settle(ctx, l, fence); err != nil {
		return err
	}
	if l.s.agent.company == AdminCompany {
		if err := m.joinAdmin(ctx); err != nil {
			return err
		}
	}
	if err := m.recheck(ctx, l, got.RevVersion); err != nil {
		return err
	}
	l.awaitFormer(ctx)
	for {
		err := m.live(l, greet)
		if !errors.Is(err, errNews) {
			return err
		}
		if err := m.closed(l); err != nil {
			return err
		}
		if err := m.recheck(ctx, l, m.revoked.Load().Version); err != nil {
			return err
		}
	}
}

// errNews says that the revocations changed since the login was held against them.
var errNews = errors.New("newer revocations")

// begin is step 1: the key's place in the table. A login under way for the
// same key is ended, and gone after once nothing of it is on its way to Redis;
// of several that wait only the newest stays.
func (m *Manager[C]) begin(ctx context.Context, l *login[C]) error {
	s, sh := l.s, m.shard(l.s)
	sh.mu.Lock()
	if s.state != Opening || s.opened != 0 {
		defer sh.mu.Unlock()
		return &Refusal{Reason: s.ended, Details: "closed before its login"}
	}
	s.opened = max(1, seconds(l.began))
	sh.intern(s)
	key := s.Key()
	first := sh.logins[key]
	if first == nil {
		if sh.logins == nil {
			sh.logins = make(map[Key]*login[C])
		}
		sh.logins[key] = l
		sh.mu.Unlock()
		return nil
	}
	var ends []ended[C]
	for _, old := range []*login[C]{first, first.next} {
		if old == nil {
			continue
		}
		if e, ok := m.end(sh, old.s, ReasonReplaced, "by a later login on this pod"); ok {
			ends = append(ends, e)
		}
	}
	first.next, l.turn = l, make(chan struct{})
	sh.mu.Unlock()
	for _, e := range ends {
		m.bid(e)
	}
	select {
	case <-l.turn:
		return nil
	case <-ctx.Done():
		return m.fail(l, &Refusal{Reason: ReasonOverloaded, Details: "a former login of this key did not end in time", Err: ctx.Err()})
	}
}

// gone is the refusal of a login whose session was closed, nil if it was not.
func (l *login[C]) gone() error {
	if l.s.state != Closing {
		return nil
	}
	return &Refusal{Reason: l.s.ended, Details: l.details}
}

// enter is step 4: into the index as Joining, where fences and kills find it.
func (m *Manager[C]) enter(l *login[C], restored string, fence *bool) error {
	s, sh := l.s, m.shard(l.s)
	chat := strings.Clone(restored)
	if l.opt.Chat != nil {
		chat = strings.Clone(*l.opt.Chat)
	}
	if !s.Grants().Select(chat) {
		chat = ""
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if err := l.gone(); err != nil {
		return err
	}
	*fence = *fence || l.fence
	sh.insert(s, chat)
	l.entered, l.chat = true, chat
	if s.agent.company == AdminCompany {
		m.index.admins.enter()
	}
	return nil
}

// live is step 6. Everything that could have ended the session found it in
// the index since step 4, so its state says all.
func (m *Manager[C]) live(l *login[C], greet func(*Session[C], Ready)) error {
	next, err := m.goLive(l, greet)
	if err != nil {
		return err
	}
	next.wakeUp()
	m.metrics.opened(m.o.Now() - l.began)
	return nil
}

func (m *Manager[C]) goLive(l *login[C], greet func(*Session[C], Ready)) (next *login[C], err error) {
	s, sh := l.s, m.shard(l.s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if err := l.gone(); err != nil {
		return nil, err
	}
	if s.doomed { // a fence found it; the Close of its finder is on the way
		return nil, &Refusal{Reason: ReasonReplaced, Details: "outranked while it was logged in"}
	}
	if set := m.revoked.Load(); set != l.checked {
		return nil, errNews
	} else if set != nil {
		s.heldAgainst(set.odd)
	}
	s.floor, s.last = sh.w, sh.w
	s.opened = max(1, seconds(m.o.Now()))
	r := Ready{Epoch: s.epoch, Floor: s.floor, Chat: s.chat}
	admin := s.agent.company == AdminCompany
	if admin {
		r.Floor = 0
	}
	greet(s, r)
	s.state = Live
	if l.opt.Replay {
		s.state, s.last = Replay, l.opt.After
	}
	sh.live++
	if admin {
		m.index.admins.begin(s)
	}
	return sh.handOver(l), nil
}

// fail ends a login that did not go live. The order matters: a session here
// whose lock it may have taken goes too, for the release would leave it without
// one, and the next login elsewhere would not hear of it; edges that its Open may
// have joined late are left, the lock is released (by connection, so whether or
// not it was ever acquired), and only then may a next login of the key begin,
// whose acquire goes behind both in the partition's lane.
func (m *Manager[C]) fail(l *login[C], err error) error {
	var r *Refusal
	if !errors.As(err, &r) {
		r = &Refusal{Reason: ReasonInternal, Err: err}
	}
	s, sh := l.s, m.shard(l.s)
	sh.mu.Lock()
	if gone := l.gone(); gone != nil {
		errors.As(gone, &r)
	}
	e, ok := m.end(sh, s, r.Reason, r.Details)
	key := s.Key()
	var former ended[C]
	robbed := false
	if l.unsure {
		if former.s = sh.find(key); former.s != nil {
			if r.Reason == ReasonReplaced { // whoever overtook this one overtook that one, too
				former, robbed = m.end(sh, former.s, ReasonReplaced, r.Details)
			} else {
				former, robbed = m.end(sh, former.s, ReasonLost, "another login of it took the lock, and failed")
			}
		}
	}
	sh.mu.Unlock()
	if ok {
		m.bid(e)
	}
	if robbed {
		m.bid(former)
	}
	if l.entered {
		m.leaveLate(key, l.chat)
	}
	if l.asked {
		m.o.Locks.Release(int(s.part), key, s.conn)
	}
	sh.mu.Lock()
	sh.forget(s)
	next := sh.handOver(l)
	sh.mu.Unlock()
	next.wakeUp()
	m.metrics.refused(r.Reason)
	return r
}

// handOver takes l out of the table and puts the one that waited in its place;
// the lock is held.
func (sh *shard[C]) handOver(l *login[C]) *login[C] {
	key := l.s.Key()
	first := sh.logins[key]
	if first != l { // it only waited
		for o := first; o != nil; o = o.next {
			if o.next == l {
				o.next = l.next
			}
		}
		return nil
	}
	if l.next == nil {
		delete(sh.logins, key)
		return nil
	}
	sh.logins[key] = l.next
	return l.next
}

func (l *login[C]) wakeUp() {
	if l != nil {
		close(l.turn)
	}
}
