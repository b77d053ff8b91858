package main

import (
	"context"
	"fmt"

	natsembedded "github.com/daisi/daisi-ws/natsx/embedded"
	redisembedded "github.com/daisi/daisi-ws/redisx/embedded"
	"github.com/daisi/daisi-ws/server"
)

// embed makes the servers that o has no URL for, and points o at them. They
// run when the returned functions do.
func embed(o *server.Options) ([]func(context.Context) error, error) {
	var parts []func(context.Context) error
	if o.Redis.URL == "" {
		s, err := redisembedded.Listen("127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("embed Redis: %w", err)
		}
		o.Redis.URL = s.URL
		parts = append(parts, s.Run)
	}
	if o.NATS.URL == "" {
		// The largest event, and its headers.
		s, err := natsembedded.New(natsembedded.Options{MaxPayload: max(8<<20, o.Limits.MaxEvent+64<<10)})
		if err != nil {
			return nil, fmt.Errorf("embed NATS: %w", err)
		}
		// The URL is what a publisher is told; we go through memory.
		o.NATS.URL, o.NATS.InProcess = s.URL(), s
		parts = append(parts, s.Run)
	}
	return parts, nil
}
