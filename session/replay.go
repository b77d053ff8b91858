package session

import (
	"context"
	"errors"
)

// ErrOrder says that a replay offered events out of order; its session must end.
var ErrOrder = errors.New("events of a replay out of order")

// BeginReplay puts a Live session into Replay, from which events come by a
// replay of the stream from after on; seq may fall once, by the client's wish.
// False: it is not Live.
func (x *Index[C]) BeginReplay(s *Session[C], after uint64) bool {
	sh := &x.shards[s.part]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.state != Live || s.doomed {
		return false
	}
	s.state, s.mark, s.last = Replay, 0, after
	s.Unset(flagHole) // it is above after
	return true
}

// Replaying returns what s has selected while it is in Replay.
func (x *Index[C]) Replaying(s *Session[C]) (chat string, ok bool) {
	sh := &x.shards[s.part]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return s.chat, s.state == Replay && !s.doomed
}

// Feed hands events of a replay to s: put(i) queues the one whose seq is
// seqs[i], under the shard's lock, which must not take long: some dozens at a
// time. It stops at the first one that is not Queued, for want of room or
// because the socket is closing; took is how many went. ErrClosed: s is not in
// Replay any more. ErrOrder: seqs do not rise above what s was given; it is
// doomed, and the caller closes it.
func (x *Index[C]) Feed(s *Session[C], seqs []uint64, put func(i int) Put) (took int, err error) {
	sh := &x.shards[s.part]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.state != Replay || s.doomed {
		return 0, ErrClosed
	}
	for i, seq := range seqs {
		if seq <= s.last {
			s.doomed = true
			return i, ErrOrder
		}
		if put(i) != Queued {
			return i, nil
		}
		s.last = seq
	}
	return len(seqs), nil
}

// Replayed says that s was given everything up to upto, or told that it is not.
// Live again if nothing above was passed over meanwhile: both are decided under
// the lock that W moves under, so there is no seam. Else more says up to where
// to go on. Neither: it is not in Replay.
func (x *Index[C]) Replayed(s *Session[C], upto uint64) (more uint64, live bool) {
	sh := &x.shards[s.part]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.state != Replay || s.doomed {
		return 0, false
	}
	s.last = upto // lower than before only after a gap, for a seq that the stream never had
	if s.mark > upto {
		return s.mark, false
	}
	s.floor, s.mark, s.state = upto, 0, Live
	return 0, true
}

// Cursor has put queue, under the shard's lock, a word that s has all it is
// owed up to seq, when s is Live and was given nothing since the call before; or
// at once, where there is a Hole, a word of that. put says whether it was queued.
func (x *Index[C]) Cursor(s *Session[C], put func(seq uint64) bool) {
	sh := &x.shards[s.part]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.state != Live || s.doomed {
		return
	}
	if at := max(sh.w, s.floor); (s.last == s.mark || s.Has(flagHole)) && at > s.last && put(at) {
		s.last = at
		s.Unset(flagHole)
	}
	s.mark = s.last
}

// Confirm returns nil when Redis said, after the call, that s still holds its
// lock under the incarnation that its partition was asserted under: nothing
// stored before the call is kept from it by a newer session of its key (S1).
// ErrClosed: s has ended, perhaps by this. Any other error: not known, ask
// again. Blocks for a Redis round trip, longer where n must be asserted.
func (m *Manager[C]) Confirm(ctx context.Context, s *Session[C]) error {
	n, sh := int(s.part), m.shard(s)
	for {
		inc, err := m.inc(ctx, n)
		if err != nil {
			return err
		}
		began := max(1, m.o.Now())
		sh.mu.Lock()
		ended, held := s.state == Closing, sh.heldOf(s, m.fresh())
		sh.mu.Unlock()
		if ended {
			return ErrClosed
		}
		err = m.reassertChunk(ctx, n, inc, []*Session[C]{s}, []Held{held}, began)
		switch {
		case errors.Is(err, ErrStale):
			if err := m.assert(ctx, n); err != nil {
				return err
			}
		case err != nil:
			return err
		case m.index.State(s) == Closing:
			return ErrClosed
		default:
			return nil
		}
	}
}
