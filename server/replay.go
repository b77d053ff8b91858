package server

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// Why a resume is answered by a gap instead of a replay, as gap frames say it.
// reasonReset and reasonRetention are the same for live sessions.
const (
	reasonBeyond = "beyond_last"     // a seq that the stream has not reached
	reasonWindow = "window"          // older than DWS_RESUME_WINDOW
	reasonEvents = "too_many_events" // more than DWS_RESUME_MAX_EVENTS
	reasonBytes  = "too_many_bytes"  // more than DWS_RESUME_MAX_BYTES
	reasonAdmin  = "admin"           // events of all partitions have no common order
)

const (
	feedStep      = 64        // events queued under one hold of the shard's lock
	frameOverhead = 256       // bytes of a frame besides the event's body, at most about
	pieceBytes    = 256 << 10 // read at a time; less where a quarter of the send budget is
)

// replay is one resume under way: what its session wants now of everything
// after pos is read from the stream and queued on its socket, round by round,
// until it has caught up with what comes live. One worker at a time has it.
type replay struct {
	c      *client
	stream string // what pos counts in
	pos    uint64 // all up to here was queued, or told
	began  time.Time

	// Of a round: all up to upto, in pieces.
	round  bool   // one has begun
	upto   uint64 // the leader's last seq, read after the session was in Replay
	pieces []piece
	held   []heldFrame // of the first piece; nil: to be read
	rounds int         // since the last pause

	// Of the pauses.
	tries   int       // failures in a row
	low     int       // fewest bytes that the socket had waiting while it was full
	stalled time.Time // since when that has not fallen; zero: the socket takes
	told    bool      // a gap was queued
}

// piece is a part of a round, up to a seq, and about how many bytes its frames take.
type piece struct {
	upto  uint64
	bytes int
}

type heldFrame struct {
	seq   uint64
	frame *loop.Frame
}

// errEnded says that a replay has nothing to do any more: its session has ended.
var errEnded = errors.New("session of the replay has ended")

// gapError says why a replay can't be: its session is told one gap instead.
type gapError struct{ why string }

func (e *gapError) Error() string { return "no replay: " + e.why }

// advance does what can be done now. 0: the replay is over; else it is to be
// called again after so long.
func (p *replays) advance(ctx context.Context, r *replay) time.Duration {
	for {
		chat, ok := p.env.index.Replaying(&r.c.Session)
		if !ok {
			return p.over(r, resumeEnded)
		}
		var err error
		switch {
		case len(r.pieces) > 0:
			if wait := p.room(r, r.pieces[0].bytes); wait > 0 {
				return wait
			}
			err = p.feed(ctx, r, chat)
		case r.round:
			if p.caughtUp(r) {
				return p.over(r, r.result())
			}
		default:
			if wait := p.room(r, 0); wait > 0 {
				return wait
			}
			err = p.beginRound(ctx, r, chat)
		}
		if errors.Is(err, errEnded) || errors.Is(err, session.ErrClosed) {
			return p.over(r, resumeEnded)
		}
		if err != nil {
			// NATS or Redis can't now, or the stream is being replaced: nothing
			// is lost by it, the session waits in Replay.
			p.m.retries.Inc()
			r.tries = min(r.tries+1, replayTries)
			return replayAgain << r.tries
		}
		r.tries = 0
		if r.rounds >= replayTurn { // a busy agent must not keep a worker from others
			r.rounds = 0
			return replayYield
		}
	}
}

