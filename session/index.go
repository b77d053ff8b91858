package session

import "time"

// Index knows what the sessions of this pod want. One shard per partition, so
// that delivery, watermark, assert and sweep of a partition share one lock and
// touch no other. Made by NewManager; goroutines: any, but only the worker of
// partition n may call Deliver, Advance and SetWatermark for n.
type Index[C Socket] struct {
	shards []shard[C]
	routes Routes
	admins admins[C]
}

func newIndex[C Socket](partitions int, routes Routes) *Index[C] {
	x := &Index[C]{shards: make([]shard[C], partitions), routes: routes}
	x.admins.live.Store(new([]*Session[C]))
	return x
}

// Watermark is W of partition n: all of the stream up to it was handed over.
func (x *Index[C]) Watermark(n int) uint64 {
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.w
}

// SetWatermark starts n at w: at the start of a pod, and for a new stream id,
// whose seqs are not comparable with those before. Sessions there begin anew
// above w, replays end; the caller tells them of the gap.
func (x *Index[C]) SetWatermark(n int, w uint64) {
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.w = w
	for _, a := range sh.agents {
		for _, s := range a.members {
			s.floor, s.last, s.mark = w, w, 0
			s.Unset(flagHole)
			if s.state == Replay {
				s.state = Live
			}
		}
	}
}

// Len is how many sessions are Live or Replay.
func (x *Index[C]) Len() int {
	total := 0
	for i := range x.shards {
		sh := &x.shards[i]
		sh.mu.Lock()
		total += sh.live
		sh.mu.Unlock()
	}
	return total
}

// Agents is how many (company, agent) pairs have a session or a login here.
func (x *Index[C]) Agents() int {
	total := 0
	for i := range x.shards {
		sh := &x.shards[i]
		sh.mu.Lock()
		total += len(sh.agents)
		sh.mu.Unlock()
	}
	return total
}

// Snapshot appends all sessions of n that are in the index. What becomes of
// them meanwhile is for Manager.Close to sort out, which is idempotent.
func (x *Index[C]) Snapshot(n int, to []*Session[C]) []*Session[C] {
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, a := range sh.agents {
		to = append(to, a.members...)
	}
	return to
}

// Each calls f for every session of n in the index until it returns false,
// with the shard's lock held: f must not block nor call back into session.
func (x *Index[C]) Each(n int, f func(Info[C]) bool) {
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, a := range sh.agents {
		for _, s := range a.members {
			if !f(s.info()) {
				return
			}
		}
	}
}

// Find returns the session of key in the index, nil if there is none.
func (x *Index[C]) Find(key Key) *Session[C] {
	sh := &x.shards[key.Partition(len(x.shards))]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.find(key)
}

// State is the state of s.
func (x *Index[C]) State(s *Session[C]) State {
	sh := &x.shards[s.part]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return s.state
}

// Info is a session at one moment.
type Info[C Socket] struct {
	Session *Session[C]
	Key     Key
	Epoch   uint64
	State   State
	Chat    string
	Last    uint64 // highest seq queued
	Floor   uint64
	Since   time.Duration // boot clock
	Expires uint32        // unix seconds, 0 never
}

func (s *Session[C]) info() Info[C] {
	return Info[C]{s, s.Key(), s.epoch, s.state, s.chat, s.last, s.floor, time.Duration(s.opened) * time.Second, s.Expires()}
}

// Info returns what is known of s now.
func (x *Index[C]) Info(s *Session[C]) Info[C] {
	sh := &x.shards[s.part]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return s.info()
}

// choice is how Session.chosen keeps a time.
func choice(at time.Duration) uint16 { return uint16(at / (4 * time.Second)) }

// Recent lists the sessions of n that went live, or whose latest selection took
// effect, between two moments of the boot clock, at most an hour apart; a few
// seconds more on both sides, and, once in 73 h, one of older times.
func (x *Index[C]) Recent(n int, from, to time.Duration) (list []Info[C]) {
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	first, span := choice(from), choice(to)-choice(from)
	for _, a := range sh.agents {
		for _, s := range a.members {
			opened := time.Duration(s.opened+1) * time.Second
			if s.selects() && (opened >= from || s.chosen-first <= span) {
				list = append(list, s.info())
			}
		}
	}
	return list
}

// Wants is what Redis should say this pod wants of partition n.
func (x *Index[C]) Wants(n int) []Want {
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	wants := make([]Want, 0, len(sh.agents)+len(sh.chats)+1)
	for _, a := range sh.agents {
		if len(a.members) > 0 && a.company != AdminCompany {
			wants = append(wants, Want{Company: a.company, Agent: a.id})
		}
	}
	for k := range sh.chats {
		wants = append(wants, Want{Company: k.agent.company, Agent: k.agent.id, Chat: k.chat})
	}
	for k := range sh.joining {
		if len(sh.chats[k]) == 0 {
			wants = append(wants, Want{Company: k.agent.company, Agent: k.agent.id, Chat: k.chat})
		}
	}
	if x.admins.count.Load() > 0 {
		wants = append(wants, AdminWant())
	}
	return wants
}

// held are all locks this pod believes to hold in the partition: of members and
// of logins whose epoch is known. fresh is the boot second of verification from
// which on one counts as recent. The lock is held.
func (sh *shard[C]) held(fresh uint32) (who []*Session[C], held []Held) {
	add := func(s *Session[C]) { who, held = append(who, s), append(held, sh.heldOf(s, fresh)) }
	for _, a := range sh.agents {
		for _, s := range a.members {
			add(s)
		}
	}
	for _, l := range sh.logins {
		if l.s.state == Opening && l.s.epoch > 0 {
			add(l.s)
		}
	}
	return who, held
}

func (sh *shard[C]) heldOf(s *Session[C], fresh uint32) Held {
	h := s.held(fresh)
	if p := sh.pending[s]; p != nil {
		h.Chat = p.chat // written already, perhaps, and then lost
	}
	return h
}

func (s *Session[C]) held(fresh uint32) Held {
	return Held{Key: s.Key(), Conn: s.conn, Epoch: s.epoch, Chat: s.chat, Fresh: s.verified >= fresh, KeepChat: s.Grants().ReadOnly()}
}

// leave queues edges to Redis; the shard's lock is held, so that their order
// there is the order in the index.
func (x *Index[C]) leave(n int, edges []Want) {
	for _, w := range edges {
		x.routes.Leave(n, w)
	}
}

// unwant takes back what was joined outside the lock and is not wanted now.
func (x *Index[C]) unwant(n int, joined []Want) {
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, w := range joined {
		if w.Company == AdminCompany {
			x.admins.unwant(x.routes, n)
		} else if !sh.wants(w) {
			x.routes.Leave(n, w)
		}
	}
}
