package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// Redis comes back empty under a steady stream of events: each partition is
// asserted while others already look events up under the new incarnation.
func TestNothingIsLostWhileRedisComesBackEmpty(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	const agents, rate = 16, 400
	var clients []*clustertest.Client
	for i := range agents {
		clients = append(clients, c.Dial(c.Pods[i%2], user("acme", fmt.Sprintf("ag%d", i), "u")))
	}
	stop := make(chan struct{})
	want := make([][]string, agents)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			a, id := n%agents, fmt.Sprintf("e%d", n)
			c.Publish(clustertest.Subject("acme", fmt.Sprintf("ag%d", a), "chats", ""), body(id))
			want[a] = append(want[a], id)
		}
	})
	for _, outage := range []time.Duration{300 * time.Millisecond, 2500 * time.Millisecond} {
		time.Sleep(300 * time.Millisecond)
		c.Redis.Kill()
		time.Sleep(outage)
		c.Redis.Restart(false)
		time.Sleep(time.Second)
	}
	close(stop)
	wg.Wait()
	for i, k := range clients {
		if !k.AwaitEvents(30*time.Second, len(want[i])) {
			t.Errorf("agent %d: %d of %d events, closed %v", i, len(k.Events()), len(want[i]), k.Closed())
			continue
		}
		wantEvents(t, fmt.Sprintf("agent %d", i), k, want[i]...)
	}
}

// A pod that lost NATS alone, and still believes to read its partitions, keeps
// nobody else from them.
func TestAPodCutFromNATSKeepsNobodyFromItsPartitions(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2, Links: true})
	var clients []*clustertest.Client
	for i := range 16 {
		clients = append(clients, c.Dial(c.Pods[1], user("acme", fmt.Sprintf("ag%d", i), "u")))
	}
	c.Pods[0].NATS.Cut()
	for i := range clients {
		c.Publish(clustertest.Subject("acme", fmt.Sprintf("ag%d", i), "chats", ""), body("one"))
	}
	for i, k := range clients {
		if !k.AwaitEvents(arrival, 1) {
			t.Errorf("agent %d has nothing", i)
		}
	}
	c.Pods[0].NATS.Mend()
	c.Eventually(30*time.Second, "the pod is ready again", c.Pods[0].Ready)
	var late *clustertest.Client
	tries := 0
	c.Eventually(arrival, "the pod has caught up", func() bool { // one that is let in before is given "one" too
		tries++
		late = c.Dial(c.Pods[0], user("acme", "ag1", fmt.Sprintf("late%d", tries)))
		return readySeq(late) >= uint64(len(clients))
	})
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("two"))
	wantEvents(t, "on the pod that was cut", late, "two")
}

// readySeq is where a session's events begin.
func readySeq(k *clustertest.Client) uint64 {
	ready, _ := k.Await(0, func(f clustertest.Frame) bool { return f.Type == "ready" })
	var p struct{ Seq uint64 }
	_ = json.Unmarshal(ready.Payload, &p)
	return p.Seq
}

// Poison as the last of a partition does not hold the watermark.
func TestPoisonDoesNotHoldTheWatermark(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), `no event`)
	c.Eventually(arrival, "no lag behind poison", func() bool { return c.Pods[0].Metrics()["dws_events_lag"] == 0 })
}

// locksLeft counts locks that are no tombstones.
func locksLeft(c *clustertest.Cluster) (live int) {
	for _, key := range c.Redis.Do("KEYS", "s:*").([]any) {
		if len(strings.Fields(c.Redis.Do("GET", key).(string))) > 2 {
			live++
		}
	}
	return live
}

// SIGTERM in the middle of a queue of logins, and with more sessions than the
// pace allows in the time: everybody is told, and no lock is left.
func TestAStopTellsEverybodyAndLeavesNoLock(t *testing.T) {
	t.Parallel()
	f := func(name string, change func(o *server.Options), users int, bound time.Duration) {
		t.Run(name, func(t *testing.T) {
			wait := bound > 0
			c := clustertest.Start(t, clustertest.Options{Options: func(_ int, o *server.Options) { change(o) }})
			var mu sync.Mutex
			var in []*clustertest.Client
			var wg sync.WaitGroup
			slots := make(chan struct{}, 100)
			for i := range users {
				wg.Go(func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					k, err := c.TryDial(c.Pods[0], user("acme", fmt.Sprintf("ag%d", i%64), fmt.Sprintf("u%d", i)))
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						in = append(in, k)
					}
				})
			}
			if wait {
				wg.Wait()
			} else {
				c.Eventually(arrival, "some logins", func() bool { mu.Lock(); defer mu.Unlock(); return len(in) > 20 })
			}
			lost, began := standstill(t), time.Now()
			c.Pods[0].Term()
			if took, stood := time.Since(began), lost(); bound > 0 && took > bound+stopRoom+stood {
				t.Errorf("took %v, of it stood still: %v; want %v", took, stood, bound)
			}
			wg.Wait()
			for i, k := range in {
				if end, ok := k.AwaitClose(arrival); !ok || end.Code != 1001 {
					t.Errorf("client %d of %d: %+v", i, len(in), end)
				}
			}
			if n := locksLeft(c); n != 0 {
				t.Errorf("%d of %d locks left", n, len(in))
			}
		})
	}
	f("in a queue of logins", func(o *server.Options) { o.Limits.LoginConcurrency = 2 }, 400, 0)
	f("at a pace too slow", func(o *server.Options) { o.Drain.Rate, o.Drain.Timeout = 20, 4*time.Second }, 200, 4*time.Second)
}

// Our stream, made with another number of partitions than this pod is told, is
// made again with its own.
func TestTheStreamKeepsItsPartitionCount(t *testing.T) {
	count := 16
	c := clustertest.Start(t, clustertest.Options{Options: func(_ int, o *server.Options) { o.NATS.Partitions = count }})
	c.Pods[0].Term()
	count = 64
	c.Pods[0].Start()
	c.AwaitWhole()
	k := c.Dial(c.Pods[0], user("acme", "ag1", "u1"), "resume=")
	c.NATS.DeleteStream(t, "dws_events")
	if _, ok := k.Await(arrival, func(f clustertest.Frame) bool { return f.Type == "gap" }); !ok {
		t.Fatalf("no gap; got %v", k.Frames())
	}
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("two"))
	wantEvents(t, "session", k, "two")
}

// Without Redis a login is refused at once, and says when to come again.
func TestLoginsWithoutRedisAreRefusedAtOnce(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	c.Redis.Stop()
	defer c.Redis.Cont()
	c.Eventually(arrival, "degraded", func() bool {
		a, err := c.Do("GET", c.Pods[0].InternalURL()+"/readyz", "")
		return err == nil && a.JSON()["status"] == "DEGRADED"
	})
	began := time.Now()
	_, err := c.TryDial(c.Pods[0], user("acme", "ag1", "u1"))
	refused, ok := err.(*clustertest.Refused)
	if !ok || refused.Status != 503 || refused.Header.Get("Retry-After") == "" || !json.Valid([]byte(refused.Body)) {
		t.Fatalf("login: %v", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("refused after %v", took)
	}
}
