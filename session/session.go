package session

import (
	"strings"
	"sync/atomic"
	"time"
)

// State is where a session is in its life.
type State uint8

// States. Only Live takes events; Replay notes the highest one it was not
// given, Joining is there for fences and kills alone.
const (
	Opening State = iota // being logged in, not in the index
	Joining              // in the index, routes on their way
	Live
	Replay  // ready was sent; the stream is being replayed to it
	Closing // out of the index for good
)

var stateNames = [...]string{"opening", "joining", "live", "replay", "closing"}

// String is the state in lower case.
func (s State) String() string { return stateNames[s] }

// Flags are what an edge wants to remember of a session.
type Flags uint32

// Flags.
const (
	FlagNewFrames Flags = 1 << iota // resumes: asked for gap, draining, cursor frames
	FlagWarned                      // was told that its token expires
	FlagDrained                     // was told when to come back
	FlagBrowser                     // the upgrade had an Origin

	flagHole   Flags = 1 << 29 // missed events behind last, and was not told yet
	flagOdd    Flags = 1 << 30 // was held against revocations whose news are odd, last
	flagDoomed Flags = 1 << 31 // an admin that takes nothing more
)

// Profile is what a login knows of a session besides its key.
type Profile struct {
	Grants  *Grants
	Expires time.Time // of the token; zero: never
	Token   TokenID
	Flags   Flags
}

// Session is one login: at most one per key is Live in the cluster. Manager.Init
// makes it (alone or inside a larger struct), Manager.Open brings it to life,
// Manager.Close ends it. It owns no goroutine, timer, map or channel.
type Session[C Socket] struct {
	// What a delivery touches stands together. Static: sock, part, kinds. The
	// shard's lock guards the rest.
	sock   C
	last   uint64 // highest seq queued
	floor  uint64 // Live takes only what is above
	mark   uint64 // Replay: highest seq passed over; Live: last at the latest Cursor
	part   uint16
	kinds  Kinds
	state  State
	ended  Reason // why, once Closing
	doomed bool   // takes nothing more; its Close is on the way
	chosen uint16 // when the latest selection took effect: boot seconds / 4, modulo 73 h

	// Static after Init; Open swaps agent for the interned one before anybody
	// else can find the session.
	agent *agent[C]
	user  string
	conn  uint64

	// The shard's lock guards the following.
	token    uint64 // TokenID.short
	epoch    uint64 // 0 until acquired; then fixed
	chat     string // selected, "" none
	slot     uint32 // in agent.members
	chatSlot uint32 // in the chat's list
	verified uint32 // boot seconds when Redis last agreed
	opened   uint32 // boot seconds of going live

	// Owned by the socket's poller.
	rate int64

	// Any goroutine. A refresh gives others of the same limits.
	grants  atomic.Pointer[Grants]
	expires atomic.Uint32 // unix seconds, 0 never
	flags   atomic.Uint32
}

// Init prepares s for Open. The strings of key are copied, for they tend to be
// parts of larger ones. Connection numbers are the Manager's, so an Owner may
// have only one Manager in its life.
func (m *Manager[C]) Init(s *Session[C], sock C, key Key, p Profile) {
	s.agent = &agent[C]{company: key.Company, id: key.Agent}
	s.user = strings.Clone(key.User)
	s.sock = sock
	s.grants.Store(p.Grants)
	s.kinds = p.Grants.Kinds()
	s.conn = m.conns.Add(1)
	s.token = p.Token.short()
	s.part = uint16(key.Partition(len(m.index.shards)))
	s.SetExpires(p.Expires)
	s.flags.Store(uint32(p.Flags))
}

// NewSession is Init of a session of its own.
func (m *Manager[C]) NewSession(sock C, key Key, p Profile) *Session[C] {
	s := new(Session[C])
	m.Init(s, sock, key, p)
	return s
}

// Key names the session. Until Open has begun only for its own goroutine.
func (s *Session[C]) Key() Key { return Key{s.agent.company, s.agent.id, s.user} }

// Sock is its socket.
func (s *Session[C]) Sock() C { return s.sock }

// Conn numbers it within this boot; never reused.
func (s *Session[C]) Conn() uint64 { return s.conn }

// Epoch orders the sessions of a key; fixed once Open has returned.
func (s *Session[C]) Epoch() uint64 { return s.epoch }

// Partition is where it lives.
func (s *Session[C]) Partition() int { return int(s.part) }

// Grants are its token's limits.
func (s *Session[C]) Grants() *Grants { return s.grants.Load() }

// Expires is when its token ends, in unix seconds; 0: never.
func (s *Session[C]) Expires() uint32 { return s.expires.Load() }

// SetExpires is for a refreshed token.
func (s *Session[C]) SetExpires(t time.Time) {
	if t.IsZero() {
		s.expires.Store(0)
		return
	}
	s.expires.Store(uint32(min(max(t.Unix(), 1), 1<<32-1)))
}

// Has says whether all of f are set.
func (s *Session[C]) Has(f Flags) bool { return Flags(s.flags.Load())&f == f }

// Set sets f, and says whether this call changed anything.
func (s *Session[C]) Set(f Flags) bool { return Flags(s.flags.Or(uint32(f)))&f != f }

// heldAgainst notes which news of the revocations s was held against, and
// wasHeld says whether it was those.
func (s *Session[C]) heldAgainst(odd bool) {
	if odd {
		s.Set(flagOdd)
	} else {
		s.Unset(flagOdd)
	}
}

func (s *Session[C]) wasHeld(odd bool) bool { return s.Has(flagOdd) == odd }

// Unset takes f back.
func (s *Session[C]) Unset(f Flags) { s.flags.And(^uint32(f)) }

// Allow is a rate limiter (GCRA) of eight bytes: what a message costs is paid
// off as time goes by, and most may be owed. now is a monotonic clock in
// nanoseconds. Only the goroutine that reads the socket may call it.
func (s *Session[C]) Allow(now int64, cost, most time.Duration) bool {
	due := max(s.rate, now) + int64(cost)
	if due-now > int64(most) {
		return false
	}
	s.rate = due
	return true
}
