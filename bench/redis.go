package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// RedisInfo is what Redis says of itself; all zero when it is not asked.
type RedisInfo struct {
	Memory   int64   `json:"memory"`   // bytes it uses
	RSS      int64   `json:"rss"`      // bytes of its process
	Commands int64   `json:"commands"` // since its start
	CPU      float64 `json:"cpu"`      // seconds, since its start
	Keys     int64   `json:"keys"`
}

// RedisReader looks at the gateway's Redis from outside, to compare with what
// the gateway says. One server, no cluster.
type RedisReader struct {
	client *redis.Client // nil: nothing is read
}

// NewRedisReader reads from this URL; "": it reads nothing.
func NewRedisReader(url string) (*RedisReader, error) {
	if url == "" {
		return &RedisReader{}, nil
	}
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("read URL of Redis: %w", err)
	}
	return &RedisReader{client: redis.NewClient(o)}, nil
}

// Close ends its connections.
func (r *RedisReader) Close() {
	if r.client != nil {
		_ = r.client.Close() // nothing was written
	}
}

// Info asks for the figures.
func (r *RedisReader) Info(ctx context.Context) (i RedisInfo, err error) {
	if r.client == nil {
		return i, nil
	}
	text, err := r.client.Info(ctx).Result()
	if err != nil {
		return i, fmt.Errorf("ask Redis: %w", err)
	}
	var user, sys float64
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "used_memory":
			i.Memory = atoi(value)
		case "used_memory_rss":
			i.RSS = atoi(value)
		case "total_commands_processed":
			i.Commands = atoi(value)
		case "used_cpu_user":
			user = atof(value)
		case "used_cpu_sys":
			sys = atof(value)
		}
	}
	i.CPU = user + sys
	i.Keys, err = r.client.DBSize(ctx).Result()
	return i, err
}

// scanPage is how many keys one step of a scan looks at.
const scanPage = 5000

// errNoRedis says that there is nothing to look at.
var errNoRedis = errors.New("no Redis to look at (-redis)")

// Locks counts the session locks of companies whose id begins so, by SCAN; what
// released locks leave behind is none.
func (r *RedisReader) Locks(ctx context.Context, company string) (n int64, err error) {
	if r.client == nil {
		return 0, errNoRedis
	}
	seen := make(map[string]struct{}) // a scan may give a key twice while Redis grows or shrinks its table
	var cursor uint64
	for {
		keys, next, err := r.client.Scan(ctx, cursor, "s:{p*}:"+company+"*", scanPage).Result()
		if err != nil {
			return n, fmt.Errorf("scan locks: %w", err)
		}
		if len(keys) > 0 {
			values, err := r.client.MGet(ctx, keys...).Result()
			if err != nil {
				return n, fmt.Errorf("read locks: %w", err)
			}
			for i, v := range values {
				// A tombstone is a version and an epoch, nothing else.
				if s, ok := v.(string); ok && strings.Count(s, " ") > 1 {
					seen[keys[i]] = struct{}{}
				}
			}
		}
		if cursor = next; cursor == 0 {
			return int64(len(seen)), nil
		}
	}
}
