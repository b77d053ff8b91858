package server

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// Bounds of replays.
const (
	replayWorkers  = 8                      // at work at once, so that live events are not starved
	replayLimit    = 8192                   // begun and not over; more are refused, and come again
	replayLook     = 20 * time.Millisecond  // until a full socket is looked at again
	replayLookMax  = 500 * time.Millisecond // where it stays full
	replayAgain    = 25 * time.Millisecond  // after a failure, doubled with each
	replayTries    = 5
	replayTurn     = 16 // rounds before others have their turn
	replayYield    = time.Millisecond
	replayPatience = 30 * time.Second // for a socket that takes nothing
	sparse         = 4                // events read for one that is owed, at most
)

// replayEnv is all that replays see of the house.
type replayEnv struct {
	index      *session.Index[*loop.Conn]
	manager    *session.Manager[*loop.Conn]
	stream     replayStream
	id         func() string      // of the stream as NATS has it now
	shown      func(n int) string // of the stream that partition n counts in
	partitions int
	revoked    func(context.Context) bool // see partitionEnv
}

// replayStream is what replays ask of our events stream.
type replayStream interface {
	LastSeq(ctx context.Context) (first, last uint64, err error)
	LastOf(ctx context.Context, subjects ...string) (uint64, error)
	ReadSubject(ctx context.Context, subject string, after, upto uint64, f func([]session.Event) error) error
}

// replays works on the resumes of this pod: a few at a time, the others wait
// their turn, those whose socket is full or for which NATS or Redis has no
// answer are set aside for a moment. No goroutine, timer or channel is theirs.
type replays struct {
	// Static after newReplays.
	env      replayEnv
	limits   ResumeOptions
	budget   int // of a socket
	piece    int // bytes read at a time
	patience time.Duration
	m        *replayMetrics
	log      zerolog.Logger
	turn     chan *replay // has room for all that are admitted

	// Any goroutine.
	admitted atomic.Int64
	wake     chan struct{} // capacity 1: something was set aside

	mu    sync.Mutex
	aside []asideReplay // mu
}

// asideReplay is a replay that goes on at a later time.
type asideReplay struct {
	r  *replay
	at time.Time
}

// How a resume ended; labels of dws_resumes_total.
const (
	resumeWhole = "whole" // live, all of it was replayed
	resumeGap   = "gap"   // live, after a gap
	resumeEnded = "ended" // the session ended first, or its stream was replaced
	resumeBusy  = "busy"  // refused: too many wait
)

type replayMetrics struct {
	results map[string]*metrics.Counter
	events  *metrics.Counter
	retries *metrics.Counter
	took    *metrics.PrometheusHistogram
}

func newReplays(o Options, env replayEnv) *replays {
	p := &replays{
		env: env, limits: o.Resume, budget: o.Limits.SendBudget, piece: min(pieceBytes, o.Limits.SendBudget/4),
		patience: replayPatience, log: o.Log, turn: make(chan *replay, replayLimit), wake: make(chan struct{}, 1),
		m: &replayMetrics{
			results: map[string]*metrics.Counter{},
			events:  o.Metrics.NewCounter("dws_resume_events_total"),
			retries: o.Metrics.NewCounter("dws_resume_retries_total"),
			took:    o.Metrics.NewPrometheusHistogram("dws_resume_seconds"),
		},
	}
	for _, label := range []string{resumeWhole, resumeGap, resumeEnded, resumeBusy} {
		p.m.results[label] = o.Metrics.NewCounter(fmt.Sprintf("dws_resumes_total{result=%q}", label))
	}
	o.Metrics.NewGauge("dws_resumes_active", func() float64 { return float64(p.admitted.Load()) })
	return p
}

// admit reserves a place for one replay, false when all are taken. Who has one
// owes begin or release.
func (p *replays) admit() bool {
	if p.admitted.Add(1) > replayLimit {
		p.release()
		p.m.results[resumeBusy].Inc()
		return false
	}
	return true
}

func (p *replays) release() { p.admitted.Add(-1) }

// begin replays to c, which is in Replay, what follows point. Its commands wait
// in its mailbox until that is over. Never blocks.
func (p *replays) begin(c *client, point resumePoint) {
	p.turn <- &replay{c: c, stream: point.Stream, pos: point.Seq, began: time.Now()}
}

// over ends a replay, and lets the client's commands go on.
func (p *replays) over(r *replay, result string) time.Duration {
	p.m.results[result].Inc()
	if result == resumeWhole {
		p.m.took.Update(time.Since(r.began).Seconds())
	}
	p.release()
	r.c.resumed()
	return 0
}

func (r *replay) result() string {
	if r.told {
		return resumeGap
	}
	return resumeWhole
}

// Run works until ctx ends. What is then not over belongs to sessions that were
// drained before; after a fault of Run it goes on.
func (p *replays) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range replayWorkers {
		wg.Go(func() { p.work(ctx) })
	}
	p.recall(ctx)
	wg.Wait()
	return nil
}

func (p *replays) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-p.turn:
			if wait := p.guarded(ctx, r); wait > 0 {
				p.setAside(r, wait)
			}
		}
	}
}

// guarded makes a panic cost one session.
func (p *replays) guarded(ctx context.Context, r *replay) (wait time.Duration) {
	defer func() {
		if v := recover(); v != nil {
			p.log.Error().Str("panic", fmt.Sprint(v)).Bytes("stack", debug.Stack()).Msg("recovered from a panic in a replay")
			r.c.close(session.ReasonInternal, "")
			wait = p.over(r, resumeEnded)
		}
	}()
	return p.advance(ctx, r)
}

func (p *replays) setAside(r *replay, wait time.Duration) {
	p.mu.Lock()
	p.aside = append(p.aside, asideReplay{r, time.Now().Add(wait)})
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// recall brings back what was set aside, when its time has come.
func (p *replays) recall(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
		if wait, some := p.due(time.Now()); some {
			timer.Reset(wait)
		}
	}
}

// due gives what is due its turn, and says how long until the next one is.
func (p *replays) due(now time.Time) (wait time.Duration, some bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.aside[:0]
	for _, a := range p.aside {
		if left := a.at.Sub(now); left <= 0 {
			p.turn <- a.r // has room: it was admitted
		} else {
			kept = append(kept, a)
			if !some || left < wait {
				wait, some = left, true
			}
		}
	}
	clear(p.aside[len(kept):])
	if p.aside = kept; len(kept) == 0 {
		p.aside = nil
	}
	return wait, some
}
