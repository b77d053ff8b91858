package redisx

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// round sends one pipeline of the oldest pending calls and ends those that
// were answered. From the first unanswered call of a partition on, all calls of
// it stay, to be sent again in order: a script that had to wait for a moving
// slot must not be overtaken for good by one that didn't.
func (l *lane) round() {
	l.expire()
	if len(l.pending) == 0 {
		l.strikes = 0
		return
	}
	batch := l.pending[:l.prefix()]
	worst := l.send(batch)

	keep := l.pending[:0]
	var held map[int]struct{} // partitions with a call that stays
	for i, k := range l.pending {
		_, stays := held[k.n]
		if i < len(batch) && judge(k.err) > failed && !stays {
			if held == nil {
				held = make(map[int]struct{})
			}
			held[k.n], stays = struct{}{}, true
		}
		if stays || i >= len(batch) {
			keep = append(keep, k)
		} else {
			l.end(k)
		}
	}
	l.c.counts.again.Add(len(keep) - (len(l.pending) - len(batch)))
	l.keep(keep)
	if l.broke = worst == broken; l.broke {
		l.brokeAt = time.Now()
	}
	if worst <= failed || worst == unloaded && l.loadScripts() {
		l.strikes = 0
	} else {
		l.strikes++
	}
}

// prefix is how many of the pending calls make the next pipeline, which goes to
// one node.
func (l *lane) prefix() int {
	weight := 0
	for i, k := range l.pending {
		weight += k.weight
		if i == maxCalls || i > 0 && weight > maxWeight || k.ask != l.pending[0].ask {
			return i
		}
	}
	return len(l.pending)
}

// send runs one pipeline and writes reply and err of each call. It goes to a
// node, never to the library's cluster client, which follows redirections by
// itself: it has been seen to send a call to two nodes at once.
func (l *lane) send(batch []*call) (worst verdict) {
	ctx, cancel := context.WithTimeout(context.Background(), ioTimeout)
	defer cancel()
	node, err := l.c.node(ctx, batch[0])
	if err != nil {
		for _, k := range batch {
			k.err = err
		}
		return broken
	}
	pipe := node.Pipeline()
	cmds := make([]*redis.StringCmd, len(batch))
	var version *redis.StringCmd
	wait := func() {}
	lazy := flag(time.Since(l.brokeAt) > lateAfter)
	for i, k := range batch {
		if k.lazy > 0 {
			k.args[k.lazy] = lazy
		}
		if k.ask != "" {
			_ = pipe.Process(ctx, redis.NewStatusCmd(ctx, "asking"))
		}
		cmds[i] = redis.NewStringCmd(ctx, k.args...)
		_ = pipe.Process(ctx, cmds[i]) // only queues
		if k.rev && version == nil {
			version = redis.NewStringCmd(ctx, "get", revVersionKey)
			wait = l.readVersion(ctx, pipe, version)
		}
	}
	start := time.Now()
	_, _ = pipe.Exec(ctx) // each command has its own error
	wait()
	l.c.counts.pipelines.Inc()
	l.c.counts.batch.Update(float64(len(batch)))
	l.c.counts.roundTrip.UpdateDuration(start)

	for i, k := range batch {
		k.reply, k.err = cmds[i].Result()
		k.ask = askedTo(k.err)
		if k.rev && k.err == nil {
			k.version, k.err = versionOf(version)
		}
		worst = max(worst, judge(k.err))
	}
	return worst
}

// readVersion reads the version of the revocations once for all logins of a
// pipeline, after each of them began: with it, or, where that is another
// node's, beside it; wait then returns when it is read.
func (l *lane) readVersion(ctx context.Context, pipe redis.Pipeliner, version *redis.StringCmd) (wait func()) {
	cluster, ok := l.c.rdb.(*redis.ClusterClient)
	if !ok {
		_ = pipe.Process(ctx, version)
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cluster.Process(ctx, version)
	}()
	return func() { <-done }
}

func versionOf(cmd *redis.StringCmd) (uint64, error) {
	text, err := cmd.Result()
	if errors.Is(err, redis.Nil) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	v, _ := strconv.ParseUint(text, 10, 64) // another program's words: differs from what is known, so is read again
	return v, nil
}

func (l *lane) loadScripts() bool {
	ctx, cancel := context.WithTimeout(context.Background(), ioTimeout)
	defer cancel()
	if err := l.c.load(ctx); err != nil {
		l.c.opt.Log.Warn().Err(err).Msg("scripts not loaded")
		return false
	}
	return true
}

// mend waits after a pipeline that broke until Redis answers again, or until
// the lane must end (false). Calls end meanwhile when their time is up.
//
// The pings are a barrier: what lies unread in the connection that was given
// up is executed before Redis has answered as many pings on another one as it
// takes to read it in its portions of 16 KiB. Only then are calls repeated.
func (l *lane) mend() bool {
	for l.pause(min(10*time.Millisecond<<min(l.strikes-1, 5), 200*time.Millisecond)) {
		l.take()
		l.expire()
		if len(l.pending) == 0 || l.answers(l.pending[0].n) {
			return true
		}
		l.strikes++
	}
	return false
}

// answers says whether the node of partition n does, as often as it takes.
func (l *lane) answers(n int) bool {
	ctx, cancel := context.WithTimeout(context.Background(), ioTimeout)
	defer cancel()
	l.c.relocate(ctx, l.broke)
	node, err := l.c.master(ctx, n)
	if err != nil {
		return false
	}
	pings := 1
	if l.broke {
		pings += maxWeight / 100
	}
	for range pings {
		if node.Ping(ctx).Err() != nil {
			l.broke = true
			return false
		}
	}
	return true
}
