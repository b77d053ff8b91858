package session

import "strings"

// Kinds of subjects that mean something to us; others pass through as they are.
const (
	KindChats    = "chats"
	KindMessages = "messages"
	KindAgents   = "agents"
	KindContacts = "contacts"
	KindOther    = "other" // in the claim events: all that has no name here
)

// Route says where an event belongs: the subject without its prefix.
type Route struct {
	Company, Agent string
	Kind           string // 4th token of the publisher's subject
	Chat           string // all that follows, dots included; only for KindMessages
}

// ParseRoute reads "<company>.<agent>.<kind>[.<rest>]". A messages route needs
// a chat; no other kind has a rest, so that a replay can ask for all kinds of an
// agent without the messages of every chat: "<company>.<agent>.*".
func ParseRoute(s string) (Route, bool) {
	company, s, ok := strings.Cut(s, ".")
	if !ok || company == "" {
		return Route{}, false
	}
	agent, s, ok := strings.Cut(s, ".")
	if !ok || agent == "" {
		return Route{}, false
	}
	kind, rest, more := strings.Cut(s, ".")
	if kind == "" || (kind == KindMessages) != more || more && rest == "" {
		return Route{}, false
	}
	return Route{Company: company, Agent: agent, Kind: kind, Chat: rest}, true
}

// Want is the Redis route this event is looked up under.
func (r Route) Want() Want { return Want{Company: r.Company, Agent: r.Agent, Chat: r.Chat} }

// Want is what a pod says it has receivers for: all events of an agent that
// are no messages (Chat empty), the messages of one chat, or, with Company
// AdminCompany, the agents events of everybody.
type Want struct {
	Company, Agent, Chat string
}

// AdminWant is the want of a pod that has an admin session.
func AdminWant() Want { return Want{Company: AdminCompany} }

// Event is one stored message of our events stream.
type Event struct {
	Seq   uint64 // in our stream
	Stamp int64  // when our stream stored it, unix nanoseconds
	Route Route
	Body  []byte // the publisher's JSON object; immutable
}

// Fence tells that sessions of this key with a lower epoch are outranked.
type Fence struct {
	Company, Agent, User string
	Epoch                uint64
}

// Batch says: of partition N, these are all the events in (From, Upto] that
// the receiver wants, as looked up under incarnation Inc. Without events it is
// a progress report. Immutable once sent.
type Batch struct {
	Stream     string // id of the stream that From, Upto and all seqs count in
	N          int
	From, Upto uint64
	Inc        string
	Events     []Event
	Fences     []Fence
	// Revoked is the version of the revocations that its sender had heard of: a
	// receiver that has not, for Redis can't reach it, gives nobody any of it.
	Revoked uint64
}

// Lookup is the answer of one look-up script: Owners[i] has receivers for the
// i-th want asked, Fences are those of all agents asked, and Inc is the
// incarnation that both belong to.
type Lookup struct {
	Inc    string
	Owners [][]Owner
	Fences []Fence
}
