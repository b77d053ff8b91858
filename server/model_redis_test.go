package server

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// Lives of keys, as redisx has them.
const (
	modelLockTTL      = 300 * time.Second
	modelTombstoneTTL = 300 * time.Second
	modelRouteTTL     = 300 * time.Second
	modelFenceTTL     = 600 * time.Second
	modelLease        = 10 * time.Second
)

// modelRedis is redisx/lua in Go: the scripts, a method each, and the keys they
// keep, with their expiry. It is fast enough for the model's millions of calls;
// TestModelRedisAgreesWithTheScripts holds it against the scripts themselves.
type modelRedis struct {
	now   func() time.Time // Redis TIME
	parts []redisPart
	pods  map[session.Owner]time.Time // live list: expiry
	incs  int
	limit int  // takeovers of a key in a minute, 0 without end
	cut   rule // the rule that a mutation takes out
}

type redisPart struct {
	inc    string
	epoch  uint64
	locks  map[session.Key]redisLock
	chats  map[session.Key]string // selected
	taken  map[session.Key]redisCount
	routes map[session.Want]redisRoute
	fences map[agentID]*redisFences
}

type agentID struct{ company, agent string }

// redisLock is a lock, or, with tomb, a tombstone.
type redisLock struct {
	session.Lock
	prev  *session.Lock
	tomb  bool
	until time.Time
}

// redisCount counts takeovers of a key.
type redisCount struct {
	n     int
	until time.Time
}

type redisRoute struct {
	edges map[session.Owner]redisEdge
	until time.Time
}

type redisEdge struct {
	expiry int64 // unix seconds
	number uint32
}

type redisFences struct {
	of     map[string]redisFence
	pruned int64 // unix seconds; 0 never
	until  time.Time
}

type redisFence struct {
	epoch   uint64
	written int64
}

func newModelRedis(partitions int, now func() time.Time) *modelRedis {
	r := &modelRedis{now: now, parts: make([]redisPart, partitions)}
	r.flush()
	return r
}

// flush loses all keys.
func (r *modelRedis) flush() {
	for n := range r.parts {
		r.parts[n] = redisPart{
			locks: map[session.Key]redisLock{}, chats: map[session.Key]string{}, taken: map[session.Key]redisCount{},
			routes: map[session.Want]redisRoute{}, fences: map[agentID]*redisFences{},
		}
	}
	r.pods = map[session.Owner]time.Time{}
}

// clone is what a replica has.
func (r *modelRedis) clone() []redisPart {
	parts := slices.Clone(r.parts)
	for n := range parts {
		p := &parts[n]
		p.locks, p.chats, p.taken = maps.Clone(p.locks), maps.Clone(p.chats), maps.Clone(p.taken)
		p.routes, p.fences = maps.Clone(p.routes), maps.Clone(p.fences)
		for w, route := range p.routes {
			route.edges = maps.Clone(route.edges)
			p.routes[w] = route
		}
		for a, f := range p.fences {
			c := *f
			c.of = maps.Clone(f.of)
			p.fences[a] = &c
		}
	}
	return parts
}

// failover loses the writes after saved was taken; whoever connects makes
// another incarnation of every partition.
func (r *modelRedis) failover(saved []redisPart) {
	r.parts = saved
	for n := range r.parts {
		if r.cut != ruleNewMasterNewInc {
			r.incs++
			r.parts[n].inc = fmt.Sprint("inc", r.incs)
		}
	}
}

func (r *modelRedis) incOf(n int) string {
	p := &r.parts[n]
	if p.inc == "" {
		r.incs++
		p.inc = fmt.Sprint("inc", r.incs)
	}
	return p.inc
}

// stale is the first line of most scripts.
func (r *modelRedis) stale(n int, inc string) bool {
	return r.incOf(n) != inc
}

