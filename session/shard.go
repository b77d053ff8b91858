package session

import (
	"strings"
	"sync"
)

type agentKey struct{ company, id string }

type chatKey[C Socket] struct {
	agent *agent[C]
	chat  string
}

// shard is everything the index knows of one partition. Every method needs mu.
type shard[C Socket] struct {
	mu sync.Mutex

	// mu guards the following.
	w      uint64 // watermark: highest seq handed over
	agents map[agentKey]*agent[C]
	chats  map[chatKey[C]][]*Session[C] // only chats that somebody selected
	logins map[Key]*login[C]            // the one under way per key
	// Selections on their way to Redis, and how many want each chat; nil when
	// there are none.
	pending map[*Session[C]]*selection[C]
	joining map[chatKey[C]]int
	live    int // sessions Live or Replay
	_       [64]byte
}

// intern gives s the agent that all sessions of it share, counting s.
func (sh *shard[C]) intern(s *Session[C]) {
	k := agentKey{s.agent.company, s.agent.id}
	a := sh.agents[k]
	if a == nil {
		a = s.agent
		a.company, a.id = strings.Clone(a.company), strings.Clone(a.id)
		if sh.agents == nil {
			sh.agents = make(map[agentKey]*agent[C])
		}
		sh.agents[agentKey{a.company, a.id}] = a
	}
	a.refs++
	s.agent = a
}

// forget is intern's inverse.
func (sh *shard[C]) forget(s *Session[C]) {
	if s.agent.refs--; s.agent.refs == 0 {
		delete(sh.agents, agentKey{s.agent.company, s.agent.id})
	}
}

// find returns the session of key in the index.
func (sh *shard[C]) find(key Key) *Session[C] {
	if a := sh.agents[agentKey{key.Company, key.Agent}]; a != nil {
		return a.find(key.User)
	}
	return nil
}

// insert puts s into the index with chat selected. Its edges are those of the
// agent and the chat: wanted while the lists are not empty, or while a selection
// of the chat is on its way.
func (sh *shard[C]) insert(s *Session[C], chat string) {
	s.agent.add(s)
	s.state = Joining
	sh.enlist(s, chat)
}

// remove takes s out of the index and returns the edges that nobody wants any
// more.
func (sh *shard[C]) remove(s *Session[C], edges []Want) []Want {
	if !s.agent.remove(s) {
		return edges
	}
	edges = sh.unpend(s, sh.delist(s, edges))
	if len(s.agent.members) == 0 && s.agent.company != AdminCompany {
		edges = append(edges, Want{Company: s.agent.company, Agent: s.agent.id})
	}
	return edges
}

// enlist selects chat for s, which has none.
func (sh *shard[C]) enlist(s *Session[C], chat string) {
	s.chat = chat
	if chat == "" {
		return
	}
	k := chatKey[C]{s.agent, chat}
	list := sh.chats[k]
	s.chatSlot = uint32(len(list))
	if len(list) > 0 {
		s.chat = list[0].chat // one string for all
	}
	if sh.chats == nil {
		sh.chats = make(map[chatKey[C]][]*Session[C])
	}
	sh.chats[k] = append(list, s)
}

// delist unselects the chat of s.
func (sh *shard[C]) delist(s *Session[C], edges []Want) []Want {
	if s.chat == "" {
		return edges
	}
	k := chatKey[C]{s.agent, s.chat}
	i := s.chatSlot
	list, empty := cut(sh.chats[k], int(i), func(m *Session[C]) { m.chatSlot = i })
	if empty {
		delete(sh.chats, k)
		if sh.joining[k] == 0 {
			edges = append(edges, Want{Company: s.agent.company, Agent: s.agent.id, Chat: s.chat})
		}
	} else {
		sh.chats[k] = list
	}
	s.chat = ""
	return edges
}

// wants says whether w is wanted.
func (sh *shard[C]) wants(w Want) bool {
	a := sh.agents[agentKey{w.Company, w.Agent}]
	if a == nil {
		return false
	}
	if w.Chat == "" {
		return len(a.members) > 0
	}
	k := chatKey[C]{a, w.Chat}
	return len(sh.chats[k]) > 0 || sh.joining[k] > 0
}
