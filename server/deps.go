package server

import (
	"context"
	"time"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// edgeEnv is all that the edge sees of the house.
type edgeEnv struct {
	owner  session.Owner
	engine *loop.Engine
	users  *session.Verifier
	admins *session.Verifier // nil: no admin tokens
	status func() Status
	// core is nil until NATS has said how many partitions there are; until
	// then every login is refused.
	core func() *edgeCore
	// publish puts a message into the publisher's stream; for the demo page.
	publish func(ctx context.Context, subject string, body []byte) error
	// drain begins an orderly stop of the whole gateway. Never blocks.
	drain func()
	// ending bounds a step of that stop that would wait for own at most.
	ending func(own time.Duration) time.Duration
	// check looks for what must never be, and says what it found.
	check func(ctx context.Context) []string
	// pods is the live list, ourselves included.
	pods func() []session.Pod
	// poison is the latest messages that were no events.
	poison func() []natsx.Poison
}

// edgeCore is what exists once the partition count is known.
type edgeCore struct {
	manager    *session.Manager[*loop.Conn]
	index      *session.Index[*loop.Conn]
	replays    *replays
	partitions int
	stream     func(n int) string // id of the stream that partition n counts in
	// last is the leader's last seq of our events stream.
	last    func(ctx context.Context) (uint64, error)
	revoker revocationAdmin
	// late says why no login can be served now, "" if it can.
	late func() string
}

// revocationAdmin changes the set of revocations for the whole cluster.
type revocationAdmin interface {
	// Revoke returns when r is in Redis and in force on this pod; closed says
	// how many sessions here that ended, and all that other revocations ended
	// meanwhile. redisx.ErrFull: there is no room.
	Revoke(ctx context.Context, r session.Revocation) (closed int, err error)
	// Lift takes one back; false: there was none.
	Lift(ctx context.Context, r session.Revoked) (bool, error)
}

// States of a Status.
const (
	StateReady    = "READY"
	StateDegraded = "DEGRADED" // serves, though something is missing
	StateNotReady = "NOT_READY"
)

// Status is how the gateway is, without any I/O to find out.
type Status struct {
	State        string            `json:"status"`
	Dependencies map[string]string `json:"dependencies"` // name: "ok", or what is wrong
	// Dead says what only a restart can mend; it fails the liveness probe.
	Dead string `json:"-"`
}
