package server

import (
	"context"
	"time"

	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// Of the partition that has the locks of admins: it may be about to be asserted.
const (
	adminsPatience = time.Second
	adminsAgain    = 20 * time.Millisecond
)

// listen forgives a silence in which nothing was stored: readers of idle
// partitions say nothing then. All pods look at the stream's end at the same
// half seconds and come here at the same seconds as the readers, so a reader
// that lives says how far it is at about the moment this notices that more is
// owed.
func (p *partition) listen(now time.Time) {
	owed := p.env.stream.Stream().Last > p.env.index.Watermark(p.n)
	least := now
	if owed {
		least = now.Add(owedPatience - silence)
	}
	if (!owed || !p.owed) && p.heard.Before(least) {
		p.heard = least
	}
	p.owed = owed
}

// selfServe reads the stream itself while nobody else brings it.
func (p *partition) selfServe(ctx context.Context) {
	if !p.broken.Load() && !p.unserved && time.Since(p.heard) < silence {
		return
	}
	w := p.env.index.Watermark(p.n)
	if !p.isOpen() {
		p.openGate(ctx) // repairs as well
		return
	}
	_ = p.repair(ctx, "silence")
	// Only what comes first behind a reader that is no more is late.
	p.unserved = p.unserved || p.env.index.Watermark(p.n) > w
}

// repair delivers (W, last] from the stream, until it was done under one
// incarnation from the reading of last on: events stored later, but looked up
// under an incarnation that was asserted in the middle of a repair, may have
// been looked up before this pod's routes were there again.
func (p *partition) repair(ctx context.Context, why string) error {
	ctx, end := p.interruptible(ctx)
	defer end()
	for {
		asserted := p.asserts
		if err := p.repairOnce(ctx, why); err != nil {
			return err
		}
		if p.asserts == asserted {
			p.whole.Store(true)
			return nil
		}
	}
}

// interruptible is the context of a repair, which ends when an assert is asked
// for: after that all is read again in any case, and a login must not wait for a
// stream that does not answer.
func (p *partition) interruptible(ctx context.Context) (repairing context.Context, end func()) {
	repairing, cancel := context.WithCancel(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop = cancel
	if len(p.waiting) > 0 {
		p.interrupt()
	}
	return repairing, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stop = nil
		cancel()
	}
}

// interrupt ends the repair under way; the caller holds mu.
func (p *partition) interrupt() {
	if p.stop != nil {
		p.stop()
	}
}

// repairOnce reads (W, last]. Fences and incarnation are read after each chunk
// of events was, as for any batch.
func (p *partition) repairOnce(ctx context.Context, why string) error {
	first, last, err := p.env.stream.LastSeq(ctx)
	if err != nil {
		return err
	}
	if !p.isCurrent(p.stream) {
		return errStreamMoved
	}
	w := p.env.index.Watermark(p.n)
	if last <= w {
		return nil // lower: a rewound stream, of which natsx tells and Reset comes
	}
	if first > w+1 {
		p.delivery.advance(p.n, first-1, nil) // first: who logs in between is owed nothing of it
		p.env.missed(p.n, w+1, first-1, reasonRetention, false)
		w = first - 1
	}
	if last <= w {
		return nil
	}
	p.env.tally.repaired(why)
	err = p.env.stream.Read(ctx, p.n, w, last, func(events []session.Event) error {
		return p.deliverRead(ctx, events)
	})
	if err != nil {
		return err
	}
	p.delivery.advance(p.n, last, nil)
	return nil
}

// deliverRead delivers a chunk read from the stream, under fences read later.
func (p *partition) deliverRead(ctx context.Context, events []session.Event) error {
	for len(events) > 0 {
		l, err := p.env.redis.Lookup(ctx, p.n, wantsOf(events, nil), false)
		if err != nil {
			return err
		}
		if !p.isCurrent(p.stream) {
			return errStreamMoved // perhaps these are the new stream's
		}
		if !p.agrees() || !p.env.revoked(ctx) || !p.adminsStand(ctx, events) {
			return errGate // this process stood still for long, or was cut off
		}
		if l.Inc == p.Inc() {
			p.delivery.deliver(p.n, events, l.Fences)
			return nil
		}
		if err := p.assert(ctx); err != nil {
			return err
		}
	}
	return nil
}

// restart leaves the old numbering behind: whatever it held that was not
// delivered can't be told apart from the new one, so everybody is told.
func (p *partition) restart(to *natsx.Stream) {
	p.mu.Lock()
	w := p.env.index.Watermark(p.n)
	p.env.index.SetWatermark(p.n, to.Last)
	p.stream = to.ID
	p.shown.Store(&to.ID) // after the watermark: a ready never pairs a new stream with an old seq
	p.mu.Unlock()
	p.env.missed(p.n, w+1, max(w+1, to.Last), reasonReset, false)
	p.env.tally.resets.Add(1)
}

// adminsStand ends the admin sessions here that events must not go to any more,
// and says whether all may be delivered now. Admins hear every partition, but
// their locks and fences are of one, so the look-ups of others don't bring them:
// they are read here, as ever after the events were pulled.
func (p *partition) adminsStand(ctx context.Context, events []session.Event) bool {
	n, some := p.env.index.Admins()
	if !some || !forAdmins(events) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, adminsPatience)
	defer cancel()
	for {
		l, err := p.env.redis.Lookup(ctx, n, []session.Want{{Company: session.AdminCompany, Agent: session.AdminAgent}}, false)
		if err == nil && p.env.manager.Stands(n, l.Inc) {
			p.delivery.fenceAdmins(l.Fences)
			break
		}
		if n == p.n || !pause(ctx, adminsAgain) { // its own worker asserts it
			return false
		}
	}
	return p.isCurrent(p.stream) && p.agrees() && p.env.revoked(ctx) // it may have stood still meanwhile
}
