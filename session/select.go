package session

import (
	"context"
	"fmt"
	"strings"
)

// selection is one select_chat on its way to Redis.
type selection[C Socket] struct {
	s    *Session[C]
	chat string
	done func(error)
	// back: nothing is selected by it, but another one may have been written
	// although it failed; done does nothing.
	back bool
}

// Select makes chat the one selected chat of s, nil none. It takes effect when
// the route stands in Redis: until then s gets the old chat's events and none
// of the new one's, from then on the other way round, and done(nil) follows. An
// error is returned, and done never called, when nothing was begun: ErrBusy (no
// room, or another selection of s is on its way), ErrClosed, ErrDenied.
// done(err) says that the old selection was never left. Never blocks. done runs
// on another goroutine and must not block.
func (m *Manager[C]) Select(s *Session[C], chat *string, done func(error)) error {
	p := &selection[C]{s: s, done: done}
	if chat != nil {
		if !s.Grants().Select(*chat) {
			return ErrDenied
		}
		p.chat = strings.Clone(*chat) // often part of a lent message
	}
	n, sh := int(s.part), m.shard(s)
	inc := m.o.Parts.Inc(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case !s.selects():
		return ErrClosed
	case sh.pending[s] != nil || !m.o.Routes.Room(n):
		return ErrBusy
	}
	if err := m.join(p, inc); err != nil {
		return err
	}
	sh.pend(p)
	return nil
}

// selects says whether s may select anything; the shard's lock is held.
func (s *Session[C]) selects() bool { return s.state == Live || s.state == Replay }

// join queues the edge of p; the shard's lock is held.
func (m *Manager[C]) join(p *selection[C], inc string) error {
	h := p.s.held(0)
	h.Chat = p.chat
	var w *Want
	if p.chat != "" {
		want := p.want()
		w = &want
	}
	return m.o.Routes.Join(int(p.s.part), inc, w, h, func(v Verdict, err error) { m.joined(p, v, err) })
}

// joined is how Redis answered.
func (m *Manager[C]) joined(p *selection[C], v Verdict, err error) {
	switch {
	case p.back: // whatever it was: the next selection or login says more
	case err != nil:
		m.revert(p, fmt.Errorf("join chat: %w", err))
	case v == Stale:
		m.later(p)
	default:
		m.chosen(p)
	}
}

// chosen lets p take effect: the old chat is left in the same critical section
// in which the new one begins.
func (m *Manager[C]) chosen(p *selection[C]) {
	s, sh := p.s, m.shard(p.s)
	sh.mu.Lock()
	if sh.pending[s] != p {
		sh.mu.Unlock()
		p.done(ErrClosed)
		return
	}
	edges := sh.delist(s, nil)
	sh.enlist(s, p.chat)
	s.chosen = choice(m.o.Now())
	m.index.leave(int(s.part), sh.unpend(s, edges))
	sh.mu.Unlock()
	m.metrics.selects.Inc()
	p.done(nil)
}

// drop ends p without effect, and says what s has selected instead; false: s
// has ended, and its selections with it.
func (m *Manager[C]) drop(p *selection[C]) (chat string, ok bool) {
	s, sh := p.s, m.shard(p.s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.pending[s] != p {
		return "", false
	}
	m.index.leave(int(s.part), sh.unpend(s, nil))
	return s.chat, true
}

// revert ends p after an unknown outcome. The old chat was never left; but what
// Redis remembers as selected may be p's, so that is written again when the
// partition is known to agree. Nobody waits for that: if Redis stays away, the
// key's next login is offered the chat that this client asked for.
func (m *Manager[C]) revert(p *selection[C], err error) {
	chat, ok := m.drop(p)
	if !ok {
		p.done(ErrClosed)
		return
	}
	m.metrics.lockErrors.Inc()
	p.done(err)
	m.later(&selection[C]{s: p.s, chat: chat, done: func(error) {}, back: true})
}

// later has Run assert the partition, and then finish p.
func (m *Manager[C]) later(p *selection[C]) {
	n := int(p.s.part)
	m.mu.Lock()
	stopped := m.stopped
	if !stopped {
		m.urgent[n] = append(m.urgent[n], p)
	}
	m.mu.Unlock()
	if stopped {
		m.drop(p)
		p.done(ErrClosed)
		return
	}
	m.nudge()
}

func (m *Manager[C]) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// finish takes up selections that waited for an assert of n.
func (m *Manager[C]) finish(ctx context.Context, n int, waiting []*selection[C]) {
	err := m.o.Parts.Assert(ctx, n)
	for _, p := range waiting {
		switch {
		case err == nil:
			if err := m.again(p); err != nil {
				m.revert(p, err)
			}
		case !p.back:
			m.revert(p, fmt.Errorf("assert partition: %w", err))
		}
	}
}

// again repeats a join that met a stale incarnation, or that failed and may
// have been made all the same.
func (m *Manager[C]) again(p *selection[C]) error {
	inc, s, sh := m.o.Parts.Inc(int(p.s.part)), p.s, m.shard(p.s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case p.back:
		if s.selects() && sh.pending[s] == nil && s.chat == p.chat {
			_ = m.join(p, inc) // no room: see revert
		}
		return nil
	case sh.pending[s] != p:
		return ErrClosed
	}
	return m.join(p, inc)
}
