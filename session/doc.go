// Package session knows identities, tokens, locks, routes and the life of a
// session: at most one socket per (company, agent, user) in the whole cluster,
// each given the events it wants in order. It has never heard of epoll, Redis,
// NATS or HTTP: those stand behind the interfaces of deps.go and behind C, the
// socket type that Session, Index and Manager are generic in.
//
//	Open:   opening -> joining -> live <-> replay
//	                \         \      \       /
//	Close:           +---------+------+-----+--> closing
//
// # Invariants
//
// Those of the protocols this package takes part in; tests cite them.
//
//	P1  events reach sockets through Deliver (take, repair) and replay only; seq
//	    rises strictly per socket. Deliver closes instead of breaking this.
//	P2  W never falls within a stream id: Deliver and Advance only raise it.
//	P3  every event <= W owed to a session since its ready was queued or told:
//	    ready is queued, floor read and Live set in one critical section of the
//	    shard's lock, under which W moves. What can't be queued ends in a close;
//	    from then on the session is doomed and takes nothing more.
//	P4  a fence or a kill's answer comes before ready; in the index (Joining)
//	    before open, so that fences and kills find the session from then on.
//	P5  ready(e): each lower epoch is out of its index for good, or a fence >= e
//	    stands. A kill is answered only when no lower session is, or can come,
//	    into the index; while a login's epoch is unknown the answer waits. That
//	    the replaced socket's close frame is out first is a courtesy to those
//	    who watch both, waited for <= 250 ms; nothing depends on it.
//	P6  an unsettled lock is never released, lost or taken over without a fence:
//	    the scripts see to it; here a former owner that was itself unsettled
//	    always makes Open fence, answered or not.
//
// And of this package alone:
//
//	I1  a session is removed by identity, never by key: a late Close can't
//	    remove its successor, and its release names its own connection.
//	I2  order of edges in Redis = order in the index: Leave and Join are queued
//	    under the shard's lock. What joins outside it (Open, JoinAll) compares
//	    with the index afterwards and takes back what nobody wants (unwant).
//	I3  one login per key and pod at a time; a newer one ends it and begins only
//	    when nothing of it is on its way to Redis, its release included.
//	I4  until Open returns, its goroutine alone releases the lock: a close from
//	    elsewhere marks the session, and the login notices.
//	I5  Close does everything once, in this order: index and table, edges,
//	    lock, error frame, close frame, count.
//	I6  select_chat takes effect with the route's reply: until then a session
//	    stands in the list of its old chat, whose events it takes, and counts as
//	    one that wants the new one's edge.
//
// # Goroutines
//
// None per session. Manager.Run has one, and at most 16 short ones that sweep.
// Open blocks its caller; everything else returns at once, except Reassert,
// which the worker of a partition calls. Deliver, Advance and SetWatermark of
// a partition belong to that worker.
//
// # Lock order
//
// sweptPart.turn (held across Redis, so waited for with a context), then Index shard, then admins.mu or
// Manager.mu or the socket's lock. Nothing blocks under a shard's lock.
package session
