package session

import "strings"

// Kinds is a set of event kinds.
type Kinds uint8

// Event kinds as bits; what is none of the four named ones is KindOther.
const (
	KindBitChats Kinds = 1 << iota
	KindBitMessages
	KindBitAgents
	KindBitContacts
	KindBitOther
	AllKinds = KindBitChats | KindBitMessages | KindBitAgents | KindBitContacts | KindBitOther
)

// KindOf is the bit of a kind.
func KindOf(kind string) Kinds {
	switch kind {
	case KindChats:
		return KindBitChats
	case KindMessages:
		return KindBitMessages
	case KindAgents:
		return KindBitAgents
	case KindContacts:
		return KindBitContacts
	}
	return KindBitOther
}

// Grants is what a token allows beyond being let in; nil allows a user all of
// its agent's events and chats, and an admin all tenants. Immutable. It is
// asked at select, deliver, resume and by the admin API.
type Grants struct {
	chats          []string
	kinds          Kinds
	readOnly       bool
	role           string
	company, agent string // admins: only these; empty: any
	nothing        bool   // admins: two company limits that exclude each other
}

// NewGrants reads the limits in claims, nil when there are none, so that the
// usual session carries eight empty bytes.
func NewGrants(c *Claims) *Grants {
	g := &Grants{chats: c.Chats, kinds: AllKinds, readOnly: c.ReadOnly, role: c.Role}
	if len(c.Events) > 0 {
		g.kinds = 0
		for _, k := range c.Events {
			g.kinds |= KindOf(k)
		}
	}
	if c.Admin {
		restricted := unstar(c.CompanyRestriction)
		g.company, g.agent = unstar(c.SubscribedCompany), unstar(c.SubscribedAgent)
		g.nothing = restricted != "" && g.company != "" && restricted != g.company
		if restricted != "" {
			g.company = restricted
		}
	}
	if len(g.chats) == 0 && g.kinds == AllKinds && !g.readOnly && g.role == "" && g.company == "" && g.agent == "" && !g.nothing {
		return nil
	}
	return g
}

func unstar(s string) string {
	if s == "*" {
		return ""
	}
	return s
}

// Select says whether chat may be selected. A pattern is a chat id, or a
// prefix followed by '*'.
func (g *Grants) Select(chat string) bool {
	if g == nil || len(g.chats) == 0 {
		return true
	}
	for _, p := range g.chats {
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(chat, prefix) || p == chat {
			return true
		}
	}
	return false
}

// Kinds are the event kinds that may be received.
func (g *Grants) Kinds() Kinds {
	if g == nil {
		return AllKinds
	}
	return g.kinds
}

// Receive says whether an event of this kind (and chat, for messages) may be
// received.
func (g *Grants) Receive(kind, chat string) bool {
	if g.Kinds()&KindOf(kind) == 0 {
		return false
	}
	return kind != KindMessages || g.Select(chat)
}

// Sees says whether an admin's scope covers the agent.
func (g *Grants) Sees(company, agent string) bool {
	if g == nil {
		return true
	}
	return !g.nothing && (g.company == "" || g.company == company) && (g.agent == "" || g.agent == agent)
}

// ReadOnly says that the client may change nothing but its own selection.
func (g *Grants) ReadOnly() bool { return g != nil && g.readOnly }

// Role is an admin's role, empty when the token names none.
func (g *Grants) Role() string {
	if g == nil {
		return ""
	}
	return g.role
}
