package session

// Put says what became of an event that was offered to a socket.
type Put uint8

// What a socket says to an event.
const (
	Queued Put = iota
	Missed     // over its budget, nothing queued: it is told of the hole when there is room
	Slow       // over its budget, nothing queued: close it
	Gone       // closed already; its Close is on the way
)

// Delivered is what one or more deliveries did, and which sessions the caller
// must close now that the lock is free (Manager.Finish does). Owned by the
// caller and reused: the lists keep their memory.
type Delivered[C Socket] struct {
	Receivers int // Queued
	Missed    int
	// To be closed as replaced, slow, internal. They take nothing more.
	Fenced, Slow, Disordered []*Session[C]
}

// Reset empties d.
func (d *Delivered[C]) Reset() {
	clear(d.Fenced)
	clear(d.Slow)
	clear(d.Disordered)
	*d = Delivered[C]{Fenced: d.Fenced[:0], Slow: d.Slow[:0], Disordered: d.Disordered[:0]}
}

// Deliver hands an event of partition n to all sessions that want it and moves
// the watermark to it; an event that the watermark has passed is ignored (P2).
// fences are applied first: no session they outrank takes this event or a
// later one. A batch's fences may be given with its first event alone. put is
// called under the shard's lock and must not block.
//
// It allocates nothing unless a session is to be closed.
func (x *Index[C]) Deliver(n int, ev *Event, fences []Fence, put func(C) Put, d *Delivered[C]) {
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.fence(fences, d)
	if ev.Seq <= sh.w {
		return
	}
	sh.w = ev.Seq
	kind := KindOf(ev.Route.Kind)
	if a := sh.agents[agentKey{ev.Route.Company, ev.Route.Agent}]; a != nil {
		list := a.members
		if kind == KindBitMessages {
			list = sh.chats[chatKey[C]{a, ev.Route.Chat}]
		}
		for _, s := range list {
			if s.kinds&kind != 0 && !s.doomed {
				s.take(ev.Seq, put, d)
			}
		}
	}
	if kind == KindBitAgents {
		x.admins.deliver(ev, put, d)
	}
}

// take offers one event to s: the rules of the states.
func (s *Session[C]) take(seq uint64, put func(C) Put, d *Delivered[C]) {
	switch s.state {
	case Live:
		if seq <= s.floor {
			return // was told or replayed before ready
		}
	case Replay:
		s.mark = seq // the replay will fetch it
		return
	default:
		return // Joining: stored before its ready
	}
	if seq <= s.last {
		s.doomed = true
		d.Disordered = append(d.Disordered, s)
		return
	}
	switch put(s.sock) {
	case Queued:
		s.last = seq
		if s.Has(flagHole) { // a load where a store would cost every delivery
			s.Unset(flagHole)
		}
		d.Receivers++
	case Missed: // the hole begins behind last, which stays
		s.Set(flagHole)
		d.Missed++
	case Slow:
		s.doomed = true
		d.Slow = append(d.Slow, s)
	}
}

// Hole says that s missed events from seq `from` on and was not told. Only for
// whoever queues for s: in a put.
func (s *Session[C]) Hole() (from uint64, ok bool) {
	return s.last + 1, s.Has(flagHole)
}

// fence dooms every session, Joining ones too, that a fence outranks.
func (sh *shard[C]) fence(fences []Fence, d *Delivered[C]) {
	for i := range fences {
		f := &fences[i]
		s := sh.find(Key{f.Company, f.Agent, f.User})
		if s != nil && s.epoch < f.Epoch && !s.doomed {
			s.doomed = true
			d.Fenced = append(d.Fenced, s)
		}
	}
}

// deliver gives an agents event to the admins whose scope covers it. Admins
// hear all partitions, whose seqs have no common order: none is checked.
func (a *admins[C]) deliver(ev *Event, put func(C) Put, d *Delivered[C]) {
	for _, s := range *a.live.Load() {
		if s.kinds&KindBitAgents == 0 || s.Has(flagDoomed) || !s.Grants().Sees(ev.Route.Company, ev.Route.Agent) {
			continue
		}
		switch put(s.sock) {
		case Queued:
			d.Receivers++
		case Slow:
			if s.Set(flagDoomed) {
				d.Slow = append(d.Slow, s)
			}
		}
	}
}

// Advance says that (W, upto] holds nothing for this pod.
func (x *Index[C]) Advance(n int, upto uint64, fences []Fence, d *Delivered[C]) {
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.fence(fences, d)
	sh.w = max(sh.w, upto)
}

// Push offers something that has no seq (a legacy PushEvent) to the Live
// sessions of a route, and says how many took it. A messages route without a
// chat means every session of the agent.
func (x *Index[C]) Push(n int, r Route, put func(C) Put) int {
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	a := sh.agents[agentKey{r.Company, r.Agent}]
	if a == nil {
		return 0
	}
	list, kind, took := a.members, KindOf(r.Kind), 0
	if r.Chat != "" {
		list = sh.chats[chatKey[C]{a, r.Chat}]
	}
	for _, s := range list {
		if s.state == Live && !s.doomed && s.kinds&kind != 0 && s.Grants().Receive(r.Kind, r.Chat) && put(s.sock) == Queued {
			took++
		}
	}
	return took
}
