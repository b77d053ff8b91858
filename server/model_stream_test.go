package server

import (
	"context"
	"fmt"
	"time"

	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// modelStream is our events stream, of all partitions; the schedule stores.
type modelStream struct {
	resets int
	id     string
	first  uint64        // what is below was dropped
	events []storedEvent // seq 1, 2, …
}

// storedEvent has the step in which it was stored as its stamp.
type storedEvent struct {
	session.Event
	part int
}

func newModelStream() *modelStream {
	s := &modelStream{}
	s.reset()
	return s
}

// reset makes the stream anew: another id, seqs from 1.
func (s *modelStream) reset() {
	s.resets++
	s.id, s.first, s.events = fmt.Sprint("stream", s.resets), 1, nil
}

func (s *modelStream) last() uint64 { return uint64(len(s.events)) }

func (s *modelStream) store(r session.Route, at int) {
	e := session.Event{Seq: s.last() + 1, Stamp: int64(at), Route: r, Body: []byte("{}")}
	s.events = append(s.events, storedEvent{e, session.Partition(r.Company, r.Agent, modelPartitions)})
}

// read is up to limit events of n in (after, upto], all when limit is 0.
func (s *modelStream) read(n int, after, upto uint64, limit int) []session.Event {
	var list []session.Event
	for seq := max(after+1, s.first); seq <= min(upto, s.last()); seq++ {
		if e := s.events[seq-1]; e.part == n {
			list = append(list, e.Event)
			if len(list) == limit {
				break
			}
		}
	}
	return list
}

// lastOf is the last seq of n, 0 when there is none.
func (s *modelStream) lastOf(n int) uint64 {
	for i := len(s.events) - 1; i >= 0; i-- {
		if s.events[i].part == n {
			return s.events[i].Seq
		}
	}
	return 0
}

// partStream is the stream as one partition of a pod asks it.
type partStream struct {
	p *modelPod
	n int
}

func (s partStream) Stream() natsx.Stream { return s.p.view() }

type seqs struct {
	first, last uint64
	ok          bool
}

func (s partStream) LastSeq(ctx context.Context) (first, last uint64, err error) {
	p, w := s.p, s.p.w
	if w.cut == ruleAssertThenRepair && p.asserted[s.n].Swap(false) {
		last = p.m.Index().Watermark(s.n)
		return 1, last, nil
	}
	if w.cut == ruleFencesReadAfterEvents {
		l, err := p.lookup(ctx, s.n, modelWants(s.n))
		if err != nil {
			return 0, 0, err
		}
		p.earlyFences[s.n] = l.Fences
	}
	id := p.view().ID
	got, err := ask(ctx, p, &modelCall{name: "last seq"}, func() seqs {
		return seqs{w.stream.first, w.stream.last(), w.stream.id == id}
	})
	if err == nil && !got.ok {
		err = natsx.ErrStream
	}
	return got.first, got.last, err
}

type chunkOf struct {
	events []session.Event
	ok     bool
}

// Read reads in chunks, each a call of its own.
func (s partStream) Read(ctx context.Context, n int, after, upto uint64, f func([]session.Event) error) error {
	p, w, id := s.p, s.p.w, s.p.view().ID
	for {
		got, err := ask(ctx, p, &modelCall{name: fmt.Sprintf("read %d (%d,%d]", n, after, upto)}, func() chunkOf {
			return chunkOf{w.stream.read(n, after, upto, 3), w.stream.id == id}
		})
		switch {
		case err != nil:
			return err
		case !got.ok:
			return natsx.ErrStream
		case len(got.events) == 0:
			return nil
		}
		if w.cut == ruleCompleteByTheLeader && len(got.events) == 3 {
			got.events = got.events[:2] // a lagging replica: its end looks like the end
			return f(got.events)
		}
		if err := f(got.events); err != nil {
			return err
		}
		after = got.events[len(got.events)-1].Seq
	}
}

// LastOf is asked by an idle reader of a partition.
func (s partStream) LastOf(ctx context.Context, _ ...string) (uint64, error) {
	return ask(ctx, s.p, &modelCall{name: "last of"}, func() uint64 { return s.p.w.stream.lastOf(s.n) })
}

// modelReader is an ordered consumer of one partition.
type modelReader struct {
	p    *modelPod
	n    int
	pos  uint64
	id   string
	seen bool // nothing was left at the last pull
}

const modelIdle = 200 * time.Millisecond

func (r *modelReader) Next(ctx context.Context) ([]session.Event, error) {
	w := r.p.w
	if w.cut == ruleLookupAfterPull {
		l, err := r.p.lookup(ctx, r.n, modelWants(r.n))
		if err != nil {
			return nil, err
		}
		r.p.early[r.n] = l
	}
	got, err := ask(ctx, r.p, &modelCall{name: fmt.Sprintf("pull %d after %d", r.n, r.pos)}, func() chunkOf {
		return chunkOf{w.stream.read(r.n, r.pos, w.stream.last(), 1+w.step()%4), w.stream.id == r.id}
	})
	switch {
	case err != nil:
		return nil, err
	case !got.ok:
		return nil, errStreamMoved
	case len(got.events) > 0:
		r.pos, r.seen = got.events[len(got.events)-1].Seq, false
		return got.events, nil
	}
	r.seen = true
	if !pause(ctx, modelIdle) {
		return nil, ctx.Err()
	}
	return nil, natsx.ErrIdle
}

func (r *modelReader) Owes(seq uint64) { r.seen = r.seen && seq <= r.pos }

func (r *modelReader) Pos() uint64   { return r.pos }
func (r *modelReader) Current() bool { return r.seen }
func (r *modelReader) Close()        {}
