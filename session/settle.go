package session

import (
	"context"
	"errors"
	"time"
)

// settle is step 5: the lock is confirmed as ours, fenced when needed, routes
// joined, all in one script.
func (m *Manager[C]) settle(ctx context.Context, l *login[C], fence bool) error {
	s, n := l.s, int(l.s.part)
	h := Held{Key: s.Key(), Conn: s.conn, Epoch: s.epoch, Chat: l.chat, Fresh: true, KeepChat: s.Grants().ReadOnly()}
	var try attempt
	for {
		inc, err := m.inc(ctx, n)
		if err != nil {
			return err
		}
		began := m.o.Now()
		call := m.call(ctx, &try)
		got, err := m.o.Locks.Open(call, n, inc, h, fence)
		if gone := m.closed(l); gone != nil {
			return gone
		}
		switch {
		case err != nil:
			err = m.failed(ctx, &try, err)
		case got.Verdict == Stale:
			try, err = attempt{}, m.assert(ctx, n)
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
	call := m.call(ctx, try)
	answers, stale, err := m.o.Renewer.Reassert(call, n, inc, m.parts[n].lastSeen(), []Held{h})
	switch {
	case err != nil || !stale && len(answers) != 1:
		return nil, m.failed(ctx, try, errors.Join(err, ErrStale))
	case stale:
		return nil, m.assert(ctx, n)
	case answers[0].Unconfirmed:
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
