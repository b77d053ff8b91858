package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// contest is many logins of one user at once, on all pods, again and again. It
// judges by events alone: who gets the next one, and whether anybody gets one
// that was stored after a later login's ready.
type contest struct {
	c        *clustertest.Cluster
	t        *testing.T
	events   *nats.Conn
	logins   int
	patience time.Duration // for what must come
	spread   time.Duration // every other round's logins come within it, the others' at once

	in []*contender // of the round before

	mu     sync.Mutex
	result contested // mu
}

// contested is what a contest came to. All but the first three must be nothing.
type contested struct {
	Rounds, Ready, Refused int

	Nobody  int            // rounds whose event nobody got
	Several int            // rounds whose event more than one got
	Outdone int            // rounds whose event went to another than the highest epoch
	S1      int            // events that a socket got though they were stored after a higher epoch's ready
	Stayed  int            // outranked sockets that were not ended
	Odd     map[string]int // refusals and ends other than by a later login
}

// broken says whether a promise was.
func (r *contested) broken() bool {
	return r.Nobody+r.Several+r.Outdone+r.S1+r.Stayed+len(r.Odd) > 0
}

// contender is a socket that was ready.
type contender struct {
	*clustertest.Client
	epoch uint64
}

// news is the body of an event of a contest.
type news struct {
	Epoch uint64 `json:"epoch"` // published when the socket with it had read its ready; 0: none
	Round int    `json:"round"` // published when all logins of the round were over; 0: before
}

// startContest has three pods with links, and no limit of takeovers.
func startContest(t *testing.T) *clustertest.Cluster {
	t.Helper()
	return clustertest.Start(t, clustertest.Options{Pods: 3, Links: true, Options: func(_ int, o *server.Options) {
		o.Session.Takeovers = 1 << 30
	}})
}

func newContest(t *testing.T, c *clustertest.Cluster) *contest {
	t.Helper()
	return &contest{c: c, t: t, events: c.NATS.Conn(t), logins: contestLogins, patience: arrival, spread: 50 * time.Millisecond}
}

// run holds some rounds.
func (x *contest) run(rounds int) contested {
	x.t.Helper()
	x.result.Odd = map[string]int{}
	began := time.Now()
	for range rounds {
		x.result.Rounds++
		x.round(x.result.Rounds)
	}
	for _, k := range x.in {
		k.Close()
	}
	r := x.result
	x.in, x.result = nil, contested{}
	x.t.Logf("%d logins at once, %v: %+v", x.logins, time.Since(began).Round(time.Millisecond), r)
	return r
}

func (x *contest) round(n int) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	socks := make([]*contender, x.logins)
	for i := range socks {
		wg.Go(func() {
			<-start
			if n%2 == 0 {
				time.Sleep(rand.N(x.spread))
			}
			socks[i] = x.login(x.c.Pods[i%len(x.c.Pods)], "contested")
		})
	}
	close(start)
	wg.Wait()
	all := x.in
	for _, k := range socks {
		if k != nil {
			all = append(all, k)
		}
	}
	x.publish(news{Round: n})
	x.judge(n, all)
}

// login logs in, and publishes a probe once it is ready: of all
// sockets with a lower epoch none may be given it.
func (x *contest) login(p *clustertest.Pod, name string) *contender {
	k, err := x.c.TryDial(p, user("acme", "ag1", name))
	if err != nil {
		x.refused(err)
		return nil
	}
	var ready struct{ Epoch uint64 }
	if err := json.Unmarshal(k.Frames()[0].Payload, &ready); err != nil || ready.Epoch == 0 {
		x.t.Errorf("ready %s: %v", k.Frames()[0].Payload, err)
	}
	x.publish(news{Epoch: ready.Epoch})
	x.mu.Lock()
	defer x.mu.Unlock()
	x.result.Ready++
	return &contender{k, ready.Epoch}
}

// refused counts a login that a later one overtook, or that failed otherwise.
func (x *contest) refused(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.result.Refused++
	var r *clustertest.Refused
	if !errors.As(err, &r) || r.Status != 409 {
		x.result.Odd[err.Error()]++
	}
}

// publish returns when the event is stored.
func (x *contest) publish(n news) {
	b, _ := json.Marshal(n)
	answer, err := x.events.Request(clustertest.Subject("acme", "ag1", "chats", ""), b, x.patience)
	var stored struct{ Seq uint64 }
	if err != nil || json.Unmarshal(answer.Data, &stored) != nil || stored.Seq == 0 {
		x.t.Errorf("publish %s: %v %v", b, answer, err)
	}
}

// judge waits until one socket has the round's event and all below it have
// ended, and looks at what each was given.
func (x *contest) judge(n int, all []*contender) {
	r := &x.result
	highest := uint64(0)
	for _, k := range all {
		highest = max(highest, k.epoch)
	}
	x.in = nil
	winners := 0
	for _, k := range all { // the highest first, for the others may be ended by what it is given
		if k.epoch == highest {
			x.takes(k, n)
		}
	}
	for _, k := range all {
		if k.epoch != highest {
			x.ends(k)
		}
	}
	for _, k := range all {
		won := false
		for _, e := range k.Events() {
			var got news
			_ = json.Unmarshal(e.Payload, &got)
			if got.Epoch > k.epoch {
				r.S1++
			}
			won = won || got.Round == n
		}
		if won {
			winners++
			if k.epoch != highest {
				r.Outdone++
			}
		}
		if k.Closed() == nil {
			x.in = append(x.in, k)
		}
	}
	switch {
	case winners == 0:
		r.Nobody++
	case winners > 1:
		r.Several++
	}
}

// takes waits for the round's event.
func (x *contest) takes(k *contender, n int) {
	k.Await(x.patience, func(f clustertest.Frame) bool {
		var got news
		_ = json.Unmarshal(f.Payload, &got)
		return f.Type == "event" && got.Round == n
	})
}

// ends waits for the end of a socket that was outranked.
func (x *contest) ends(k *contender) {
	end, ok := k.AwaitClose(x.patience)
	switch {
	case !ok:
		x.result.Stayed++
	case end.Code != 4402:
		x.result.Odd[fmt.Sprintf("closed %d %s", end.Code, end.Reason)]++
	}
}

// One user logs in many times at once, on three pods: whatever the order, one
// socket gets the next event, the one with the highest epoch; no other gets
// anything stored after a later one's ready. Also when Redis is slow and its
// answers come in any order. What the judge is worth: with two users, it says so.
func TestProveSimultaneousLogins(t *testing.T) {
	waits(t)
	c := startContest(t)
	x := newContest(t, c)
	if r := x.run(contestRounds); r.broken() {
		t.Errorf("broken: %+v", r)
	}
	for _, p := range c.Pods {
		p.Redis.Slow(50*time.Millisecond, 50*time.Millisecond)
	}
	x.spread = contestSpread
	if r := x.run(contestRounds); r.broken() {
		t.Errorf("broken while Redis is slow: %+v", r)
	}
	for _, p := range c.Pods {
		p.Redis.Slow(0, 0)
		p.Check()
	}
	x.patience, x.logins = time.Second, 3
	x.in = []*contender{x.login(c.Pods[0], "stranger")}
	if r := x.run(2); r.Several != 2 || r.Outdone != 2 || r.Stayed != 2 || r.S1 < 2 {
		t.Errorf("control: two users that are taken for one: %+v", r)
	}
}
