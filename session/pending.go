package session

// What a shard knows of selections whose route is on its way. Such a session
// stands in the list of its old chat alone, for what is delivered; the edge of
// the new one is wanted already, so that nobody else's end leaves it. Every
// method needs the shard's lock.

// want is the edge of p's chat.
func (p *selection[C]) want() Want {
	return Want{Company: p.s.agent.company, Agent: p.s.agent.id, Chat: p.chat}
}

// pend notes p, the only one of its session.
func (sh *shard[C]) pend(p *selection[C]) {
	if sh.pending == nil {
		sh.pending = make(map[*Session[C]]*selection[C])
		sh.joining = make(map[chatKey[C]]int)
	}
	sh.pending[p.s] = p
	if p.chat != "" {
		sh.joining[chatKey[C]{p.s.agent, p.chat}]++
	}
}

// unpend is pend's inverse; the edge is appended if nobody wants it any more.
func (sh *shard[C]) unpend(s *Session[C], edges []Want) []Want {
	p := sh.pending[s]
	if p == nil {
		return edges
	}
	delete(sh.pending, s)
	if k := (chatKey[C]{s.agent, p.chat}); p.chat != "" {
		if sh.joining[k]--; sh.joining[k] == 0 {
			delete(sh.joining, k)
			if len(sh.chats[k]) == 0 {
				edges = append(edges, p.want())
			}
		}
	}
	if len(sh.pending) == 0 {
		sh.pending, sh.joining = nil, nil // a storm's maps are not kept for ever
	}
	return edges
}

// checkPending looks for contradictions; see Index.Check.
func (sh *shard[C]) checkPending() bool {
	count := make(map[chatKey[C]]int)
	for s, p := range sh.pending {
		if p.s != s || !s.selects() {
			return false
		}
		if p.chat != "" {
			count[chatKey[C]{s.agent, p.chat}]++
		}
	}
	for k, n := range sh.joining {
		if count[k] != n {
			return false
		}
	}
	return len(count) == len(sh.joining)
}
