package server

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"
)

// components are the parts that may be restarted, as metric labels.
var components = [...]string{
	"nats", "redis", "peers", "rpc", "loop", "sessions", "replays", "partition", "dispatch", "readers",
	"public", "internal", "certificates", "stream", "memory",
}

// Backoff between restarts of a component.
const (
	restartMin = 100 * time.Millisecond
	restartMax = 10 * time.Second
	restartOK  = time.Minute // of running well, after which the next restart is quick again
)

// component is one part that runs, with an owner who waits for it.
type component struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	end    *ending
	log    zerolog.Logger
}

// stop ends the component and waits until all of it has, but not longer than
// its part of the time there is: what hangs then is left to end by itself, or
// with the process.
func (c *component) stop() {
	c.cancel()
	patience := time.NewTimer(c.end.half())
	defer patience.Stop()
	select {
	case <-c.done:
	case <-patience.C:
		c.log.Warn().Str("component", c.name).Msg("still ending; not waited for any longer")
	}
}

// start runs f until stop is called. The context does not end with anybody
// else's: the order of stopping is that of the calls.
func (g *Gateway) start(name string, f func(context.Context) error) *component {
	ctx, cancel := context.WithCancel(context.Background())
	c := &component{name: name, cancel: cancel, done: make(chan struct{}), end: g.end, log: g.log}
	go func() {
		defer close(c.done)
		keep(ctx, g.log, g.tally, name, f)
	}()
	return c
}

// keep runs f again when it fails or panics, with growing pauses, until ctx
// ends. Each restart is logged and counted.
func keep(ctx context.Context, log zerolog.Logger, t *tally, name string, f func(context.Context) error) {
	wait := restartMin
	for ctx.Err() == nil {
		began := time.Now()
		err := guarded(ctx, f)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > restartOK {
			wait = restartMin
		}
		t.restarts[name].Inc()
		log.Error().Err(err).Str("component", name).Dur("again_in", wait).Msg("component ended; starting it again")
		if !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, restartMax)
	}
}

// guarded turns a panic of f into an error with its stack.
func guarded(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f(ctx)
}
