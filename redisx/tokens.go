package redisx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/daisi/daisi-ws/session"
)

var _ session.TokenCache = (*Client)(nil)

// TokenGet is session.TokenCache.TokenGet.
func (c *Client) TokenGet(ctx context.Context, hash string) (claims []byte, ok bool, err error) {
	claims, err = c.rdb.Get(ctx, tokenKey(hash)).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("read cached token: %w", err)
	}
	return claims, true, nil
}

// TokenSet is session.TokenCache.TokenSet. A ttl below a millisecond writes
// nothing.
func (c *Client) TokenSet(ctx context.Context, hash string, claims []byte, ttl time.Duration) error {
	if ttl < time.Millisecond {
		return nil
	}
	if err := c.rdb.Set(ctx, tokenKey(hash), claims, ttl).Err(); err != nil {
		return fmt.Errorf("cache token: %w", err)
	}
	return nil
}
