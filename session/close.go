package session

import "time"

// ended is a session that was taken out of the table under the shard's lock,
// with what remains to be done about it without the lock.
type ended[C Socket] struct {
	s       *Session[C]
	was     State
	reason  Reason
	details string
	answers []func() // kills that waited for this end
	sent    func()   // called when the socket's close frame went out; may be nil
	took    time.Duration
}

// end takes s out of index and table; the shard's lock is held. Edges are
// queued here, so that their order in Redis is their order in the index. False:
// it has ended before. A login's goroutine notices by its cancelled context and
// by the state; it alone releases the lock, for only it knows when no acquire
// of this session can run any more.
func (m *Manager[C]) end(sh *shard[C], s *Session[C], r Reason, details string) (ended[C], bool) {
	if s.state == Closing {
		return ended[C]{}, false
	}
	e := ended[C]{s: s, was: s.state, reason: r, details: details}
	inside := s.state != Opening
	s.state, s.ended = Closing, r
	if inside {
		m.index.leave(int(s.part), sh.remove(s, nil))
		if s.agent.company == AdminCompany {
			m.index.admins.leave(s, m.o.Routes, m.o.Partitions)
		}
	}
	if e.was == Live || e.was == Replay {
		sh.live--
		sh.forget(s)
		e.took = m.o.Now() - time.Duration(s.opened)*time.Second
		return e, true
	}
	if l := sh.loginOf(s); l != nil {
		l.details = details
		e.answers, l.answers = l.answers, nil
		l.cancel()
	}
	return e, true
}

// bid does what follows an end, without the lock: the lock in Redis is given
// back first, so that whoever waits for it is not kept by a slow socket.
func (m *Manager[C]) bid(e ended[C]) {
	if e.was == Live || e.was == Replay {
		m.o.Locks.Release(int(e.s.part), e.s.Key(), e.s.conn)
		if e.reason.Code() != "" {
			m.o.Farewell(e.s.sock, e.reason, e.details)
		}
		if e.sent == nil {
			e.s.sock.Close(e.reason.CloseCode(), e.reason.CloseText())
		} else {
			e.s.sock.CloseThen(e.reason.CloseCode(), e.reason.CloseText(), e.sent)
		}
		m.metrics.ended(e.reason, e.took)
	} else if e.sent != nil {
		e.sent()
	}
	for _, answer := range e.answers {
		answer()
	}
}

// Close ends a session, wherever it is in its life: out of the index and the
// table, edges left, lock released, error frame, close frame, counted, in this
// order, once; later calls do nothing. Any goroutine; never blocks. A session
// whose Open is under way gets no frames: Open returns the reason.
func (m *Manager[C]) Close(s *Session[C], r Reason, details string) {
	sh := m.shard(s)
	sh.mu.Lock()
	e, ok := m.end(sh, s, r, details)
	sh.mu.Unlock()
	if ok {
		m.bid(e)
	}
}

// Finish closes what a delivery left to be closed, and resets d.
func (m *Manager[C]) Finish(d *Delivered[C]) {
	for _, s := range d.Fenced {
		m.Close(s, ReasonReplaced, "")
	}
	for _, s := range d.Slow {
		m.Close(s, ReasonSlow, "")
	}
	for _, s := range d.Disordered {
		m.metrics.disordered.Inc()
		m.Close(s, ReasonInternal, "events out of order")
	}
	d.Reset()
}
