package embedded

import (
	"context"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// tick is how often keys grow older: miniredis never does it by itself.
const tick = time.Second

// Server is an in-process Redis.
type Server struct {
	// URL is what redisx.Options.URL takes.
	URL string

	redis *miniredis.Miniredis
}

// Listen starts to answer on addr, such as "127.0.0.1:0": clients may be built
// from URL at once. Whoever called it calls Run, which ends it.
func Listen(addr string) (*Server, error) {
	m := miniredis.NewMiniRedis()
	if err := m.StartAddr(addr); err != nil {
		return nil, fmt.Errorf("start embedded redis on %s: %w", addr, err)
	}
	return &Server{URL: "redis://" + m.Addr() + "/0", redis: m}, nil
}

// Run lets keys expire until ctx ends, then closes the server. It returns nil.
func (s *Server) Run(ctx context.Context) error {
	defer s.redis.Close()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			s.redis.FastForward(now.Sub(last))
			last = now
		}
	}
}
