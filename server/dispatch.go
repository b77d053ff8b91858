package server

import (
	"context"
	"errors"
	"time"

	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// Times of protocols.md, "Reading N".
const (
	incEvery  = 500 * time.Millisecond // an idle reader looks at the incarnation and the stream's end, not more often
	lookupTry = 100 * time.Millisecond // between failed look-ups: the batch waits, the stream is the buffer
)

// dispatchEnv is all that a reader of a partition sees of the house.
type dispatchEnv struct {
	self   session.Owner
	reader func(n int, after uint64) eventReader
	stream dispatchStream
	redis  partitionRedis
	live   func() []session.Pod // the live list, ourselves included
	peers  peerSender
	local  func(b *session.Batch) bool           // to our own partition
	start  func(n int) (stream string, w uint64) // our watermark, and of what
	// heard is the version of the revocations that this pod has heard of; false:
	// what it has heard is old.
	heard func(context.Context) (version uint64, ok bool)
	tally *tally
}

var (
	errStreamMoved = errors.New("the events stream is being replaced")
	errGate        = errors.New("what was agreed with Redis does not stand any more")
)

// eventReader brings the events of one partition, in order.
type eventReader interface {
	Next(ctx context.Context) ([]session.Event, error) // natsx.ErrIdle after a second of nothing, or before
	Pos() uint64                                       // all up to it was returned, or was poison
	Current() bool                                     // what is above Pos is on its way
	Owes(seq uint64)                                   // this one should have come by now
	Close()
}

// dispatchStream finds the end of the stream, for progress of idle partitions.
type dispatchStream interface {
	LastOf(ctx context.Context, subjects ...string) (uint64, error)
	Stream() natsx.Stream
}

// peerSender carries batches to other pods.
type peerSender interface {
	Send(to session.Owner, b *session.Batch) bool
	Stream(to session.Owner) uint64
}

// dispatch reads one partition and sends what it finds to every live pod that
// wants it, this one by the same way. It believes to own the partition; when
// others believe so too, or nobody does, nothing is lost or repeated: receivers
// take only what continues their watermark. Run's goroutine owns all of it.
type dispatch struct {
	n   int
	env *dispatchEnv

	stream  string // id of what is read
	pos     uint64 // all up to here was looked up and offered
	inc     string // of the last look-up
	revoked uint64 // heard of by then
	asked   time.Time
	round   uint64 // of offers to the live list
	sent    map[session.Owner]sentMark
	told    string // incarnation of the last round
	at      []int  // scratch: event -> want
}

// sentMark is how far a pod was served, on which of its streams, and in which
// round. One that was left out of a round, for it was not on the live list or
// had no stream, begins anew at pos: what it was not offered is a hole.
type sentMark struct {
	stream uint64
	round  uint64
	upto   uint64
	taken  bool // not dropped at once
}

func newDispatch(n int, env *dispatchEnv) *dispatch {
	return &dispatch{n: n, env: env, sent: map[session.Owner]sentMark{}}
}

// Run reads until ctx ends.
func (d *dispatch) Run(ctx context.Context) error {
	d.stream, d.pos = d.env.start(d.n)
	clear(d.sent)
	r := d.env.reader(d.n, d.pos)
	defer r.Close()
	if d.env.stream.Stream().ID != d.stream {
		return errStreamMoved // between the two; the next try finds them agreed
	}
	for {
		events, err := r.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, natsx.ErrIdle):
			d.pos = max(d.pos, r.Pos()) // poison behind the last event
			d.idle(ctx, r)
		case err != nil:
			return err
		default:
			d.batch(ctx, events)
		}
	}
}

// batch looks up who wants these events, after they were pulled, and sends.
func (d *dispatch) batch(ctx context.Context, events []session.Event) {
	if cap(d.at) < len(events) {
		d.at = make([]int, len(events))
	}
	at := d.at[:len(events)]
	wants := wantsOf(events, at)
	l, ok := d.lookup(ctx, wants, forAdmins(events))
	if !ok {
		return
	}
	var admins []session.Owner
	if len(l.Owners) > len(wants) {
		admins = l.Owners[len(wants)]
	}
	upto := events[len(events)-1].Seq
	d.round++
	for _, q := range d.env.live() {
		mine := eventsOf(q.Owner, events, at, l.Owners, admins)
		d.send(q.Owner, upto, mine, l)
	}
	d.pos, d.inc, d.told = upto, l.Inc, l.Inc
	d.env.tally.dispatched(len(events))
}

// lookup asks until Redis answers: nothing is delivered by guess.
func (d *dispatch) lookup(ctx context.Context, wants []session.Want, admins bool) (session.Lookup, bool) {
	for {
		l, err := d.env.redis.Lookup(ctx, d.n, wants, admins)
		if err == nil {
			if heard, ok := d.env.heard(ctx); ok {
				d.revoked = heard
				return l, true
			}
		}
		d.env.tally.lookupErrors.Add(1)
		if !pause(ctx, lookupTry) {
			return session.Lookup{}, false
		}
	}
}

