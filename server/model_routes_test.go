package server

import (
	"maps"
	"slices"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// edgeCall is what comes with every change of an edge: see redisx/lua/edge.lua.
type edgeCall struct {
	number uint32
	lazy   bool
}

const edgeNumbers = 1_000_000

// isNewer says whether the edge stands under a newer number than a command's.
func (e redisEdge) isNewer(number uint32) bool {
	ahead := (e.number + edgeNumbers - number) % edgeNumbers
	return ahead > 0 && ahead < edgeNumbers/2
}

// route reads a route that has not expired.
func (r *modelRedis) route(n int, w session.Want) redisRoute {
	route, ok := r.parts[n].routes[w]
	if ok && !r.now().Before(route.until) {
		delete(r.parts[n].routes, w)
		return redisRoute{}
	}
	return route
}

func (r *modelRedis) joinEdge(n int, w session.Want, me session.Owner, number uint32) {
	route := r.route(n, w)
	if e, ok := route.edges[me]; ok && e.isNewer(number) && r.cut != ruleEdgesAreNumbered {
		return
	}
	if route.edges == nil {
		route.edges = map[session.Owner]redisEdge{}
	}
	route.edges[me] = redisEdge{r.now().Unix() + int64(modelRouteTTL/time.Second), number}
	route.until = r.now().Add(modelRouteTTL)
	r.parts[n].routes[w] = route
}

func (r *modelRedis) touch(n int, w session.Want, me session.Owner, e edgeCall) {
	if e.lazy {
		life := int64(modelRouteTTL / time.Second)
		if had, ok := r.route(n, w).edges[me]; ok && had.expiry >= r.now().Unix()+life*9/10 {
			return
		}
	}
	r.joinEdge(n, w, me, e.number)
}

// join is join.lua.
func (r *modelRedis) join(n int, inc string, me session.Owner, w *session.Want, h session.Held, e edgeCall) session.Verdict {
	if r.stale(n, inc) {
		return session.Stale
	}
	if w != nil {
		r.touch(n, *w, me, e)
	}
	if r.lock(n, h.Key).isOf(me, h.Conn) {
		r.choose(n, h.Key, h.Chat)
	}
	return session.OK
}

// joinAll is joinall.lua.
func (r *modelRedis) joinAll(n int, inc string, me session.Owner, wants []session.Want, number uint32) (stale bool) {
	if r.stale(n, inc) {
		return true
	}
	for _, w := range wants {
		r.joinEdge(n, w, me, number)
		maps.DeleteFunc(r.route(n, w).edges, func(_ session.Owner, e redisEdge) bool { return e.expiry < r.now().Unix() })
	}
	return false
}

// leave is leave.lua.
func (r *modelRedis) leave(n int, me session.Owner, w session.Want, number uint32) {
	if e, ok := r.route(n, w).edges[me]; ok && (!e.isNewer(number) || r.cut == ruleEdgesAreNumbered) {
		delete(r.route(n, w).edges, me)
	}
}

// lookup is lookup.lua.
func (r *modelRedis) lookup(n int, wants []session.Want) session.Lookup {
	l := session.Lookup{Inc: r.incOf(n)}
	asked := map[agentID]bool{}
	for _, w := range wants {
		var owners []session.Owner
		for o, e := range r.route(n, w).edges {
			if e.expiry >= r.now().Unix() { // a score is 'EXPIRY.NUMBER', and numbers begin at 1
				owners = append(owners, o)
			}
		}
		slices.Sort(owners)
		l.Owners = append(l.Owners, owners)
		a := agentID{w.Company, w.Agent}
		if asked[a] || r.cut == ruleFencesAreLookedUp {
			continue
		}
		asked[a] = true
		if f := r.fencesOf(n, a); f != nil {
			for _, user := range slices.Sorted(maps.Keys(f.of)) {
				l.Fences = append(l.Fences, session.Fence{Company: a.company, Agent: a.agent, User: user, Epoch: f.of[user].epoch})
			}
		}
	}
	return l
}

// beat is beat.lua; a member's address is its owner.
func (r *modelRedis) beat(me session.Owner) []session.Pod {
	now := r.now()
	r.pods[me] = now.Add(modelLease)
	maps.DeleteFunc(r.pods, func(_ session.Owner, until time.Time) bool { return !now.Before(until) })
	var live []session.Pod
	for _, o := range slices.Sorted(maps.Keys(r.pods)) {
		live = append(live, session.Pod{Owner: o})
	}
	return live
}
