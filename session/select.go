package session

import (
	"context"
	"fmt"
	"strings"
)

// selection is one select_chat on its way to Redis.
type selection[C Socket] struct {
	s         *Session[C]
	chat, had string
	done      func(error)
	err       error // not nil: it failed, the old chat is back, only done is left
}

// Select makes chat the one selected chat of s, nil none. The index changes at
// once; done(nil) follows when the route stands in Redis, which is when the
// selection takes effect. An error is returned, and done never called, when
// nothing was changed: ErrBusy, ErrClosed, ErrDenied. done(err) says that the
// old selection is back. Never blocks; the caller keeps to one at a time per
// session. done runs on another goroutine and must not block.
func (m *Manager[C]) Select(s *Session[C], chat *string, done func(error)) error {
	p := &selection[C]{s: s, done: done}
	if chat != nil {
		if !s.grants.Select(*chat) {
			return ErrDenied
		}
		p.chat = strings.Clone(*chat) // often part of a lent message
	}
	return m.choose(p)
}

// choose queues the join and changes the index, in this order under one lock,
// so that a full queue changes nothing.
func (m *Manager[C]) choose(p *selection[C]) error {
	s, n, sh := p.s, int(p.s.part), m.shard(p.s)
	inc := m.o.Parts.Inc(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.state != Live && s.state != Replay {
		return ErrClosed
	}
	if !m.o.Routes.Room(n) {
		return ErrBusy
	}
	p.had = s.chat
	return m.join(sh, p, inc)
}

// join queues the edge of p, and makes the index agree; the lock is held.
func (m *Manager[C]) join(sh *shard[C], p *selection[C], inc string) error {
	s, n := p.s, int(p.s.part)
	var w *Want
	if p.chat != "" {
		w = &Want{Company: s.agent.company, Agent: s.agent.id, Chat: p.chat}
	}
	h := s.held(0)
	h.Chat = p.chat
	if err := m.o.Routes.Join(n, inc, w, h, func(v Verdict, err error) { m.joined(p, v, err) }); err != nil {
		return err
	}
	m.move(sh, s, p.chat)
	return nil
}

// move changes the selected chat in the index and leaves the old edge when
// nobody else has it; the lock is held.
func (m *Manager[C]) move(sh *shard[C], s *Session[C], chat string) {
	if s.chat == chat {
		return
	}
	edges := sh.delist(s, nil)
	sh.enlist(s, chat)
	m.index.leave(int(s.part), edges)
}

// joined is how Redis answered.
func (m *Manager[C]) joined(p *selection[C], v Verdict, err error) {
	switch {
	case err != nil:
		m.revert(p, fmt.Errorf("join chat: %w", err))
	case v == Stale:
		m.later(int(p.s.part), p)
	default:
		m.metrics.selects.Inc()
		p.done(nil)
	}
}

// revert puts the old chat back after an unknown outcome. Its edge may have
// left meanwhile, so the partition is asserted before the client hears of it.
func (m *Manager[C]) revert(p *selection[C], err error) {
	sh := m.shard(p.s)
	sh.mu.Lock()
	if (p.s.state == Live || p.s.state == Replay) && p.s.chat == p.chat {
		m.move(sh, p.s, p.had)
	}
	sh.mu.Unlock()
	m.metrics.lockErrors.Inc()
	p.err = err
	m.later(int(p.s.part), p)
}

// later has Run assert n, and then finish p.
func (m *Manager[C]) later(n int, p *selection[C]) {
	m.mu.Lock()
	stopped := m.stopped
	if !stopped {
		m.urgent[n] = append(m.urgent[n], p)
	}
	m.mu.Unlock()
	if stopped {
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
		case p.err != nil:
			p.done(p.err)
		case err != nil:
			sh := m.shard(p.s)
			sh.mu.Lock()
			if (p.s.state == Live || p.s.state == Replay) && p.s.chat == p.chat {
				m.move(sh, p.s, p.had)
			}
			sh.mu.Unlock()
			p.done(fmt.Errorf("assert partition: %w", err))
		default:
			if err := m.again(p); err != nil {
				m.revert(p, err)
			}
		}
	}
}

// again repeats a join that met a stale incarnation.
func (m *Manager[C]) again(p *selection[C]) error {
	inc, sh := m.o.Parts.Inc(int(p.s.part)), m.shard(p.s)
	sh.mu.Lock()
	if p.s.state != Live && p.s.state != Replay || p.s.chat != p.chat {
		sh.mu.Unlock()
		p.done(ErrClosed)
		return nil
	}
	defer sh.mu.Unlock()
	return m.join(sh, p, inc)
}