// lock reads a lock: nil when there is none or it has expired.
func (r *modelRedis) lock(n int, key session.Key) *redisLock {
	l, ok := r.parts[n].locks[key]
	if !ok || !r.now().Before(l.until) {
		delete(r.parts[n].locks, key)
		return nil
	}
	return &l
}

func (l *redisLock) isHeld() bool { return l != nil && !l.tomb }

func (l *redisLock) isOf(me session.Owner, conn uint64) bool {
	return l.isHeld() && l.Owner == me && l.Conn == conn
}

func (r *modelRedis) setLock(n int, key session.Key, l redisLock, ttl time.Duration) {
	l.until = r.now().Add(ttl)
	r.parts[n].locks[key] = l
}

// acquire is acquire.lua.
func (r *modelRedis) acquire(n int, inc string, me session.Owner, key session.Key, conn uint64, reject bool, expect uint64) session.Acquired {
	if r.stale(n, inc) {
		return session.Acquired{Verdict: session.Stale}
	}
	p, cur := &r.parts[n], r.lock(n, key)
	if cur.isOf(me, conn) {
		return session.Acquired{Epoch: cur.Epoch, Prev: cur.prev, Chat: p.chats[key]}
	}
	if cur.isHeld() && reject && cur.Epoch != expect {
		return session.Acquired{Verdict: session.Taken, Prev: &cur.Lock}
	}
	if again, limited := r.takeover(p, key, cur); limited {
		return session.Acquired{Verdict: session.Limited, Again: again}
	}
	micros := uint64(r.now().UnixMicro())
	epoch := max(p.epoch+1, micros)
	if cur != nil {
		epoch = max(epoch, cur.Epoch+1)
	}
	if r.cut == ruleEpochsRise {
		epoch = micros
	}
	p.epoch = epoch
	next := redisLock{Lock: session.Lock{Owner: me, Conn: conn, Epoch: epoch}}
	switch {
	case !cur.isHeld():
		next.Settled = true
	case cur.Owner != me:
		next.prev = &cur.Lock
	default:
		next.Settled = cur.Settled || r.cut == ruleUnsettledIsInherited
		if !next.Settled {
			next.prev = cur.prev
		}
	}
	r.setLock(n, key, next, modelLockTTL)
	return session.Acquired{Epoch: epoch, Prev: next.prev, Chat: p.chats[key]}
}

// takeover counts one of a live lock; limited: it was one too many.
func (r *modelRedis) takeover(p *redisPart, key session.Key, cur *redisLock) (again time.Duration, limited bool) {
	if !cur.isHeld() || r.limit == 0 {
		return 0, false
	}
	c := p.taken[key]
	if c.n == 0 || !r.now().Before(c.until) {
		c = redisCount{0, r.now().Add(time.Minute)}
	}
	c.n++
	p.taken[key] = c
	return c.until.Sub(r.now()), c.n > r.limit
}

// open is open.lua. number counts the edges of the caller's partition.
func (r *modelRedis) open(n int, inc string, me session.Owner, h session.Held, fence bool, e edgeCall) session.Opened {
	if r.stale(n, inc) {
		return session.Opened{Verdict: session.Stale}
	}
	cur := r.lock(n, h.Key)
	if !cur.isOf(me, h.Conn) || cur.Epoch != h.Epoch {
		return session.Opened{Verdict: session.Lost, Higher: cur != nil && cur.Epoch >= h.Epoch}
	}
	if fence && r.cut != ruleOpenFences {
		r.fence(n, h.Key, h.Epoch)
	}
	if !cur.Settled {
		r.setLock(n, h.Key, redisLock{Lock: session.Lock{Owner: me, Conn: h.Conn, Epoch: h.Epoch, Settled: true}}, modelLockTTL)
	}
	r.touch(n, session.Want{Company: h.Key.Company, Agent: h.Key.Agent}, me, e)
	if h.Chat != "" {
		r.touch(n, session.Want{Company: h.Key.Company, Agent: h.Key.Agent, Chat: h.Chat}, me, e)
	}
	if !h.KeepChat {
		r.choose(n, h.Key, h.Chat)
	}
	return session.Opened{}
}

