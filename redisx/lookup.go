package redisx

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/daisi/daisi-ws/session"
)

// agent is a fence key's owner.
type agent struct{ company, agent string }

// question collects what a look-up asks: each route and each agent once.
type question struct {
	routes map[session.Want]int
	agents map[agent]int
	asked  []agent // by index in agents
	at     []int   // want i is answered by route at[i]

	text []byte   // all keys, one after the other
	ends []int    // of each key in text
	keys []string // parts of text
}

// questions are reused: a look-up is made for every batch of events.
type questions struct{ pool sync.Pool }

func (p *questions) get() *question {
	if q, ok := p.pool.Get().(*question); ok {
		return q
	}
	return &question{routes: make(map[session.Want]int), agents: make(map[agent]int)}
}

func (p *questions) put(q *question) {
	if len(q.routes) > 1024 {
		return // a huge batch's maps are not worth clearing for ever
	}
	clear(q.routes)
	clear(q.agents)
	clear(q.asked)
	clear(q.keys)
	q.asked, q.at, q.text, q.ends, q.keys = q.asked[:0], q.at[:0], q.text[:0], q.ends[:0], q.keys[:0]
	p.pool.Put(q)
}

// ask writes the keys of routes, then those of fences.
func (q *question) ask(n int, wants []session.Want, admins bool) {
	for _, w := range wants {
		q.route(n, w)
	}
	if admins {
		q.route(n, session.AdminWant())
	}
	for _, w := range wants {
		a := agent{w.Company, w.Agent}
		if _, ok := q.agents[a]; ok || w == session.AdminWant() {
			continue
		}
		q.agents[a] = len(q.asked)
		q.asked = append(q.asked, a)
		q.text = appendFence(q.text, n, w.Company, w.Agent)
		q.ends = append(q.ends, len(q.text))
	}
	all, from := string(q.text), 0
	for _, end := range q.ends {
		q.keys = append(q.keys, all[from:end])
		from = end
	}
}

func (q *question) route(n int, w session.Want) {
	i, ok := q.routes[w]
	if !ok {
		i = len(q.routes)
		q.routes[w] = i
		q.text = appendRoute(q.text, n, w)
		q.ends = append(q.ends, len(q.text))
	}
	q.at = append(q.at, i)
}

// wantsACall is how much one look-up script answers: Lua can pass on only some
// thousand values at once.
const wantsACall = 512

// Lookup asks who has receivers for wants in partition n, and for the fences of
// the wants' agents: what it answers belongs together, and to the incarnation
// it answers. With admins, Owners has one entry more, the last: pods with an
// admin session. It never answers from a cache, so call it after the events
// were pulled. Wants may repeat, each is asked once; without any it answers the
// incarnation.
//
// Owners and users are parts of the reply: copy what is kept for long.
func (c *Client) Lookup(ctx context.Context, n int, wants []session.Want, admins bool) (session.Lookup, error) {
	for {
		first := wants[:min(len(wants), wantsACall)]
		answer, err := c.lookup(ctx, n, first, admins && len(first) == len(wants))
		same := true
		for done := len(first); err == nil && same && done < len(wants); {
			part := wants[done:min(len(wants), done+wantsACall)]
			done += len(part)
			var more session.Lookup
			more, err = c.lookup(ctx, n, part, admins && done == len(wants))
			// An incarnation never comes back: when both scripts saw the same
			// one, it was there all the time between them.
			same = more.Inc == answer.Inc
			answer.Owners = append(answer.Owners, more.Owners...)
			answer.Fences = append(answer.Fences, more.Fences...)
		}
		if err != nil {
			return session.Lookup{}, err
		}
		if same {
			return answer, nil
		}
	}
}

// lookup is one script.
func (c *Client) lookup(ctx context.Context, n int, wants []session.Want, admins bool) (session.Lookup, error) {
	q := c.questions.get()
	q.ask(n, wants, admins)
	k := newCall(c.scripts.lookup, n, 1+len(q.keys), 2)
	k.add(c.part[n].inc)
	for i := range q.keys {
		k.args = append(k.args, &q.keys[i]) // a pointer is boxed without an allocation
	}
	k.add(c.nonce, len(q.routes))
	if err := c.reads[n%len(c.reads)].do(ctx, k); err != nil {
		return session.Lookup{}, err // q is left to the lane, which may still send it
	}
	answer, err := q.read(k.reply)
	c.questions.put(q)
	if err != nil {
		return session.Lookup{}, fmt.Errorf("look-up in partition %d: %w", n, err)
	}
	c.learn(n, answer.Inc)
	return answer, nil
}

// read takes the reply apart: see lua/lookup.lua.
func (q *question) read(reply string) (session.Lookup, error) {
	var answer session.Lookup
	answer.Inc, reply, _ = strings.Cut(reply, "\n")
	routes := make([][]session.Owner, len(q.routes), len(q.routes)+len(q.at))
	for i := range routes {
		var line string
		line, reply, _ = strings.Cut(reply, "\n")
		routes[i] = readOwners(line)
	}
	answer.Owners = routes[len(routes):]
	for _, i := range q.at {
		answer.Owners = append(answer.Owners, routes[i])
	}
	for reply != "" {
		var line string
		line, reply, _ = strings.Cut(reply, "\n")
		index, line, _ := strings.Cut(line, " ")
		i, err := strconv.Atoi(index)
		if err != nil || i < 0 || i >= len(q.asked) {
			return answer, fmt.Errorf("read answer: fences of agent %q of %d", index, len(q.asked))
		}
		if answer.Fences, err = readFences(answer.Fences, q.asked[i], line); err != nil {
			return answer, err
		}
	}
	return answer, nil
}

func readOwners(line string) []session.Owner {
	if line == "" {
		return nil
	}
	owners := make([]session.Owner, 0, 1+strings.Count(line, " "))
	for more := true; more; {
		var owner string
		owner, line, more = strings.Cut(line, " ")
		owners = append(owners, session.Owner(unescape(owner)))
	}
	return owners
}

// readFences reads "USER EPOCH WRITTEN USER EPOCH WRITTEN …".
func readFences(to []session.Fence, a agent, line string) ([]session.Fence, error) {
	for more := true; more; {
		var user, epoch string
		user, line, _ = strings.Cut(line, " ")
		epoch, line, _ = strings.Cut(line, " ")
		_, line, more = strings.Cut(line, " ")
		if user == pruned {
			continue
		}
		e, err := strconv.ParseUint(epoch, 10, 64)
		if err != nil {
			return to, fmt.Errorf("read fence of user %q: %w", user, err)
		}
		to = append(to, session.Fence{Company: a.company, Agent: a.agent, User: unescape(user), Epoch: e})
	}
	return to, nil
}

// pruned is the field of a fence hash that is no user: see lua/fence.lua.
const pruned = "%"
