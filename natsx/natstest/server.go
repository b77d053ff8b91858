package natstest

import (
	"context"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/natsx/embedded"
)

// Server is a server in the test process.
type Server struct {
	Host
	// Embedded is also a nats.InProcessConnProvider.
	Embedded *embedded.Server

	// Owned by the test's goroutine.
	cancel context.CancelFunc
	ended  chan struct{}
}

// Start runs a server in the test process until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	e, err := embedded.New(embedded.Options{Addr: "127.0.0.1:0", Dir: t.TempDir()})
	if err != nil {
		t.Fatalf("cannot make a nats-server: %s", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{Host: Host{URL: e.URL()}, Embedded: e, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		if err := e.Run(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("nats-server ended: %s", err)
		}
	}()
	t.Cleanup(s.Shutdown)
	ready, done := context.WithTimeout(ctx, 20*time.Second)
	defer done()
	if err := e.Ready(ready); err != nil {
		t.Fatalf("nats-server is not ready: %s", err)
	}
	return s
}

// Shutdown ends the server, for good; Start's cleanup calls it too.
func (s *Server) Shutdown() {
	s.cancel()
	<-s.ended
}
