package session

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// chunk is how many locks one reassert carries; kills how many former owners
// are asked at a time.
const (
	chunk = 512
	kills = 32
)

// sweptPart is what the sweeps know of a partition.
type sweptPart struct {
	at   atomic.Int64  // boot clock at the start of the last whole sweep; 0: none
	seen atomic.Uint64 // the partition's last epoch at that moment
	turn chan struct{} // one token: one sweep or assert at a time
}

// lock takes the turn. Whoever has it may wait for Redis, so a mutex would not do.
func (p *sweptPart) lock(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *sweptPart) unlock() { <-p.turn }

func (p *sweptPart) lastSeen() uint64 { return p.seen.Load() }

// Swept is when all locks of n were last verified, as a time to subtract from
// time.Now; zero: never. It is the start of that sweep, by a clock that counts
// suspended time.
func (m *Manager[C]) Swept(n int) time.Time {
	at := m.parts[n].at.Load()
	if at == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(at) - m.o.Now())
}

// Reassert writes all locks of n again, then all routes, under incarnation inc:
// the heart of the server's assert(), and of the sweep. Sessions that were
// outranked meanwhile are closed. ErrStale: inc has changed, begin anew with
// the new one. Blocks for a few Redis round trips.
func (m *Manager[C]) Reassert(ctx context.Context, n int, inc string) error {
	p := &m.parts[n]
	if err := p.lock(ctx); err != nil {
		return fmt.Errorf("wait for another sweep of partition %d: %w", n, err)
	}
	defer p.unlock()
	began := max(1, m.o.Now())
	now, seen, err := m.o.Renewer.Inc(ctx, n)
	if err != nil {
		return fmt.Errorf("read incarnation of partition %d: %w", n, err)
	}
	if now != inc {
		return ErrStale
	}
	sh := &m.index.shards[n]
	sh.mu.Lock()
	who, held := sh.held(m.fresh())
	sh.mu.Unlock()
	for len(held) > 0 {
		k := min(chunk, len(held))
		if err := m.reassertChunk(ctx, n, inc, who[:k], held[:k], began); err != nil {
			return err
		}
		who, held = who[k:], held[k:]
	}
	wants := m.index.Wants(n)
	stale, err := m.o.Renewer.JoinAll(ctx, n, inc, wants)
	m.index.unwant(n, wants) // what ended meanwhile left before we joined
	if err != nil {
		return fmt.Errorf("join routes of partition %d: %w", n, err)
	}
	if stale {
		return ErrStale
	}
	p.seen.Store(seen)
	p.at.Store(int64(began))
	return nil
}

// lowered is a session whose lock overwrote a live lower one.
type lowered[C Socket] struct {
	s    *Session[C]
	held Held
	prev *Lock
}

func (m *Manager[C]) reassertChunk(ctx context.Context, n int, inc string, who []*Session[C], held []Held, began time.Duration) error {
	answers, stale, err := m.o.Renewer.Reassert(ctx, n, inc, m.parts[n].lastSeen(), held)
	if err != nil {
		return fmt.Errorf("reassert locks of partition %d: %w", n, err)
	}
	if stale || len(answers) != len(held) {
		return ErrStale
	}
	var over []lowered[C]
	for i, a := range answers {
		s := who[i]
		switch {
		case a.Verdict == Lost && a.Unconfirmed:
			m.metrics.lockLost.Inc()
			m.Close(s, ReasonLost, "")
		case a.Verdict == Lost:
			m.metrics.lockLost.Inc()
			m.Close(s, ReasonReplaced, "")
		case m.reasserted(s, held[i], a.Prev, began):
			over = append(over, lowered[C]{s, held[i], a.Prev})
		}
	}
	return m.fenceAll(ctx, n, inc, over)
}

// reasserted notes an OK. A session that ended meanwhile may have got its lock
// back by this, so it is released again. True: it overwrote a live lower lock
// and must be fenced now; a login that is not in the index yet will do that
// itself, with its open.
func (m *Manager[C]) reasserted(s *Session[C], h Held, prev *Lock, began time.Duration) bool {
	sh := m.shard(s)
	sh.mu.Lock()
	state := s.state
	if state != Closing {
		s.verified = max(s.verified, seconds(began))
	}
	if l := sh.loginOf(s); l != nil && state == Opening && prev != nil {
		l.fence = true
	}
	sh.mu.Unlock()
	if state == Closing {
		m.o.Locks.Release(int(s.part), h.Key, h.Conn)
		return false
	}
	return prev != nil && state != Opening
}

// fenceAll fences sessions whose lower rivals had their locks back before
// them, then has the rivals' pods end them, so that those hear of it at once.
func (m *Manager[C]) fenceAll(ctx context.Context, n int, inc string, over []lowered[C]) error {
	for _, o := range over {
		m.metrics.fences.Inc()
		h := o.held
		h.Chat, h.KeepChat = "", true // held is a while old; the chat's route is joined afterwards
		got, err := m.o.Locks.Open(ctx, n, inc, h, true)
		switch {
		case err != nil:
			return fmt.Errorf("fence in partition %d: %w", n, err)
		case got.Verdict == Lost && got.Higher:
			m.metrics.lockLost.Inc()
			m.Close(o.s, ReasonReplaced, "")
		case got.Verdict != OK:
			return ErrStale // gone again: from the start
		}
		m.leaveLate(h.Key, h.Chat)
		if m.index.State(o.s) == Closing {
			m.o.Locks.Release(n, o.held.Key, o.held.Conn)
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, kills)
	for _, o := range over {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if o.prev.Owner == m.o.Owner {
				return // one key has one session here: it ended long ago
			}
			err := safely(func() error {
				m.o.Killer.Kill(ctx, o.prev.Owner, o.held.Key, o.held.Epoch, o.held.Conn)
				return nil // answered or not: it is fenced
			})
			if err != nil {
				m.o.Log.Error().Err(err).Msg("kill of an outranked session")
			}
		})
	}
	wg.Wait()
	return nil
}
