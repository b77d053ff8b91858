package redisx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/daisi/daisi-ws/redisx/redistest"
	"github.com/daisi/daisi-ws/session"
)

func TestQueue(t *testing.T) {
	s := redistest.Start(t)
	c := create(t, Options{URL: s.URL, Queue: 3, Lanes: 1})
	w := session.Want{Company: "acme", Agent: "ag1"}
	results := make(chan error, 8)
	done := func(_ session.Verdict, err error) { results <- err }
	for i := range 3 {
		if !c.Room(part) {
			t.Fatalf("no room after %d of 3", i)
		}
		if err := c.Join(part, "any", &w, session.Held{}, done); err != nil {
			t.Fatalf("join %d of 3: %v", i, err)
		}
	}
	if c.Room(part) {
		t.Error("room in a full queue")
	}
	if err := c.Join(part, "any", &w, session.Held{}, done); !errors.Is(err, session.ErrBusy) {
		t.Errorf("join into a full queue: %v, want ErrBusy", err)
	}
	c.Leave(part, w)
	c.Release(part, alice, 1)
	if _, err := c.Acquire(context.Background(), part, "any", alice, 1, false, 0); !errors.Is(err, session.ErrBusy) {
		t.Errorf("acquire with a full queue: %v, want ErrBusy", err)
	}
	if c.counts.busy.Get() != 4 || c.counts.droppedEdge.Get() != 1 || c.counts.droppedLock.Get() != 0 || len(c.part[part].unreleased.locks) != 1 {
		t.Errorf("counted %d busy, %d leaves, %d releases", c.counts.busy.Get(), c.counts.droppedEdge.Get(), c.counts.droppedLock.Get())
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	for range 3 {
		if err := <-results; err != nil {
			t.Errorf("a join that had waited for Run: %v", err)
		}
	}
	eventually(t, "room", func() bool { return c.Room(part) })

	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := c.Join(part, "any", &w, session.Held{}, done); !errors.Is(err, ErrClosed) {
		t.Errorf("join after Run: %v, want ErrClosed", err)
	}
	if c.Room(part) {
		t.Error("room after Run")
	}
	if len(results) > 0 {
		t.Error("a refused join was done, too")
	}
}

// What was queued before the end is sent; what can't be sent fails in time.
func TestEnd(t *testing.T) {
	s := redistest.Start(t)
	for _, stopped := range []bool{false, true} {
		c := create(t, Options{URL: s.URL, Owner: session.Owner(fmt.Sprint("pod@", stopped))})
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		inc := incOf(t, c, part)
		if stopped {
			s.Stop()
		}
		const joins = 1000
		results := make(chan error, joins)
		for i := range joins {
			w := session.Want{Company: "acme", Agent: fmt.Sprint(i)}
			if err := c.Join(i%64, inc, &w, session.Held{}, func(_ session.Verdict, err error) { results <- err }); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		stop()
		select {
		case <-ended:
		case <-time.After(3 * patience):
			t.Fatal("Run does not end")
		}
		if took := time.Since(begin); !stopped && took > patience {
			t.Errorf("the end of a healthy client took %v", took)
		}
		if len(results) != joins {
			t.Errorf("stopped %v: %d of %d calls were done when Run had ended", stopped, len(results), joins)
		}
		for range len(results) {
			if err := <-results; (err != nil) != stopped {
				t.Errorf("stopped %v: %v", stopped, err)
			}
		}
	}
	s.Cont()
}

// Callbacks that panic end Run with an error; other callers are not left
// waiting, and nobody is told twice.
func TestPanic(t *testing.T) {
	s := redistest.Start(t)
	c := create(t, Options{URL: s.URL, Lanes: 1})
	w := session.Want{Company: "acme", Agent: "ag1"}
	var told atomic.Int64
	for i := range 10 {
		err := c.Join(part, "any", &w, session.Held{}, func(session.Verdict, error) {
			told.Add(1)
			if i%3 == 1 {
				panic("planted")
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	waits := make(chan error, 1)
	go func() {
		_, _, err := c.Inc(context.Background(), part)
		waits <- err
	}()
	eventually(t, "a blocking call in the queue", func() bool { return c.lane(part).len() == 11 })
	select {
	case err := <-runs(c):
		if err == nil || !strings.Contains(err.Error(), "planted") {
			t.Errorf("Run: %v, want the panic", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
	if err := <-waits; !errors.Is(err, ErrClosed) {
		t.Errorf("the blocking call: %v, want ErrClosed", err)
	}
	if told.Load() != 10 {
		t.Errorf("%d callbacks of 10", told.Load())
	}
	if _, _, err := c.Inc(context.Background(), part); !errors.Is(err, ErrClosed) {
		t.Errorf("Inc afterwards: %v, want ErrClosed", err)
	}
}

func runs(c *Client) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.Background()) }()
	return ended
}

type replyError string

func (e replyError) Error() string { return string(e) }
func (replyError) RedisError()     {}

func TestJudge(t *testing.T) {
	f := func(err error, want verdict) {
		t.Helper()
		if got := judge(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
	f(nil, answered)
	f(io.EOF, broken)
	f(context.DeadlineExceeded, broken)
	f(fmt.Errorf("read: %w", io.ErrUnexpectedEOF), broken)
	f(redis.Nil, failed)
	f(replyError("NOSCRIPT No matching script"), unloaded)
	f(replyError("ERR DWSVERSION lock of an unknown version"), failed)
	f(replyError("WRONGTYPE Operation against a key"), failed)
	for _, text := range []string{
		"TRYAGAIN Multiple keys", "MOVED 3999 127.0.0.1:6381", "ASK 3999 127.0.0.1:6381", "CLUSTERDOWN Hash slot not served",
		"LOADING Redis is loading", "READONLY You can't write", "MASTERDOWN Link", "NOREPLICAS Not enough", "BUSY Redis is busy",
	} {
		f(replyError(text), again)
	}
	if addr := askedTo(replyError("ASK 3999 127.0.0.1:6381")); addr != "127.0.0.1:6381" {
		t.Errorf("asked to %q", addr)
	}
	if addr := askedTo(replyError("MOVED 3999 127.0.0.1:6381")); addr != "" {
		t.Errorf("moved, not asked: %q", addr)
	}
}
