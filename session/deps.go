package session

import (
	"context"
	"errors"
	"time"
)

// Socket is all that this package needs of a connection.
type Socket interface {
	comparable
	// Close ends the socket with a WebSocket close frame after what is
	// queued. It never blocks, may come more than once, and may come before
	// the socket was adopted.
	Close(code uint16, reason string)
	// CloseThen is Close that calls sent, once and without blocking, when the
	// close frame is with the kernel, or at once where that can't be waited for.
	CloseThen(code uint16, reason string, sent func())
}

// ErrBusy says that a bounded queue to Redis is full: nothing was changed.
var ErrBusy = errors.New("redis queue full")

// Held is a lock as this pod believes to hold it.
type Held struct {
	Key   Key
	Conn  uint64
	Epoch uint64 // 0: unknown yet
	Chat  string // selected chat, kept alive with the lock
	Fresh bool   // verified less than 200 s ago
	// KeepChat leaves the remembered chat alone.
	KeepChat bool
}

// Lock is a lock as Redis has it.
type Lock struct {
	Owner   Owner
	Conn    uint64
	Epoch   uint64
	Settled bool
}

// Verdict is how a script answered.
type Verdict uint8

// Script answers.
const (
	OK      Verdict = iota
	Stale           // inc differs: assert the partition, then call again
	Lost            // the lock is somebody else's, or gone
	Taken           // reject mode: a live session holds it
	Limited         // taken over too often lately
)

// Acquired answers Acquire.
type Acquired struct {
	Verdict    Verdict
	Epoch      uint64
	Prev       *Lock         // former owner whose end must be confirmed, or, with Taken, the holder
	Again      time.Duration // Limited: until it may be
	Chat       string        // selected chat of an earlier session
	RevVersion uint64        // version of the revocation set
}

// Opened answers Open.
type Opened struct {
	Verdict Verdict
	Higher  bool // Lost: an equal or higher epoch stands there
}

// Reasserted answers Reassert for one Held.
type Reasserted struct {
	Verdict Verdict
	Prev    *Lock // OK: a live lower lock that was overwritten; kill it, then Open with a fence
	// Unconfirmed, of a Lost: nothing is known to outrank it, but somebody
	// logged in while it was not fresh. It ends with 1013 instead of 4402.
	Unconfirmed bool
}

// Locks keeps session locks in Redis; redisx implements it. All calls are
// repeatable: an error is an unknown outcome, so call again. Calls that wait look
// at ctx.Err about once a second, besides at ctx.Done.
type Locks interface {
	// Acquire takes the lock; with reject it leaves a live holder other than
	// the one with epoch expect alone.
	Acquire(ctx context.Context, n int, inc string, key Key, conn uint64, reject bool, expect uint64) (Acquired, error)
	// Open settles the lock and joins the session's routes, writing a fence
	// when told.
	Open(ctx context.Context, n int, inc string, h Held, fence bool) (Opened, error)
	// Release gives the lock back, leaving a tombstone. Never blocks. One that
	// can't be queued or made is kept, within bounds, until the next JoinAll
	// of n; beyond them it is dropped and counted, for it expires.
	Release(n int, key Key, conn uint64)
}

// Renewer re-asserts locks and routes; redisx implements it.
type Renewer interface {
	// Inc returns the incarnation of n, made when missing, and the last
	// epoch issued in n.
	Inc(ctx context.Context, n int) (inc string, seen uint64, err error)
	// Reassert answers per Held, in order; stale says that inc differs. A chat
	// that is remembered already is not overwritten: a selection may have gone
	// past the caller's.
	Reassert(ctx context.Context, n int, inc string, seen uint64, held []Held) (answers []Reasserted, stale bool, err error)
	// JoinAll writes all routes of n again.
	JoinAll(ctx context.Context, n int, inc string, wants []Want) (stale bool, err error)
}

// Routes tells Redis what this pod wants; redisx implements it. Changes of one
// partition take effect in the order of the calls. Both never block and may be
// called with a shard's lock held; done runs on another goroutine, once.
type Routes interface {
	// Leave takes a route back. Dropped when the queue is full: it expires.
	Leave(n int, w Want)
	// Join joins w and remembers h's chat as the selected one of its key
	// ("" forgets it). ErrBusy: nothing will happen, done is not called.
	Join(n int, inc string, w *Want, h Held, done func(Verdict, error)) error
	// Room says whether a Join would be taken now.
	Room(n int) bool
}

// Killer reaches the pod that holds an older session; redisx implements it.
type Killer interface {
	// Kill asks owner to end sessions of key below epoch, and waits at most
	// 250 ms (not at all for an owner known to be silent). True: it answered,
	// so no socket of key below epoch is, or can come, into its index.
	Kill(ctx context.Context, owner Owner, key Key, epoch, conn uint64) bool
}

// Partitions is the delivery side of a partition; server implements it.
type Partitions interface {
	// Assert makes n agree with Redis again: incarnation, locks, routes. It
	// returns when that was done after the call, or ctx ended.
	Assert(ctx context.Context, n int) error
	// Inc is the incarnation under which n was asserted, "" if none is.
	Inc(n int) string
}

// TokenCache shares verified claims between pods; redisx implements it. hash is
// the sha256 in hex that the key is named by. Errors are only counted: the
// token is then decrypted.
type TokenCache interface {
	TokenGet(ctx context.Context, hash string) (claims []byte, ok bool, err error)
	TokenSet(ctx context.Context, hash string, claims []byte, ttl time.Duration) error
}