// beginRound starts a round: H, then the lasts of the subjects, then the lock, then
// the events (P4).
func (p *replays) beginRound(ctx context.Context, r *replay, chat string) error {
	s := &r.c.Session
	stream := p.env.shown(s.Partition())
	first, last, err := p.env.stream.LastSeq(ctx)
	if err != nil {
		return err
	}
	if p.env.id() != stream {
		return errStreamMoved
	}
	switch {
	case r.stream != stream:
		return p.tell(r, reasonReset, stream, last)
	case r.pos > last:
		return p.tell(r, reasonBeyond, r.stream, last)
	case r.pos+1 < first && r.pos < last:
		return p.tell(r, reasonRetention, r.stream, last)
	}
	from := backlog{env: &p.env, s: s, chat: chat, most: sparse * p.limits.MaxEvents}
	if from.subjects, err = p.ahead(ctx, from.all(), r.pos); err != nil {
		return err
	}
	if len(from.subjects) > 0 {
		if err := p.env.manager.Confirm(ctx, s); err != nil {
			return err
		}
		if !p.env.revoked(ctx) { // it was cut off, and is not up to date yet
			return errGate
		}
		if r.pieces, r.held, err = p.survey(ctx, from, r.pos, last); err != nil {
			return p.broken(r, err, last)
		}
	}
	if p.env.id() != stream {
		r.pieces, r.held = nil, nil
		return errStreamMoved
	}
	r.upto, r.round = last, true
	r.rounds++
	return nil
}

// ahead leaves the subjects that have something after pos.
func (p *replays) ahead(ctx context.Context, subjects []string, pos uint64) (left []string, err error) {
	for _, f := range subjects {
		last, err := p.env.stream.LastOf(ctx, f)
		if err != nil {
			return nil, err
		}
		if last > pos {
			left = append(left, f)
		}
	}
	return left, nil
}

