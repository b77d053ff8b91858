package redisx

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/daisi/daisi-ws/session"
)

var _ session.Killer = (*Client)(nil)

const (
	killWait     = 250 * time.Millisecond
	publishQueue = 8192
	publishBatch = 256
	quietLimit   = time.Second // without a message a subscription is pinged, and given up after two
)

// kills is the kill switch: what we ask of other pods, and what they ask.
type kills struct {
	c             *Client
	onKill        func(session.Key, uint64, func())
	onResubscribe func()
	out           chan letter

	mu         sync.Mutex
	subscribed bool
	last       uint64                          // id of the last request
	waiting    map[uint64]chan struct{}        // by id; closed by the answer
	silent     map[session.Owner]struct{}      // did not answer; until anything is heard of them
	heard      map[session.Owner]time.Duration // sinceBoot of the last message
}

// letter is a message on its way to the publisher.
type letter struct{ channel, text string }

func newKills(c *Client) *kills {
	return &kills{
		c: c, onKill: func(_ session.Key, _ uint64, answer func()) {}, onResubscribe: func() {},
		out:     make(chan letter, publishQueue),
		waiting: make(map[uint64]chan struct{}), silent: make(map[session.Owner]struct{}),
		heard: make(map[session.Owner]time.Duration),
	}
}

// Kill is session.Killer.Kill. The kill is sent in any case; an owner that is
// not on the live list, or that left the last one unanswered and was not heard
// of since, is not waited for at all.
func (c *Client) Kill(ctx context.Context, owner session.Owner, key session.Key, epoch, conn uint64) bool {
	k, started := c.kills, sinceBoot()
	live := c.mayLive(owner)
	id, answered, skip := k.ask(owner, live)
	k.send(owner, &message{id: id, from: c.opt.Owner, key: key, epoch: epoch, conn: conn})
	if skip != nil {
		skip.Inc()
		return false
	}
	timer := time.NewTimer(killWait)
	defer timer.Stop()
	select {
	case <-answered:
		c.counts.killAnswered.Inc()
		return true
	case <-ctx.Done():
		k.giveUp(id, owner, started, false)
	case <-timer.C:
		k.giveUp(id, owner, started, true)
	}
	c.counts.killTimeout.Inc()
	return false
}

// ask begins a request; with a counter in skip nobody waits for its answer.
func (k *kills) ask(owner session.Owner, live bool) (id uint64, answered chan struct{}, skip interface{ Inc() }) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last++
	id = k.last
	if !live {
		return id, nil, k.c.counts.killUnknown
	}
	// Without a subscription no answer can arrive, which is not its fault.
	if _, silent := k.silent[owner]; silent || !k.subscribed {
		return id, nil, k.c.counts.killSilent
	}
	answered = make(chan struct{})
	k.waiting[id] = answered
	return id, answered, nil
}

// giveUp ends the wait of id; the owner is silent unless something else of it
// was heard meanwhile.
func (k *kills) giveUp(id uint64, owner session.Owner, started time.Duration, silent bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.waiting, id)
	if silent && k.subscribed && k.heard[owner] < started {
		k.silent[owner] = struct{}{}
	}
}

// send never blocks: a lost kill costs a wait and a fence, nothing more.
func (k *kills) send(to session.Owner, m *message) {
	select {
	case k.out <- letter{killChannel(to), m.String()}:
	default:
		k.c.counts.killDropped.Inc()
	}
}

// take handles one message of our channel.
func (k *kills) take(text string) {
	m, err := parseMessage(text)
	if err != nil {
		k.c.counts.killGarbage.Inc()
		return
	}
	k.mu.Lock()
	delete(k.silent, m.from)
	k.heard[m.from] = sinceBoot()
	if m.answer {
		if answered, ok := k.waiting[m.id]; ok {
			close(answered)
			delete(k.waiting, m.id)
		}
	}
	k.mu.Unlock()
	if !m.answer {
		k.onKill(m.key, m.epoch, func() {
			k.send(m.from, &message{answer: true, id: m.id, from: k.c.opt.Owner})
		})
	}
}

// forget drops what is known of owners that are not on the live list, for
// every restart of a pod is another owner.
func (k *kills) forget(live map[session.Owner]struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for o := range k.heard {
		if _, ok := live[o]; !ok {
			delete(k.heard, o)
		}
	}
	for o := range k.silent {
		if _, ok := live[o]; !ok {
			delete(k.silent, o)
		}
	}
}

// publish sends what is queued, joined, until ctx ends. What can't be sent now
// is dropped: nobody waits for it longer than killWait.
func (k *kills) publish(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-k.out:
			k.sendAll(ctx, first)
		}
	}
}

func (k *kills) sendAll(ctx context.Context, first letter) {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	pipe := k.c.rdb.Pipeline()
	pipe.Publish(ctx, first.channel, first.text)
	n := 1
	for more := true; more && n < publishBatch; {
		select {
		case l := <-k.out:
			pipe.Publish(ctx, l.channel, l.text)
			n++
		default:
			more = false
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		k.c.counts.killDropped.Add(n)
	}
}

// subscribe keeps our channel subscribed until ctx ends.
func (k *kills) subscribe(ctx context.Context) {
	for ctx.Err() == nil {
		sub := k.c.rdb.Subscribe(ctx, killChannel(k.c.opt.Owner))
		// The library doesn't look at ctx while it reads.
		unhook := context.AfterFunc(ctx, func() { _ = sub.Close() })
		k.receive(ctx, sub)
		unhook()
		k.setSubscribed(false)
		_ = sub.Close()
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// receive returns when the subscription must be made again. It uses no
// background goroutine of the library, which would drop messages silently and
// hide when a connection was replaced.
func (k *kills) receive(ctx context.Context, sub *redis.PubSub) {
	quiet := 0
	for {
		got, err := sub.ReceiveTimeout(ctx, quietLimit)
		if err != nil {
			if quiet++; quiet > 1 || ctx.Err() != nil || !isTimeout(err) || sub.Ping(ctx) != nil {
				return
			}
			continue
		}
		quiet = 0
		switch got := got.(type) {
		case *redis.Subscription:
			k.setSubscribed(true)
			k.c.counts.subscriptions.Inc()
			k.onResubscribe()
		case *redis.Message:
			k.take(got.Payload)
		}
	}
}

func (k *kills) setSubscribed(is bool) {
	k.mu.Lock()
	k.subscribed = is
	k.mu.Unlock()
}
