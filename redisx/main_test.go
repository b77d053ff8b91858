package redisx

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/daisi/daisi-ws/session"
)

func TestMain(m *testing.M) {
	SetProcessDefaults(zerolog.Nop()) // dials that fail are what these tests are about
	// The library looks once a second whether the pool it dials for was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// start makes a running client, which ends with the test.
func start(t testing.TB, o Options) *Client {
	t.Helper()
	c := create(t, o)
	run(t, c)
	return c
}

func create(t testing.TB, o Options) *Client {
	t.Helper()
	setDefault(&o.Owner, "pod@boot")
	setDefault(&o.Addr, "127.0.0.1:1")
	c, err := New(o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return c
}

func run(t testing.TB, c *Client) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not end within 10 s")
		}
	})
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls for what only time brings.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// incOf asserts partition n as a pod would.
func incOf(t testing.TB, c *Client, n int) string {
	t.Helper()
	inc, _, err := c.Inc(within(t, 5*time.Second), n)
	if err != nil {
		t.Fatalf("Inc: %v", err)
	}
	return inc
}

var alice = session.Key{Company: "acme", Agent: "ag1", User: "alice"}
