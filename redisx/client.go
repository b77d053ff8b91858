package redisx

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/daisi/daisi-ws/session"
)

// Client is a pod's way to Redis. Methods may be called from any goroutine,
// also before Run: calls then wait for it. OnKill, OnResubscribe and OnBeat are
// for the time before Run only.
type Client struct {
	// Immutable after New.
	opt       Options
	rdb       redis.UniversalClient
	scripts   scripts
	counts    *counts
	part      []partition
	lanes     []*lane // logins, locks, edges: partition n has lane n mod their number
	reads     []*lane // look-ups, which must not wait behind a storm of logins
	kills     *kills
	watch     *watch
	onBeat    func([]session.Pod, uint64)
	questions questions
	deeds     deeds

	// Arguments of scripts, boxed once.
	me, nonce                                               any
	lockTTL, routeTTL, tombstoneTTL, selectedTTL, takeovers any

	beating chan struct{} // full while a beat is under way, one at a time: a late one must not undo LeaveLive

	// Written by the beat, read by anybody.
	live   atomic.Pointer[liveList]
	beatAt atomic.Int64 // sinceBoot of the last successful beat's start, 0: none yet
	lapses atomic.Uint64

	left atomic.Bool   // not on the live list any more
	made atomic.Uint64 // incarnations named by this process
}

// partition is what is the same in every call of a partition.
type partition struct {
	inc, epoch any                     // keys, boxed
	known      *atomic.Pointer[string] // incarnation last seen
	unreleased *unreleased
}

// New checks the options. It starts nothing and dials nothing.
func New(o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("redis options: %w", err)
	}
	c := &Client{
		opt: o, scripts: newScripts(), beating: make(chan struct{}, 1), counts: newCounts(o.Metrics), onBeat: func([]session.Pod, uint64) {},
		me: escape(string(o.Owner)), takeovers: strconv.Itoa(o.Takeovers), lockTTL: seconds(o.LockTTL), routeTTL: seconds(routeTTL),
		tombstoneTTL: seconds(tombstoneTTL), selectedTTL: seconds(selectedTTL),
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	c.nonce = hex.EncodeToString(random[:])
	for n := range o.Partitions {
		c.part = append(c.part, partition{inc: incKey(n), epoch: epochKey(n), known: new(atomic.Pointer[string]), unreleased: new(unreleased)})
	}
	c.watch = newWatch(c)
	if c.rdb, err = connect(o.URL, c.watch.onConnect); err != nil {
		return nil, err
	}
	setDefault(&o.Lanes, 4)
	reads := 2
	if _, cluster := c.rdb.(*redis.ClusterClient); cluster {
		o.Lanes, reads = o.Partitions, o.Partitions // a pipeline has one node
	}
	for range min(o.Lanes, o.Partitions) {
		c.lanes = append(c.lanes, newLane(c))
	}
	for range min(reads, o.Partitions) {
		c.reads = append(c.reads, newLane(c))
	}
	c.kills = newKills(c)
	c.watchGauges(o.Metrics)
	return c, nil
}

func seconds(d time.Duration) int { return int(d / time.Second) }

func (c *Client) lane(n int) *lane { return c.lanes[n%len(c.lanes)] }

// OnKill sets who is told that sessions of key below epoch must end. answer
// says that they did, and that none can come; it never blocks and may be
// called at any time, once. f must not block.
func (c *Client) OnKill(f func(key session.Key, epoch uint64, answer func())) { c.kills.onKill = f }

// OnResubscribe sets who is told that kills may have been missed, with the
// first subscription too. f must not block.
func (c *Client) OnResubscribe(f func()) { c.kills.onResubscribe = f }

// OnBeat sets who is told of each beat: the live list and the version of the
// revocations. f must not block.
func (c *Client) OnBeat(f func(live []session.Pod, revVersion uint64)) { c.onBeat = f }

// Run serves calls until ctx ends, then those that wait, for at most 2 s. It
// returns when everything it started has ended: nil after ctx, else what
// broke, and then it may be run again.
func (c *Client) Run(ctx context.Context) error {
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var tasks, lanes sync.WaitGroup
	start := func(group *sync.WaitGroup, name string, f func()) {
		group.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					stop(fmt.Errorf("%s: panic: %v\n%s", name, r, debug.Stack()))
				}
			}()
			f()
		})
	}
	for _, l := range append(append([]*lane{}, c.lanes...), c.reads...) {
		start(&lanes, "redis lane", func() { l.run(work.Done()) })
	}
	start(&tasks, "redis beat", func() { c.beat(work) })
	start(&tasks, "redis watch", func() { c.watch.run(work) })
	start(&tasks, "redis publisher", func() { c.kills.publish(work) })
	start(&tasks, "redis subscriber", func() { c.kills.subscribe(work) })
	<-work.Done()
	lanes.Wait()
	tasks.Wait()
	if ctx.Err() == nil {
		return context.Cause(work)
	}
	c.depart()
	if err := c.rdb.Close(); err != nil {
		return fmt.Errorf("close Redis connections: %w", err)
	}
	return nil
}

// stale reads a script's "S INC" answer.
func (c *Client) stale(n int, reply string) bool {
	inc, stale := staleAnswer(reply)
	if stale {
		c.learn(n, inc)
	}
	return stale
}

// learn remembers the incarnation last seen of n: it is the one to replace
// when its master is found to be another.
func (c *Client) learn(n int, inc string) {
	if p := c.part[n].known.Load(); p == nil || *p != inc {
		inc = strings.Clone(inc) // not the whole reply it is part of
		c.part[n].known.Store(&inc)
	}
}
