package redisx

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/daisi/daisi-ws/session"
)

var _ session.Renewer = (*Client)(nil)

// Sizes of one script of a sweep: it blocks Redis for everybody while it runs,
// at about 2 us a session.
const (
	sessionsACall = 64
	routesACall   = 128
)

// Inc is session.Renewer.Inc.
func (c *Client) Inc(ctx context.Context, n int) (inc string, seen uint64, err error) {
	k := newCall(c.scripts.inc, n, 2, 1)
	k.add(c.part[n].inc, c.part[n].epoch, c.nonce)
	if err := c.lane(n).do(ctx, k); err != nil {
		return "", 0, err
	}
	inc, epoch, _ := strings.Cut(k.reply, " ")
	if seen, err = strconv.ParseUint(epoch, 10, 64); err != nil {
		return "", 0, fmt.Errorf("inc of partition %d: read answer %q: %w", n, k.reply, err)
	}
	c.learn(n, inc)
	return inc, seen, nil
}

// Reassert is session.Renewer.Reassert, in portions, one after the other, so
// that logins of the partition get in between. A Held without an epoch is left
// as it is and answered OK.
func (c *Client) Reassert(ctx context.Context, n int, inc string, seen uint64, held []session.Held) (answers []session.Reasserted, stale bool, err error) {
	answers = make([]session.Reasserted, 0, len(held))
	for len(held) > 0 {
		part := held[:min(len(held), sessionsACall)]
		held = held[len(part):]
		k := c.reassertCall(n, inc, seen, part)
		if err := c.lane(n).do(ctx, k); err != nil {
			return nil, false, err
		}
		if c.stale(n, k.reply) {
			return nil, true, nil
		}
		if answers, err = readReasserted(answers, k.reply, len(part)); err != nil {
			return nil, false, fmt.Errorf("reassert in partition %d: %w", n, err)
		}
	}
	return answers, false, nil
}

func (c *Client) reassertCall(n int, inc string, seen uint64, held []session.Held) *call {
	k := newCall(c.scripts.reassert, n, 2+3*len(held), 6+5*len(held))
	k.add(c.part[n].inc, c.part[n].epoch)
	for _, h := range held {
		k.add(lockKey(n, h.Key), fenceKey(n, h.Key.Company, h.Key.Agent), selKey(n, h.Key))
	}
	k.add(inc, c.nonce, c.me, seen, c.lockTTL, c.selectedTTL)
	for _, h := range held {
		chat := h.Chat
		if h.KeepChat {
			chat = ""
		}
		k.add(h.Conn, h.Epoch, flag(h.Fresh), escape(h.Key.User), chat)
	}
	return k
}

func readReasserted(to []session.Reasserted, reply string, want int) ([]session.Reasserted, error) {
	lines := strings.Split(reply, "\n")
	if lines[0] != "R" || len(lines) != want+1 {
		return nil, fmt.Errorf("read answer: %d lines after %q, want %d", len(lines)-1, lines[0], want)
	}
	for _, line := range lines[1:] {
		var r session.Reasserted
		switch prev, taken := strings.CutPrefix(line, "O "); {
		case taken:
			lock, err := parseLock(prev)
			if err != nil {
				return nil, err
			}
			r.Prev = lock
		case line == "L" || line == "U":
			r.Verdict, r.Unconfirmed = session.Lost, line == "U"
		case line != "O":
			return nil, fmt.Errorf("read answer %q", line)
		}
		to = append(to, r)
	}
	return to, nil
}

// JoinAll is session.Renewer.JoinAll, in portions like Reassert. Sweeps and
// asserts end with it, so locks that could not be released go on their way again.
func (c *Client) JoinAll(ctx context.Context, n int, inc string, wants []session.Want) (stale bool, err error) {
	for len(wants) > 0 {
		part := wants[:min(len(wants), routesACall)]
		wants = wants[len(part):]
		k := newCall(c.scripts.joinAll, n, 1+len(part), 5)
		k.add(c.part[n].inc)
		for _, w := range part {
			k.add(routeKey(n, w))
		}
		k.add(inc, c.nonce, c.me, c.routeTTL)
		k.addNumber()
		if err := c.lane(n).do(ctx, k); err != nil {
			return false, err
		}
		if c.stale(n, k.reply) {
			return true, nil
		}
	}
	c.releaseAgain(n)
	return false, nil
}
