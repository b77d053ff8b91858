package redisx

import (
	"fmt"

	"github.com/daisi/daisi-ws/session"
)

var _ session.Routes = (*Client)(nil)

// Leave is session.Routes.Leave.
func (c *Client) Leave(n int, w session.Want) {
	k := newCall(c.scripts.leave, n, 1, 2)
	k.add(routeKey(n, w), c.me)
	k.addNumber()
	if err := c.lane(n).later(k, func(string, error) {}); err != nil {
		c.counts.droppedEdge.Inc()
	}
}

// Join is session.Routes.Join. Without a want only the chat is remembered; the
// chat of an admin, or of a Held without a key, is left alone. The verdict is OK
// or Stale.
func (c *Client) Join(n int, inc string, w *session.Want, h session.Held, done func(session.Verdict, error)) error {
	k := newCall(c.scripts.join, n, 4, 10)
	k.add(c.part[n].inc, lockKey(n, h.Key), selKey(n, h.Key))
	if w != nil {
		k.add(routeKey(n, *w))
	}
	k.weight = len(k.args) - 3
	k.args[2] = k.weight
	k.add(inc, c.nonce, c.me, h.Conn, c.routeTTL)
	k.addNumber()
	k.addLazy()
	k.add(chatMode(h), h.Chat, c.selectedTTL)
	return c.lane(n).later(k, func(reply string, err error) {
		switch {
		case err != nil:
			done(session.OK, fmt.Errorf("join in partition %d: %w", n, err))
		case c.stale(n, reply):
			done(session.Stale, nil)
		default:
			done(session.OK, nil)
		}
	})
}

// Room is session.Routes.Room. It is a promise only to the caller that holds
// the lock under which all its joins of n are made, and to one lane's queue.
func (c *Client) Room(n int) bool { return c.lane(n).room() }
