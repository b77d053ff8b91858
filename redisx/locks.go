package redisx

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/daisi/daisi-ws/session"
)

var _ session.Locks = (*Client)(nil)

// Acquire is session.Locks.Acquire. It waits until ctx ends.
func (c *Client) Acquire(ctx context.Context, n int, inc string, key session.Key, conn uint64, reject bool, expect uint64) (session.Acquired, error) {
	k := newCall(c.scripts.acquire, n, 5, 8)
	k.rev = true
	k.add(c.part[n].inc, c.part[n].epoch, lockKey(n, key), selKey(n, key), takeoversKey(n, key))
	k.add(inc, c.nonce, c.me, conn, flag(reject), expect, c.lockTTL, c.takeovers)
	if err := c.lane(n).do(ctx, k); err != nil {
		return session.Acquired{}, err
	}
	a, err := c.readAcquired(n, k.reply)
	if err != nil {
		return session.Acquired{}, fmt.Errorf("acquire in partition %d: %w", n, err)
	}
	a.RevVersion = k.version
	return a, nil
}

func (c *Client) readAcquired(n int, reply string) (a session.Acquired, err error) {
	if c.stale(n, reply) {
		a.Verdict = session.Stale
		return a, nil
	}
	if held, ok := strings.CutPrefix(reply, "T "); ok {
		a.Verdict = session.Taken
		a.Prev, err = parseLock(held)
		return a, err
	}
	if left, ok := strings.CutPrefix(reply, "R "); ok {
		ms, err := strconv.Atoi(left)
		if err != nil {
			return a, fmt.Errorf("read answer %q: %w", reply, err)
		}
		a.Verdict, a.Again = session.Limited, time.Duration(max(ms, 0))*time.Millisecond
		return a, nil
	}
	line, chat, ok1 := strings.Cut(reply, "\n")
	line, ok2 := strings.CutPrefix(line, "A ")
	if !ok1 || !ok2 {
		return a, fmt.Errorf("read answer %q", reply)
	}
	epoch, prev, taken := strings.Cut(line, " ")
	if a.Epoch, err = strconv.ParseUint(epoch, 10, 64); err != nil {
		return a, fmt.Errorf("read epoch of answer %q: %w", reply, err)
	}
	if taken {
		a.Prev, err = parseLock(prev)
	}
	a.Chat = chat
	return a, err
}

// Open is session.Locks.Open. It joins the route of all that is no message
// and, with a chat, the chat's; an admin's joins the admin route of n. The
// chat is remembered as the selected one, without a chat none is.
func (c *Client) Open(ctx context.Context, n int, inc string, h session.Held, fence bool) (session.Opened, error) {
	k := newCall(c.scripts.open, n, 6, 14)
	k.add(c.part[n].inc, lockKey(n, h.Key), fenceKey(n, h.Key.Company, h.Key.Agent), selKey(n, h.Key))
	if h.Key.IsAdmin() {
		k.add(routeKey(n, session.AdminWant()))
	} else {
		k.add(routeKey(n, session.Want{Company: h.Key.Company, Agent: h.Key.Agent}))
		if h.Chat != "" {
			k.add(routeKey(n, session.Want{Company: h.Key.Company, Agent: h.Key.Agent, Chat: h.Chat}))
		}
	}
	k.weight = len(k.args) - 3
	k.args[2] = k.weight
	k.add(inc, c.nonce, c.me, h.Conn, h.Epoch, flag(fence), escape(h.Key.User), c.lockTTL, c.routeTTL)
	k.addNumber()
	k.addLazy()
	k.add(chatMode(h), h.Chat, c.selectedTTL)
	if err := c.lane(n).do(ctx, k); err != nil {
		return session.Opened{}, err
	}
	switch {
	case k.reply == "O":
		return session.Opened{}, nil
	case k.reply == "L" || k.reply == "H":
		return session.Opened{Verdict: session.Lost, Higher: k.reply == "H"}, nil
	case c.stale(n, k.reply):
		return session.Opened{Verdict: session.Stale}, nil
	}
	return session.Opened{}, fmt.Errorf("open in partition %d: read answer %q", n, k.reply)
}

// Release is session.Locks.Release. What can't be released now is, within
// bounds, released again with the next JoinAll of n.
func (c *Client) Release(n int, key session.Key, conn uint64) {
	k := newCall(c.scripts.release, n, 2, 4)
	k.add(lockKey(n, key), fenceKey(n, key.Company, key.Agent))
	k.add(c.me, conn, escape(key.User), c.tombstoneTTL)
	h := heldLock{key, conn}
	if err := c.lane(n).later(k, func(_ string, err error) { c.released(n, h, err) }); err != nil {
		c.released(n, h, err)
	}
}

// chatMode tells a script what to do about the selected chat: '=' remember it,
// '-' forget it, nothing for admins, who select none.
func chatMode(h session.Held) string {
	switch {
	case h.KeepChat || h.Key.IsAdmin() || h.Key == session.Key{}:
		return ""
	case h.Chat == "":
		return "-"
	}
	return "="
}