// send offers (sent, upto] to one pod and never waits for it. A part that is
// dropped leaves a hole that the pod sees in the next batch's From.
func (d *dispatch) send(q session.Owner, upto uint64, events []session.Event, l session.Lookup) {
	stream := uint64(1)
	if q != d.env.self {
		if stream = d.env.peers.Stream(q); stream == 0 {
			return
		}
	}
	mark, ok := d.sent[q]
	if !ok || mark.stream != stream || mark.round+1 != d.round {
		mark.upto = d.pos
	}
	b := &session.Batch{Stream: d.stream, N: d.n, From: mark.upto, Upto: upto, Inc: l.Inc, Events: events, Fences: l.Fences, Revoked: d.revoked}
	var taken bool
	if q == d.env.self {
		taken = d.env.local(b)
	} else {
		taken = d.env.peers.Send(q, b)
		d.env.tally.forwarded.Add(len(events))
	}
	d.sent[q] = sentMark{stream, d.round, upto, taken}
}

// idle reports progress, if there is any, so that nobody serves itself for want
// of news, and moves the watermark over what other partitions stored meanwhile.
// While the reader hears nothing it keeps silent: then all others look for
// themselves.
func (d *dispatch) idle(ctx context.Context, r eventReader) {
	if !r.Current() {
		return
	}
	if time.Since(d.asked) >= incEvery || d.inc == "" {
		d.asked = time.Now()
		inc, _, err := d.env.redis.Inc(ctx, d.n)
		if err != nil {
			return
		}
		d.inc = inc
		if d.skip(ctx, r); !r.Current() {
			return
		}
	}
	live := d.env.live()
	d.forget(live)
	if d.inc == d.told && d.allKnow(live) {
		return
	}
	d.round++
	for _, q := range live {
		d.send(q.Owner, d.pos, nil, session.Lookup{Inc: d.inc})
	}
	d.told = d.inc
}

// allKnow says whether every live pod was offered all there is, on the stream to
// it that stands now. Of many pods most are idle most of the time, and each
// would tell all others so once a second.
func (d *dispatch) allKnow(live []session.Pod) bool {
	for _, q := range live {
		mark, ok := d.sent[q.Owner]
		if !ok || !mark.taken || mark.round != d.round || mark.upto != d.pos {
			return false
		}
		if q.Owner != d.env.self && mark.stream != d.env.peers.Stream(q.Owner) {
			return false
		}
	}
	return true
}

// skip moves pos to the stream's last sequence, read first, when the last of
// this partition is not beyond pos: all between belongs to others. An end of
// the stream that was read a second ago will do, and asks nobody while nothing
// is published. One of this partition that was stored when the end was read, and
// did not come since, is owed.
func (d *dispatch) skip(ctx context.Context, r eventReader) {
	s := d.env.stream.Stream()
	if s.ID != d.stream || s.Last <= d.pos {
		return
	}
	mine, err := d.env.stream.LastOf(ctx, natsx.PartitionSubject(d.n))
	switch {
	case err != nil:
	case mine <= d.pos:
		d.pos = s.Last
	case mine <= s.Last:
		r.Owes(mine)
	}
}

// forget drops marks of pods that left the live list.
func (d *dispatch) forget(live []session.Pod) {
	if len(d.sent) <= len(live) {
		return
	}
	for q := range d.sent {
		if !isLive(live, q) {
			delete(d.sent, q)
		}
	}
}

// forAdmins says whether admin sessions may want one of the events.
func forAdmins(events []session.Event) bool {
	for i := range events {
		if events[i].Route.Kind == session.KindAgents {
			return true
		}
	}
	return false
}

// eventsOf picks the events that q has receivers for; the whole slice is
// shared when that is all of them.
func eventsOf(q session.Owner, events []session.Event, at []int, owners [][]session.Owner, admins []session.Owner) []session.Event {
	all := true
	var mine []session.Event
	isAdmin := contains(admins, q)
	for i := range events {
		wanted := contains(owners[at[i]], q) || isAdmin && events[i].Route.Kind == session.KindAgents
		switch {
		case wanted && !all:
			mine = append(mine, events[i])
		case !wanted && all:
			all = false
			mine = append(mine, events[:i]...)
		}
	}
	if all {
		return events
	}
	return mine
}

func contains(owners []session.Owner, q session.Owner) bool {
	for _, o := range owners {
		if o == q {
			return true
		}
	}
	return false
}

func isLive(live []session.Pod, q session.Owner) bool {
	for _, p := range live {
		if p.Owner == q {
			return true
		}
	}
	return false
}

// pause waits; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
