package loop

// table is the sockets of a shard, by slot; the shard's lock guards it. Slots
// don't move, so that a walk in pieces misses nobody who stays.
type table struct {
	slots []*Conn
	free  []uint32
}

func (t *table) len() int { return len(t.slots) - len(t.free) }

func (t *table) add(c *Conn) {
	if n := len(t.free); n > 0 {
		c.slot = t.free[n-1]
		t.free = t.free[:n-1]
		t.slots[c.slot] = c
		return
	}
	c.slot = uint32(len(t.slots))
	t.slots = append(t.slots, c)
}

// remove takes c out if it is in.
func (t *table) remove(c *Conn) {
	if int(c.slot) >= len(t.slots) || t.slots[c.slot] != c {
		return
	}
	t.slots[c.slot] = nil
	t.free = append(t.free, c.slot)
	if t.len() == 0 {
		t.slots, t.free = nil, nil // a storm's table is not kept
	}
}

// walkStep is how many sockets are looked at under one lock.
const walkStep = 256

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
