package redisx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/daisi/daisi-ws/session"
)

// leavingMark stands behind the entry of a pod that drains.
const leavingMark = "|-"

// liveList is one answer of beat. Immutable.
type liveList struct {
	pods       []session.Pod
	owners     map[session.Owner]struct{}
	revVersion uint64
}

// beat renews our place on the live list and reads the list, until ctx ends.
func (c *Client) beat(ctx context.Context) {
	ticker := time.NewTicker(c.opt.Beat)
	defer ticker.Stop()
	for {
		if err := c.beatOnce(ctx); err != nil && ctx.Err() == nil {
			c.counts.beatsFailed.Inc()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *Client) beatOnce(ctx context.Context) error {
	select {
	case c.beating <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("beat: %w", ctx.Err())
	}
	defer func() { <-c.beating }()
	member := escape(string(c.opt.Owner)) + "|" + c.opt.Addr
	former := member + leavingMark
	if c.left.Load() {
		member, former = former, member
	}
	// The age of a beat counts from before it was sent: Redis can't have
	// written it earlier.
	start := sinceBoot()
	reply, err := c.plain(ctx, c.scripts.beat, []string{podsKey, revVersionKey},
		member, c.opt.LeaseTTL.Milliseconds(), former)
	if err != nil {
		return fmt.Errorf("beat: %w", err)
	}
	list := readLive(reply)
	c.live.Store(list)
	if before := c.beatAt.Load(); before != 0 && start-time.Duration(before) >= c.opt.LeaseTTL {
		c.lapses.Add(1) // before the beat is seen: see Beat
	}
	c.beatAt.Store(int64(start))
	c.counts.beats.Inc()
	c.kills.forget(list.owners)
	c.onBeat(list.pods, list.revVersion)
	return nil
}

func readLive(reply string) *liveList {
	version, rest, _ := strings.Cut(reply, "\n")
	list := &liveList{owners: make(map[session.Owner]struct{})}
	list.revVersion, _ = strconv.ParseUint(version, 10, 64)
	for line := range strings.SplitSeq(rest, "\n") {
		line, leaving := strings.CutSuffix(line, leavingMark)
		i := strings.LastIndexByte(line, '|')
		if i < 0 {
			continue // not written by us
		}
		pod := session.Pod{Owner: session.Owner(unescape(line[:i])), Addr: line[i+1:], Leaving: leaving}
		list.pods = append(list.pods, pod)
		list.owners[pod.Owner] = struct{}{}
	}
	return list
}

// Live is the live list as of the last beat, ourselves included, in the order
// of the leases; not to be changed by the caller. Empty before the first beat.
func (c *Client) Live() []session.Pod {
	if list := c.live.Load(); list != nil {
		return list.pods
	}
	return nil
}

// RevVersion is the version of the revocations as of the last beat.
func (c *Client) RevVersion() uint64 {
	if list := c.live.Load(); list != nil {
		return list.revVersion
	}
	return 0
}

// BeatAge is how long ago the last successful beat began, by a clock that also
// runs while the machine sleeps. Before the first it is longer than any lease.
func (c *Client) BeatAge() time.Duration {
	at := c.beatAt.Load()
	if at == 0 {
		return 24 * time.Hour
	}
	return sinceBoot() - time.Duration(at)
}

// Beat is the age of the last beat, and how often there was none for a whole
// lease, so that others may have taken this pod for dead: what was agreed with Redis
// before a lapse must be agreed again.
func (c *Client) Beat() (age time.Duration, lapses uint64) {
	// Age first: whoever sees the beat that ended a lapse sees the lapse, too.
	age = c.BeatAge()
	return age, c.lapses.Load()
}

// Healthy says what is wrong with the way to Redis, nil when nothing is. It
// does no I/O.
func (c *Client) Healthy() error {
	if age := c.BeatAge(); age > c.opt.LeaseTTL {
		if c.beatAt.Load() == 0 {
			return errors.New("redis: no beat yet")
		}
		return fmt.Errorf("redis: no beat for %v", age.Truncate(time.Second))
	}
	return nil
}

// LeaveLive marks this pod on the live list as leaving, for good: it reads no
// partition any more, but is sent events until its sessions have gone. On an
// error the beats go on trying; the end of Run takes the pod off the list.
func (c *Client) LeaveLive(ctx context.Context) error {
	c.left.Store(true)
	return c.beatOnce(ctx)
}

// depart takes this pod off the live list; nobody needs to wait for the lease.
func (c *Client) depart() {
	ctx, cancel := context.WithTimeout(context.Background(), ioTimeout)
	defer cancel()
	member := escape(string(c.opt.Owner)) + "|" + c.opt.Addr
	_, _ = c.plain(ctx, c.scripts.beat, []string{podsKey, revVersionKey}, member, 0, member+leavingMark)
}

// mayLive says whether owner can be alive for all we know. Without a fresh list
// everybody may be.
func (c *Client) mayLive(owner session.Owner) bool {
	list := c.live.Load()
	if list == nil || c.BeatAge() > 4*c.opt.Beat {
		return true
	}
	_, ok := list.owners[owner]
	return ok
}

// plain runs a script outside the lanes, so that it never waits behind them.
func (c *Client) plain(ctx context.Context, s *script, keys []string, args ...any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	sha, _ := s.sha.(string)
	reply, err := c.rdb.EvalSha(ctx, sha, keys, args...).Text()
	if judge(err) == unloaded {
		// EVAL also loads it, on the node that needs it.
		reply, err = c.rdb.Eval(ctx, s.body, keys, args...).Text()
	}
	return reply, err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() && !errors.Is(err, redis.ErrClosed)
}
