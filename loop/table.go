package loop

// table is the sockets of a shard, by slot; the shard's lock guards it. Slots
// don't move, so that a walk in pieces misses nobody who stays.
type table struct {
	slots []*Conn
	due   []uint32 // when the sweeper is to look at a slot's socket, on Engine.now
	free  []uint32
}

func (t *table) len() int { return len(t.slots) - len(t.free) }

// add takes c in; the sweeper looks at it from now on.
func (t *table) add(c *Conn, now uint32) {
	if n := len(t.free); n > 0 {
		c.slot = t.free[n-1]
		t.free = t.free[:n-1]
		t.slots[c.slot], t.due[c.slot] = c, now
		return
	}
	c.slot = uint32(len(t.slots))
	t.slots = append(t.slots, c)
	t.due = append(t.due, now)
}

func (t *table) has(c *Conn) bool { return int(c.slot) < len(t.slots) && t.slots[c.slot] == c }

// hasten has the sweeper look at c at the moment at, if not sooner.
func (t *table) hasten(c *Conn, at uint32) {
	if t.has(c) && int32(t.due[c.slot]-at) > 0 {
		t.due[c.slot] = at
	}
}

// remove takes c out if it is in.
func (t *table) remove(c *Conn) {
	if !t.has(c) {
		return
	}
	t.slots[c.slot] = nil
	t.free = append(t.free, c.slot)
	if t.len() == 0 {
		*t = table{} // a storm's table is not kept
	}
}

// walkStep is how many sockets are looked at under one lock, scanStep how many
// are only asked whether they are due: that reads four bytes of each, and no
// socket.
const (
	walkStep = 256
	scanStep = 4096
)

// walk calls f for the sockets of s without holding its lock. Those that come
// or go meanwhile are seen or not.
func (s *shard) walk(buf []*Conn, f func(*Conn)) {
	for at := 0; ; {
		buf = buf[:0]
		s.mu.Lock()
		end := min(at+walkStep, len(s.table.slots))
		for ; at < end; at++ {
			if c := s.table.slots[at]; c != nil {
				buf = append(buf, c)
			}
		}
		more := at < len(s.table.slots)
		s.mu.Unlock()
		for _, c := range buf {
			f(c)
		}
		if !more {
			clear(buf)
			return
		}
	}
}

// visited marks a slot that the sweeper is at; no due time is so far away.
const visited = 1 << 30

// visit calls f for the sockets that are due, without the lock; f says after
// how many seconds to come again.
func (s *shard) visit(v *visits, now uint32, f func(*Conn) (after uint32)) {
	for at, more := 0, true; more; {
		v.conns, v.after = v.conns[:0], v.after[:0]
		s.mu.Lock()
		end := min(at+scanStep, len(s.table.slots))
		for ; at < end && len(v.conns) < walkStep; at++ {
			if c := s.table.slots[at]; c != nil && int32(now-s.table.due[at]) >= 0 {
				s.table.due[at] = now + visited
				v.conns = append(v.conns, c)
			}
		}
		more = at < len(s.table.slots)
		s.mu.Unlock()
		if len(v.conns) == 0 {
			continue
		}
		for _, c := range v.conns {
			v.after = append(v.after, f(c))
		}
		s.mu.Lock()
		for i, c := range v.conns {
			// Unless it has gone, or TickSoon came meanwhile.
			if s.table.has(c) && s.table.due[c.slot] == now+visited {
				s.table.due[c.slot] = now + v.after[i]
			}
		}
		s.mu.Unlock()
		clear(v.conns)
	}
}

// visits is the sweeper's scratch.
type visits struct {
	conns []*Conn
	after []uint32
}

// TickSoon has the handler's Tick called within about a second, instead of when
// it last asked for.
func (c *Conn) TickSoon() {
	s := c.shard
	s.mu.Lock()
	s.table.hasten(c, s.engine.now.Load())
	s.mu.Unlock()
}
