package redisx

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	watchEach  = time.Second
	policyEach = 60 // watches
)

// watch notices that a master is not the one that acknowledged our writes: its
// master_replid differs. What it may have lost is unknown, so its partitions
// get new incarnations, and every pod asserts them.
//
// It looks when a connection is made, before any call can use it, and each
// second, for a node can change under living connections.
type watch struct {
	c *Client

	mu   sync.Mutex
	node []string // by partition: master_replid of its master, "" unknown
}

func newWatch(c *Client) *watch { return &watch{c: c, node: make([]string, c.opt.Partitions)} }

// onConnect is go-redis's hook for a new connection.
func (w *watch) onConnect(ctx context.Context, conn *redis.Conn) error {
	info, err := conn.Info(ctx, "replication").Result()
	if judge(err) == broken {
		return err
	}
	var mine func(int) bool
	if _, cluster := w.c.rdb.(*redis.ClusterClient); !cluster {
		mine = func(int) bool { return true }
	}
	return w.compare(ctx, conn, infoField(info, "master_replid"), infoField(info, "role"), mine)
}

// runs pipelines on one node, or on one connection to it.
type runner interface {
	Pipelined(ctx context.Context, f func(redis.Pipeliner) error) ([]redis.Cmder, error)
}

// compare makes new incarnations of partitions that are served by a node with
// this id and were served by another. mine says which the node serves; nil:
// it is asked, and denies by MOVED.
func (w *watch) compare(ctx context.Context, node runner, id, role string, mine func(n int) bool) error {
	if id == "" || role != "master" {
		return nil // no Redis of the usual kind, a sentinel, a replica
	}
	var changed []int
	w.mu.Lock()
	for n, known := range w.node {
		switch {
		case known == id || mine != nil && !mine(n):
		case known != "":
			changed = append(changed, n)
		case mine != nil:
			w.node[n] = id
		}
	}
	w.mu.Unlock()
	if len(changed) == 0 {
		return nil
	}
	cmds := make([]*redis.Cmd, len(changed))
	_, _ = node.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, n := range changed {
			old, next := "", w.nextInc()
			if known := w.c.part[n].known.Load(); known != nil {
				old = *known
			}
			cmds[i] = p.Eval(ctx, w.c.scripts.bump.body, []string{incKey(n)}, old, next)
		}
		return nil
	})
	for i, cmd := range cmds {
		now, err := cmd.Text()
		switch judge(err) {
		case answered:
			w.moved(changed[i], id, now)
		case broken:
			return err
		}
	}
	return nil
}

func (w *watch) moved(n int, id, inc string) {
	w.mu.Lock()
	w.node[n] = id
	w.mu.Unlock()
	if strings.Contains(inc, bumpMark) { // else its keys are gone, and nothing can be looked up by half
		w.c.opt.OnFailover(n, w.c.BeatAge())
	}
	if known := w.c.part[n].known.Load(); known == nil || *known != inc {
		w.c.counts.bumps.Inc()
		w.c.opt.Log.Warn().Int("partition", n).Bool("emptied", inc == "").Msg("another Redis master: new incarnation")
	}
	if inc != "" {
		w.c.learn(n, inc)
	}
}

// bumpMark is in every incarnation that a failover made, and in none of those
// that lua/head.lua makes.
const bumpMark = "."

// nextInc is an incarnation that nobody ever made: by our random number, our
// count, and the time for people.
func (w *watch) nextInc() string {
	nonce, _ := w.c.nonce.(string)
	return strconv.FormatInt(time.Now().UnixMicro(), 10) + "-" + nonce + bumpMark + strconv.FormatUint(w.c.made.Add(1), 10)
}

// run looks each second until ctx ends.
func (w *watch) run(ctx context.Context) {
	ticker := time.NewTicker(watchEach)
	defer ticker.Stop()
	for i := 0; ; i++ {
		w.look(ctx, i%policyEach == 0)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (w *watch) look(ctx context.Context, policy bool) {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	_ = w.c.eachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		info, err := node.Info(ctx, "replication").Result()
		if err != nil {
			return nil // the beat tells of it
		}
		if policy {
			w.checkPolicy(ctx, node)
		}
		return w.compare(ctx, node, infoField(info, "master_replid"), infoField(info, "role"), func(n int) bool {
			owner, err := w.c.master(ctx, n)
			return err == nil && owner == node
		})
	})
}

// checkPolicy warns of a Redis that may throw keys away: an evicted lock lets
// two sockets live, an evicted route loses events until the next sweep.
func (w *watch) checkPolicy(ctx context.Context, node *redis.Client) {
	info, err := node.Info(ctx, "memory").Result()
	if err != nil {
		return
	}
	if p := infoField(info, "maxmemory_policy"); p != "" && p != "noeviction" {
		w.c.opt.Log.Error().Str("node", node.Options().Addr).Str("maxmemory_policy", p).
			Msg("Redis may evict locks and routes: set maxmemory-policy noeviction")
	}
}

// infoField reads one line of an INFO reply.
func infoField(info, name string) string {
	for line := range strings.SplitSeq(info, "\n") {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
