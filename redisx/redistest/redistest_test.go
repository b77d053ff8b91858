package redistest

import (
	"testing"
	"time"
)

func TestServer(t *testing.T) {
	s := Start(t)
	s.Do("SET", "k", "v")

	s.Kill()
	s.Restart(true)
	if v := s.Do("GET", "k"); v != "v" {
		t.Fatalf("after a restart that keeps: k = %v, want v", v)
	}
	s.Restart(false)
	if v := s.Do("GET", "k"); v != nil {
		t.Fatalf("after a restart that empties: k = %v, want nothing", v)
	}

	s.Do("SET", "k", "v")
	s.Flush()
	if v := s.Do("EXISTS", "k"); v != int64(0) {
		t.Fatalf("after Flush: EXISTS k = %v", v)
	}

	s.Stop()
	answered := make(chan error, 1)
	go func() {
		_, err := s.p.try("PING")
		answered <- err
	}()
	select {
	case <-answered:
		t.Fatal("a stopped server answered")
	case <-time.After(50 * time.Millisecond):
	}
	s.Cont()
	if err := <-answered; err != nil {
		t.Fatalf("after Cont: %v", err)
	}
}

func TestCluster(t *testing.T) {
	c := StartCluster(t, 3)
	key := "{p7}x"
	from := c.Owner(key)
	from.Do("SET", key, "v")
	to := c.Nodes[0]
	if to == from {
		to = c.Nodes[1]
	}
	c.BeginMove(key, to)
	if n := c.MoveKeys(key, from, to, 10); n != 1 {
		t.Fatalf("moved %d keys, want 1", n)
	}
	c.EndMove(key, to)
	if c.Owner(key) != to {
		t.Fatal("the slot was moved but its owner is the old one")
	}
	if v := to.Do("GET", key); v != "v" {
		t.Fatalf("after the move: %v, want v", v)
	}
}

func TestSentinel(t *testing.T) {
	s := StartSentinel(t)
	first := s.Master()
	s.Failover()
	if s.Master() == first {
		t.Fatal("after Failover the master is the old one")
	}
}
