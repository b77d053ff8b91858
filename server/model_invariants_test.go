package server

import (
	"math"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// modelBreach is a broken invariant of protocols.md.
type modelBreach struct {
	invariant, what string
	step            int
}

// modelStats counts what schedules were made of.
type modelStats struct {
	Steps, Lives, Logins, Ready, Takeovers, Resumed, Selects, Deliveries, Gaps, Slow int
	Late, Lost, Kills, Stops, Flushes, Failovers, Resets, Excused                    int
	Asserts, Repairs                                                                 uint64
}

const never = math.MaxInt

// deliver is what the index does with an event: the shard's lock is held.
func (p *modelPod) deliver(c *loop.Conn, ev *session.Event) session.Put {
	w := p.w
	w.mu.Lock()
	s, dead := p.socks[c], p.dead || w.over
	w.mu.Unlock()
	switch {
	case dead:
		return session.Gone
	case w.cfg.slow > 0 && (int(ev.Seq)+s.id)%w.cfg.slow == 0:
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stats.Slow++
		return session.Slow
	}
	s.give(ev)
	return session.Queued
}

// give hands an event to the client behind s, and judges that.
func (s *modelSock) give(ev *session.Event) {
	w := s.pod.w
	w.note("socket %d takes %d", s.id, ev.Seq)
	w.mu.Lock()
	repeated, last := ev.Seq <= s.last, s.last
	wrong := ev.Route.Company != s.user.key.Company || ev.Route.Agent != s.user.key.Agent
	wrong = wrong || ev.Route.Kind == session.KindMessages && ev.Route.Chat != s.chat && (!s.chooses || ev.Route.Chat != s.choosing)
	var newer *modelSock
	for _, k := range w.socks {
		if k.user.key == s.user.key && k.ready > 0 && k.ready < int(ev.Stamp) && k.s.Epoch() > s.s.Epoch() {
			newer = k
		}
	}
	s.last = ev.Seq
	s.got[ev.Seq] = true
	if s.user.sock == s {
		s.user.last, s.user.stream = ev.Seq, s.stream
	}
	w.stats.Deliveries++
	excused := newer != nil && s.excused
	if excused {
		w.stats.Excused++
	}
	w.mu.Unlock()
	switch {
	case repeated:
		w.breached("P1", "socket %d was given %d after %d", s.id, ev.Seq, last)
	case wrong:
		w.breached("wrong chat", "socket %d was given an event of %+v", s.id, ev.Route)
	case newer != nil && !excused:
		w.breached("S1", "socket %d of epoch %d was given %d, stored in step %d; socket %d of epoch %d was ready in %d",
			s.id, s.s.Epoch(), ev.Seq, ev.Stamp, newer.id, newer.s.Epoch(), newer.ready)
	}
}

// isLive says whether s is in an index, and takes events.
func (s *modelSock) isLive() bool {
	return !s.pod.dead && s.ready > 0 && !s.closed && s.pod.m.Index().State(s.s) == session.Live
}

// judge looks for events that s was owed and has not got, though its pod's
// watermark has passed them (P3).
func (w *world) judge(s *modelSock) {
	if !s.isLive() || s.replays {
		return
	}
	stream, mark := s.pod.parts[s.s.Partition()].Position()
	if stream != w.stream.id || stream != s.stream {
		return
	}
	for seq := max(s.judged+1, w.stream.first); seq <= min(mark, w.stream.last()); seq++ {
		if e := w.stream.events[seq-1]; s.isOwed(e) && !s.got[seq] && seq > s.gapped {
			w.breached("P3", "lost: socket %d of %s, ready in step %d, floor %d, chat %q since %d, resumed %v from %d, never got %d of %+v stored in %d; W %d",
				s.id, s.pod.owner, s.ready, s.floor, s.chat, s.chatAt, s.resumed, s.base, seq, e.Route, e.Stamp, mark)
		}
	}
	s.judged = max(s.judged, mark)
}

func (s *modelSock) isOwed(e storedEvent) bool {
	if e.part != s.s.Partition() {
		return false
	}
	missed := s.resumed && e.Seq > s.base
	if e.Route.Kind == session.KindMessages {
		return e.Route.Chat == s.chat && (int(e.Stamp) > s.chatAt || missed && s.chatAt == s.ready)
	}
	return missed || int(e.Stamp) > s.ready
}

// check looks at everything, between two steps.
func (w *world) check() {
	for _, p := range w.pods {
		for n := range p.parts {
			stream, mark := p.parts[n].Position()
			if stream == p.markIn[n] && mark < p.marks[n] {
				w.breached("P2", "W of %d on %s fell from %d to %d", n, p.owner, p.marks[n], mark)
			}
			p.marks[n], p.markIn[n] = mark, stream
		}
	}
	for _, s := range w.socks {
		w.judge(s)
		if s.ready > 0 && !s.checked {
			s.checked = true
			w.checkReady(s)
		}
	}
}

// checkReady is P5: at a ready, each lower epoch is out of its index for good,
// or a fence outranks it, or its pod has yet to assert what it holds (of this
// incarnation, or after a lapse in which locks may have run out), and delivers
// nothing before it has.
func (w *world) checkReady(s *modelSock) {
	fence := w.redis.fenceOf(s.s.Partition(), s.user.key)
	if s.closed {
		return
	}
	for _, o := range w.socks {
		if o == s || o.user.key != s.user.key || o.pod.dead || o.excused || o.s.Epoch() == 0 || o.s.Epoch() >= s.s.Epoch() || o.s.Epoch() < fence {
			continue
		}
		if part := o.pod.parts[o.s.Partition()]; part.Inc() != w.redis.incOf(o.s.Partition()) || !part.agrees() {
			continue
		}
		if st := o.pod.m.Index().State(o.s); st == session.Live || st == session.Replay || st == session.Joining {
			w.breached("P5", "socket %d of epoch %d is ready, and socket %d of epoch %d is %v on %s, with no fence",
				s.id, s.s.Epoch(), o.id, o.s.Epoch(), st, o.pod.owner)
		}
	}
}

// excuse notes which sockets are outranked, before Redis forgets by whom: S1's
// one exception.
func (w *world) excuse() {
	for _, s := range w.socks {
		n, key := s.s.Partition(), s.user.key
		if s.closed || s.pod.dead {
			continue
		}
		l := w.redis.lock(n, key)
		if l != nil && l.Epoch > s.s.Epoch() || w.redis.fenceOf(n, key) > s.s.Epoch() {
			s.excused = true
		}
		for _, k := range w.socks {
			if k.user.key == key && k.ready > 0 && k.s.Epoch() > s.s.Epoch() {
				s.excused = true
			}
		}
	}
}

// checkEnd is for the end of a schedule, some seconds after the last fault:
// everything stored has come to everybody, and each key has one socket.
func (w *world) checkEnd() {
	w.check()
	for _, p := range w.pods {
		for n := range p.parts {
			if _, mark := p.parts[n].Position(); mark < w.stream.lastOf(n) {
				w.breached("D4", "W of %d on %s is %d and stays there, though %d is stored", n, p.owner, mark, w.stream.lastOf(n))
			}
		}
	}
	live := map[session.Key]*modelSock{}
	for _, s := range w.socks {
		if !s.isLive() {
			continue
		}
		if o := live[s.user.key]; o != nil {
			w.breached("S1", "sockets %d and %d of %v are both live at the end", o.id, s.id, s.user.key)
		}
		live[s.user.key] = s
	}
	for _, p := range w.pods {
		for n := range p.parts {
			t := p.parts[n].env.tally
			w.stats.Asserts += t.asserts.Get()
			for _, r := range t.repairs {
				w.stats.Repairs += r.Get()
			}
		}
	}
}
