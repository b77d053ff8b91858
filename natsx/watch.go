package natsx

import (
	"context"
	"fmt"
	"time"
)

// watch looks at the streams each second, and at once when nudged, until ctx
// ends or the connection is closed for good.
func (c *Client) watch(ctx context.Context, closed <-chan struct{}) {
	w := watcher{c: c}
	t := time.NewTimer(watchEvery)
	defer t.Stop()
	for ctx.Err() == nil {
		w.note(ctx, w.look(ctx))
		t.Reset(untilWatch(time.Now()))
		select {
		case <-ctx.Done():
		case <-closed:
			return
		case <-t.C:
			continue
		case <-c.wake:
		}
		select { // a nudge
		case <-ctx.Done():
		case <-time.After(nudgeGap):
		}
	}
}

// untilWatch is the time to the next half second: all pods look at the same
// moment, half a period before their idle Readers come back.
func untilWatch(now time.Time) time.Duration {
	return watchEvery - time.Duration(now.Add(watchEvery/2).UnixNano())%watchEvery
}

// watcher is what Run knows about the streams.
type watcher struct {
	c       *Client
	limited bool   // limits were compared with Options
	logged  string // last error logged
}

// look makes the streams what they should be.
func (w *watcher) look(ctx context.Context) error {
	c := w.c
	if c.conn() == nil {
		return ErrNotConnected
	}
	pub, err := c.info(ctx, c.o.Stream)
	if err == nil && pub == nil && c.o.CreateStream {
		if err = c.createPublisher(ctx); err == nil {
			pub, err = c.info(ctx, c.o.Stream)
		}
	}
	if err != nil {
		return err
	}
	cur := c.cur.Load()
	var seen uint64 // before the question, so that the answer can't be older
	if cur != nil {
		seen = cur.seen.Load()
	}
	own, err := c.info(ctx, c.o.EventsStream)
	if err == nil && own == nil {
		if err = c.createEvents(ctx, pub); err == nil {
			own, err = c.info(ctx, c.o.EventsStream)
		}
	}
	if err != nil {
		return err
	}
	if own == nil {
		return fmt.Errorf("stream %s is missing right after it was made", c.o.EventsStream)
	}
	return w.settle(ctx, pub, own, seen)
}

// settle compares our stream with what was known of it, and makes the
// difference known.
func (w *watcher) settle(ctx context.Context, pub, own *streamInfo, seen uint64) error {
	c, cur := w.c, w.c.cur.Load()
	s, err := c.described(own)
	if err != nil {
		return err
	}
	if cur != nil && cur.id == s.ID && s.Last < seen {
		c.o.Log.Error().Uint64("last", s.Last).Uint64("seen", seen).Msg("events stream was rewound; it gets a new id")
		s.ID = newID()
		if err := c.update(ctx, own, nil, map[string]string{metaID: s.ID}); err != nil {
			return fmt.Errorf("give %s a new id: %w", c.o.EventsStream, err)
		}
	}
	if !w.limited {
		if err := c.limits(ctx, own); err != nil {
			return err
		}
		w.limited = true
	}
	if pub == nil {
		c.learned(s)
		return fmt.Errorf("publisher's stream %s is missing", c.o.Stream)
	}
	created := pub.Created.Format(time.RFC3339Nano)
	if own.metadata()[metaSource] != created {
		if err := c.resource(ctx, own, s.Partitions, created); err != nil {
			return err
		}
	}
	c.learned(s)
	return own.sourcing()
}

// learned makes s known to everybody.
func (c *Client) learned(s Stream) {
	cur := c.cur.Load()
	fresh := cur == nil || cur.id != s.ID
	first := cur == nil
	if fresh {
		cur = &incarnation{id: s.ID, partitions: s.Partitions}
	}
	cur.first.Store(s.First)
	cur.last.Store(s.Last)
	cur.saw(s.Last)
	now := time.Now()
	cur.looked.Store(&now)
	if !fresh {
		return
	}
	c.cur.Store(cur)
	c.o.Log.Info().Str("id", s.ID).Int("partitions", s.Partitions).Uint64("last", s.Last).Msg("events stream")
	if first {
		close(c.ready)
		return
	}
	c.m.changed.Inc()
	c.mu.Lock()
	told := c.onStream
	c.mu.Unlock()
	for _, f := range told {
		f(s)
	}
}

// note remembers how a look went, and logs what is new about it.
func (w *watcher) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	c := w.c
	c.mu.Lock()
	c.health = err
	if err == nil {
		c.looked = time.Now()
	}
	c.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == w.logged {
		return
	}
	w.logged = text
	if err != nil {
		c.o.Log.Warn().Err(err).Msg("events can't come")
	} else {
		c.o.Log.Info().Msg("events can come")
	}
}