func (r *modelRedis) choose(n int, key session.Key, chat string) {
	if chat == "" {
		delete(r.parts[n].chats, key)
	} else {
		r.parts[n].chats[key] = chat
	}
}

// release is release.lua.
func (r *modelRedis) release(n int, me session.Owner, key session.Key, conn uint64) {
	cur := r.lock(n, key)
	if !cur.isHeld() || r.cut != ruleReleaseComparesConn && !cur.isOf(me, conn) {
		return
	}
	if !cur.Settled && r.cut != ruleUnsettledIsFenced {
		r.fence(n, key, cur.Epoch)
	}
	r.setLock(n, key, redisLock{Lock: session.Lock{Epoch: cur.Epoch}, tomb: true}, modelTombstoneTTL)
}

// fence is fence.lua.
func (r *modelRedis) fence(n int, key session.Key, epoch uint64) {
	a, now := agentID{key.Company, key.Agent}, r.now()
	f := r.fencesOf(n, a)
	if f == nil {
		f = &redisFences{of: map[string]redisFence{}}
		r.parts[n].fences[a] = f
	}
	f.of[key.User] = redisFence{max(epoch, f.of[key.User].epoch), now.Unix()}
	f.until = now.Add(modelFenceTTL)
	if f.pruned == 0 {
		f.pruned = now.Unix()
	} else if f.pruned+60 < now.Unix() {
		f.pruned = now.Unix()
		maps.DeleteFunc(f.of, func(_ string, x redisFence) bool { return x.written+600 < now.Unix() })
	}
}

func (r *modelRedis) fencesOf(n int, a agentID) *redisFences {
	f := r.parts[n].fences[a]
	if f == nil || !r.now().Before(f.until) {
		delete(r.parts[n].fences, a)
		return nil
	}
	return f
}

// fenceOf is what stands against key's sessions; 0: nothing.
func (r *modelRedis) fenceOf(n int, key session.Key) uint64 {
	if f := r.fencesOf(n, agentID{key.Company, key.Agent}); f != nil {
		return f.of[key.User].epoch
	}
	return 0
}

// reassert is reassert.lua.
func (r *modelRedis) reassert(n int, inc string, me session.Owner, seen uint64, held []session.Held) (answers []session.Reasserted, stale bool) {
	if r.stale(n, inc) {
		return nil, true
	}
	for _, h := range held {
		answers = append(answers, r.reassertOne(n, me, seen, h))
	}
	return answers, false
}

func (r *modelRedis) reassertOne(n int, me session.Owner, seen uint64, h session.Held) session.Reasserted {
	p, cur := &r.parts[n], r.lock(n, h.Key)
	if cur.isOf(me, h.Conn) {
		r.setLock(n, h.Key, *cur, modelLockTTL)
		return session.Reasserted{Prev: cur.prev}
	}
	if h.Epoch == 0 {
		return session.Reasserted{}
	}
	outranked := cur != nil && cur.Epoch > h.Epoch && r.cut != ruleReassertYieldsToLock
	if outranked || r.fenceOf(n, h.Key) > h.Epoch {
		return session.Reasserted{Verdict: session.Lost}
	}
	if cur == nil && !h.Fresh && p.epoch > seen {
		return session.Reasserted{Verdict: session.Lost, Unconfirmed: true}
	}
	next := redisLock{Lock: session.Lock{Owner: me, Conn: h.Conn, Epoch: h.Epoch, Settled: true}}
	if cur.isHeld() && r.cut != ruleReassertNamesTheLower {
		next.Settled, next.prev = false, &cur.Lock
	}
	r.setLock(n, h.Key, next, modelLockTTL)
	if _, ok := p.chats[h.Key]; !ok && h.Chat != "" {
		p.chats[h.Key] = h.Chat
	}
	return session.Reasserted{Prev: next.prev}
}
