package server

import (
	"errors"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// delivery is the one way events reach sockets: live batches, repairs and
// replays of a partition all go through it. Owned by one worker.
type delivery struct {
	env    *partitionEnv
	put    func(*loop.Conn) session.Put // bound once, so that a delivery allocates nothing
	event  *session.Event
	frame  *loop.Frame // of event, made for its first receiver
	faults faults

	result session.Delivered[*loop.Conn]
}

func (d *delivery) init(env *partitionEnv) {
	d.env = env
	d.put = d.putOne
}

// deliver hands events to every session that wants them and is not outranked,
// then ends those that can't go on. Without events the fences still count.
func (d *delivery) deliver(n int, events []session.Event, fences []session.Fence) {
	fences = d.faults.fences(fences)
	for i := range events {
		d.event, d.frame = &events[i], nil
		d.env.index.Deliver(n, d.event, fences, d.put, &d.result)
		fences = nil // those of a batch are applied once
	}
	d.event, d.frame = nil, nil
	d.env.manager.Finish(&d.result)
}

// fenceAdmins ends the admin sessions that are outranked.
func (d *delivery) fenceAdmins(fences []session.Fence) {
	d.env.index.FenceAdmins(d.faults.fences(fences), &d.result)
	d.env.manager.Finish(&d.result)
}

// advance says that nothing up to upto is left for this pod.
func (d *delivery) advance(n int, upto uint64, fences []session.Fence) {
	d.env.index.Advance(n, upto, d.faults.fences(fences), &d.result)
	d.env.manager.Finish(&d.result)
}

// putOne queues the event on one socket; it runs under the shard's lock.
func (d *delivery) putOne(c *loop.Conn) session.Put {
	if d.frame == nil {
		d.frame = eventFrame(d.event)
	}
	if d.env.slowRoom > 0 {
		return d.putOrMiss(c)
	}
	err := d.faults.queue(c, d.frame)
	switch {
	case err == nil:
		return session.Queued
	case errors.Is(err, loop.ErrSlow):
		return session.Slow
	default:
		return session.Gone
	}
}

// putOrMiss is putOne where slow clients that understand gaps are told instead of
// closed. What waits for them is written as it would have been; when half of the
// budget is free again the gap comes before the next event, or with the pings.
func (d *delivery) putOrMiss(c *loop.Conn) session.Put {
	h, ok := c.Handler().(*client)
	if ok {
		if from, hole := h.Hole(); hole {
			if q := c.Queued(); q > 0 && q+d.frame.Len() > d.env.slowRoom {
				return session.Missed
			}
			_ = c.Queue(gapFrame(from, d.event.Seq-1, reasonSlow, true)) // one that is refused ends the socket, or leaves the hole: the event is refused, too
		}
	}
	err := d.faults.queue(c, d.frame)
	switch {
	case err == nil:
		return session.Queued
	case !errors.Is(err, loop.ErrSlow):
		return session.Gone
	case ok && h.Has(session.FlagNewFrames) && !h.Key().IsAdmin():
		return session.Missed
	}
	return session.Slow
}

// eventFrame encodes ev once for all its receivers.
func eventFrame(ev *session.Event) *loop.Frame {
	var buf [96]byte
	body, tail := eventParts(ev, buf[:0])
	return loop.NewEventParts(ev.Stamp, kindOf(ev.Route.Kind), eventHead, body, tail)
}

// wantsOf lists the distinct wants of events, in order of first appearance,
// and, when at is not nil, fills in which of them each event has.
func wantsOf(events []session.Event, at []int) []session.Want {
	seen := make(map[session.Want]int, len(events))
	wants := make([]session.Want, 0, len(events))
	for i := range events {
		w := events[i].Route.Want()
		j, ok := seen[w]
		if !ok {
			j = len(wants)
			seen[w] = j
			wants = append(wants, w)
		}
		if at != nil {
			at[i] = j
		}
	}
	return wants
}

// slowRoom is partitionEnv's.
func slowRoom(o LimitOptions) int {
	if o.Slow != SlowGap {
		return 0
	}
	return max(1, o.SendBudget/2)
}
