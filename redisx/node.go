package redisx

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// eachMaster runs f for every master, in a cluster side by side.
func (c *Client) eachMaster(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	switch rdb := c.rdb.(type) {
	case *redis.ClusterClient:
		return rdb.ForEachMaster(ctx, f)
	case *redis.Client:
		return f(ctx, rdb)
	}
	return fmt.Errorf("a Redis client of type %T", c.rdb)
}

// master is the node that serves partition n.
func (c *Client) master(ctx context.Context, n int) (*redis.Client, error) {
	switch rdb := c.rdb.(type) {
	case *redis.ClusterClient:
		return rdb.MasterForKey(ctx, incKey(n))
	case *redis.Client:
		return rdb, nil
	}
	return nil, fmt.Errorf("a Redis client of type %T", c.rdb)
}

// node is where to send k: where it was told to ask, else its master.
func (c *Client) node(ctx context.Context, k *call) (*redis.Client, error) {
	if k.ask != "" {
		var found atomic.Pointer[redis.Client]
		_ = c.eachMaster(ctx, func(_ context.Context, node *redis.Client) error {
			if node.Options().Addr == k.ask {
				found.Store(node)
			}
			return nil
		})
		if node := found.Load(); node != nil {
			return node, nil
		}
		k.ask = ""
	}
	return c.master(ctx, k.n)
}

// relocate reads again which node has which slots: later and once for all
// lanes when a node is out of reach, at once after a redirection.
func (c *Client) relocate(ctx context.Context, later bool) {
	cluster, ok := c.rdb.(*redis.ClusterClient)
	switch {
	case !ok:
	case later:
		cluster.ReloadState(ctx)
	default:
		_ = cluster.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil })
	}
}
