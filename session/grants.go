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

// Roles of admins, as the claim role names them.
const (
	RoleViewer   = "viewer"   // may look
	RoleOperator = "operator" // may also end sessions, revoke, drain
)

// Grants is what a token allows beyond being let in; nil allows a user all of
// its agent's events and chats, and an admin all tenants. Immutable. It is
// asked at select, deliver, resume and by the admin API. It also remembers the
// key that sealed the token, which all sessions of one key share.
type Grants struct {
	chats          []string
	kinds          Kinds
	readOnly       bool
	role           string
	company, agent string // admins: only these; empty: any
	nothing        bool   // admins: two company limits that exclude each other
	kid            string
	limits         string // all of the above but kid, in one string; empty: none
}

// NewGrants reads the limits in claims, nil when there are none and no kid, so
// that the usual session carries eight empty bytes. Sessions take theirs from a
// GrantTable.
func NewGrants(c *Claims) *Grants {
	g := &Grants{chats: c.Chats, kinds: AllKinds, readOnly: c.ReadOnly, role: c.Role, kid: c.KID}
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
	g.limits = g.describe()
	if g.limits == "" && g.kid == "" {
		return nil
	}
	return g
}

// describe writes all limits so that equal ones are equal strings, and none are
// the empty one. Chats and ids hold no control characters, which separate here.
func (g *Grants) describe() string {
	if len(g.chats) == 0 && g.kinds == AllKinds && !g.readOnly && g.role == "" && g.company == "" && g.agent == "" && !g.nothing {
		return ""
	}
	b := []byte{byte(g.kinds) | 0x80, '-', '-'}
	if g.readOnly {
		b[1] = 'r'
	}
	if g.nothing {
		b[2] = 'n'
	}
	for _, s := range append([]string{g.role, g.company, g.agent}, g.chats...) {
		b = append(append(b, s...), 0)
	}
	return string(b)
}

// Same says whether o allows exactly what g does; keys may differ.
func (g *Grants) Same(o *Grants) bool { return g.describedAs() == o.describedAs() }

func (g *Grants) describedAs() string {
	if g == nil {
		return ""
	}
	return g.limits
}

// KID is the key that sealed the token, empty for one without a name.
func (g *Grants) KID() string {
	if g == nil {
		return ""
	}
	return g.kid
}

// Unscoped says whether an admin's scope is everything.
func (g *Grants) Unscoped() bool {
	return g == nil || !g.nothing && g.company == "" && g.agent == ""
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

// SeesAll says whether an admin's scope covers every agent of company.
func (g *Grants) SeesAll(company string) bool {
	return g == nil || g.agent == "" && g.Sees(company, "")
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