// survey reads (after, upto] to learn whether it is within bounds: nothing is
// sent before that is known, for there are no partial replays. A round that is
// a piece is kept, a larger one is cut, and read again piece by piece.
func (p *replays) survey(ctx context.Context, from backlog, after, upto uint64) ([]piece, []heldFrame, error) {
	var seen []piece // one an event, until they are cut
	var kept []heldFrame
	events, bytes, room := 0, 0, 0
	oldest := time.Now().Add(-p.limits.Window).UnixNano()
	err := from.read(ctx, after, upto, func(ev *session.Event) error {
		events++
		bytes += len(ev.Body)
		room += len(ev.Body) + frameOverhead
		switch {
		case ev.Stamp < oldest:
			return &gapError{reasonWindow}
		case events > p.limits.MaxEvents:
			return &gapError{reasonEvents}
		case bytes > p.limits.MaxBytes:
			return &gapError{reasonBytes}
		}
		seen = append(seen, piece{ev.Seq, len(ev.Body) + frameOverhead})
		if room <= p.piece || events == 1 {
			kept = append(kept, heldFrame{ev.Seq, replayFrame(ev)})
		} else {
			kept = nil
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if len(kept) == len(seen) {
		slices.SortFunc(kept, func(a, b heldFrame) int { return cmp.Compare(a.seq, b.seq) })
		return []piece{{upto, room}}, kept, nil
	}
	return cut(seen, p.piece, upto), nil, nil
}

// cut makes pieces of at most size bytes, or of one event, the last up to upto.
func cut(seen []piece, size int, upto uint64) []piece {
	slices.SortFunc(seen, func(a, b piece) int { return cmp.Compare(a.upto, b.upto) })
	var pieces []piece
	for _, e := range seen {
		if n := len(pieces); n > 0 && pieces[n-1].bytes+e.bytes <= size {
			pieces[n-1] = piece{e.upto, pieces[n-1].bytes + e.bytes}
		} else {
			pieces = append(pieces, e)
		}
	}
	if n := len(pieces); n > 0 {
		pieces[n-1].upto = upto
	}
	return pieces
}

// feed queues the first piece, which room said there is room for.
func (p *replays) feed(ctx context.Context, r *replay, chat string) error {
	if r.held == nil {
		from := backlog{env: &p.env, s: &r.c.Session, chat: chat, most: sparse * p.limits.MaxEvents}
		from.subjects = from.all()
		err := from.read(ctx, r.pos, r.pieces[0].upto, func(ev *session.Event) error {
			r.held = append(r.held, heldFrame{ev.Seq, replayFrame(ev)})
			return nil
		})
		if err == nil && p.env.id() != r.stream {
			err = errStreamMoved
		}
		if err != nil {
			r.held = nil
			return p.broken(r, err, r.upto)
		}
		slices.SortFunc(r.held, func(a, b heldFrame) int { return cmp.Compare(a.seq, b.seq) })
	}
	for len(r.held) > 0 {
		took, err := p.feedStep(r, r.held[:min(feedStep, len(r.held))])
		if took > 0 {
			r.pos = r.held[took-1].seq
			r.held = r.held[took:]
			p.m.events.Add(took)
		}
		if err != nil {
			return err
		}
		if took == 0 { // something else took the room: what is left is read again
			r.held = nil
			return nil
		}
	}
	r.pos, r.held = r.pieces[0].upto, nil
	r.pieces = r.pieces[1:]
	return nil
}

// feedStep queues some frames under one hold of the lock.
func (p *replays) feedStep(r *replay, frames []heldFrame) (took int, err error) {
	var seqs [feedStep]uint64
	for i := range frames {
		seqs[i] = frames[i].seq
	}
	s := &r.c.Session
	took, err = p.env.index.Feed(s, seqs[:len(frames)], func(i int) session.Put {
		new(faults).fed()
		switch err := s.Sock().Queue(frames[i].frame); {
		case err == nil:
			return session.Queued
		case errors.Is(err, loop.ErrSlow):
			return session.Slow
		}
		return session.Gone
	})
	if errors.Is(err, session.ErrOrder) {
		p.env.manager.Finish(&session.Delivered[*loop.Conn]{Disordered: []*session.Session[*loop.Conn]{s}})
		err = errEnded
	}
	return took, err
}

// replayFrame encodes ev for one receiver. Its age is no latency of ours.
func replayFrame(ev *session.Event) *loop.Frame {
	again := *ev
	again.Stamp = 0
	return eventFrame(&again)
}

// room says how long to wait until the socket takes bytes more: a piece goes
// when less than half the budget waits, or nothing at all. One whose queue does
// not move for long is closed as slow.
func (p *replays) room(r *replay, bytes int) time.Duration {
	waiting := r.c.Sock().Queued()
	if waiting == 0 || waiting < p.budget/2 && waiting+bytes <= p.budget {
		r.stalled = time.Time{}
		return 0
	}
	now := time.Now()
	switch {
	case r.stalled.IsZero() || waiting < r.low:
		r.low, r.stalled = waiting, now
	case now.Sub(r.stalled) > p.patience:
		r.c.close(session.ReasonSlow, "it took nothing of its replay")
	}
	r.held = nil // thousands may wait here: none keeps what it can read again
	return min(max(now.Sub(r.stalled)/4, replayLook), replayLookMax)
}

// caughtUp ends the round: the session is live, or goes on from there.
func (p *replays) caughtUp(r *replay) bool {
	_, live := p.env.index.Replayed(&r.c.Session, r.upto)
	r.pos, r.upto, r.round = r.upto, 0, false
	return live
}

// broken is what the end of a reading means: a gap where events are too many,
// too old or gone, else err.
func (p *replays) broken(r *replay, err error, upto uint64) error {
	var gap *gapError
	var trimmed *natsx.TrimmedError
	switch {
	case errors.As(err, &gap):
		return p.tell(r, gap.why, r.stream, upto)
	case errors.As(err, &trimmed):
		return p.tell(r, reasonRetention, r.stream, upto)
	}
	return err
}

// tell answers with one gap what can't be replayed, over all that is left; who
// does not know the frame is closed 4408. It counts as a round: what was passed
// over above it is replayed.
func (p *replays) tell(r *replay, why, stream string, upto uint64) error {
	from := min(r.pos+1, upto)
	if why == reasonReset {
		from = min(1, upto) // another numbering: nothing of this one is known to be there
	}
	if !r.c.Has(session.FlagNewFrames) {
		r.c.close(session.ReasonGap, why)
		return errEnded
	}
	if err := r.c.Sock().Queue(gapFrame(from, upto, why, false)); err != nil {
		return err
	}
	r.stream, r.pos, r.upto, r.round, r.pieces, r.held, r.told = stream, upto, upto, true, nil, nil, true
	return nil
}
