package natsx

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/daisi/daisi-ws/session"
)

// idleAfter is how long Next waits for an event at most. Readers come back idle
// at the same instants, those of other pods too as far as their clocks agree: so
// what they then ask of Redis goes in one batch, and a pod that hears from many
// wakes up once.
const idleAfter = time.Second

// Backoff between consumers that could not be made.
const (
	backoffMin = 25 * time.Millisecond
	backoffMax = time.Second
)

// restartReason says why a reader took another consumer.
type restartReason uint8

const (
	restartGap        restartReason = iota // consumer sequence not contiguous
	restartSilent                          // no word, or the leader has what did not come
	restartStatus                          // deleted, or another refusal
	restartConnection                      // reconnected: pulls were lost
	restartCreate                          // could not be made
	restartTrimmed                         // the stream dropped events before they were read
	restartReasons
)

func (r restartReason) String() string {
	return [restartReasons]string{"gap", "silent", "status", "connection", "create", "trimmed"}[r]
}

// Reader reads one partition in order. One goroutine at a time uses it; it
// starts none itself.
type Reader struct {
	// Static after Reader.
	c      *Client
	inc    *incarnation
	filter string
	prefix string // of event subjects

	// Owned by the caller of Next.
	pos     uint64
	err     error // for good
	cons    *consumer
	retryAt time.Time
	backoff time.Duration
	timer   *time.Timer

	// Read by the lag gauge.
	pending atomic.Uint64
}

// Reader reads partition n from the event after `after` on. Call it after
// Ready; end it with Close.
func (c *Client) Reader(n int, after uint64) *Reader {
	filter := PartitionSubject(n)
	r := &Reader{
		c: c, inc: c.cur.Load(), filter: filter, prefix: strings.TrimSuffix(filter, ">"),
		pos: after, timer: time.NewTimer(idleAfter),
	}
	if r.inc == nil {
		r.err = ErrNotConnected
	}
	c.mu.Lock()
	c.readers[r] = struct{}{}
	c.mu.Unlock()
	return r
}

// Pos is the highest sequence read: that of the last event returned, or of
// poison skipped after it. All events of the partition up to it were returned.
func (r *Reader) Pos() uint64 { return r.pos }

// Current says that there is a consumer, and that the server answered lately,
// so that whatever the partition holds above Pos is on its way here. For the
// caller of Next.
func (r *Reader) Current() bool {
	return r.cons != nil && r.cons.phase == pulling && r.inc.age() < freshLook
}

// Owes tells the Reader that the leader held seq, an event of this partition,
// when the stream was last looked at. If that is a while ago and it did not
// come, the consumer is deaf, and another is taken. For the caller of Next.
func (r *Reader) Owes(seq uint64) {
	k := r.cons
	if k == nil || k.phase != pulling || len(k.ch) > 0 || r.pos >= seq {
		return
	}
	if r.inc.age() >= onItsWay || r.pos < k.owed {
		r.restart(restartSilent)
		return
	}
	k.owed = seq // stored just now, perhaps; the second time it is late
}

// Next returns what is there, at least one event and at most 256 or about
// 1 MiB; the slice is the caller's. It waits at most a second, then returns
// ErrIdle, also while there is no connection, and so it does at once when all
// it met was poison (see Pos). A *TrimmedError tells of events that are gone,
// and reading goes on. ErrStream is for good, and so is ErrNotConnected for a
// Reader made before Ready.
func (r *Reader) Next(ctx context.Context) ([]session.Event, error) {
	r.timer.Reset(idleAfter - time.Duration(time.Now().UnixNano())%idleAfter)
	for {
		if err := r.usable(ctx); err != nil {
			return nil, err
		}
		wait, ch := r.prepare(time.Now())
		select {
		case m := <-ch:
			evs, done, err := r.take(ctx, m)
			if done || err != nil {
				return evs, err
			}
		case <-r.timer.C:
			return nil, ErrIdle
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close gives the consumer back. Next must not be called again.
func (r *Reader) Close() {
	r.c.mu.Lock()
	delete(r.c.readers, r)
	r.c.mu.Unlock()
	r.timer.Stop()
	if r.cons != nil {
		r.cons.end(r.c)
		r.cons = nil
	}
}

func (r *Reader) usable(ctx context.Context) error {
	if r.err == nil && r.c.cur.Load() != r.inc {
		r.err = ErrStream
		r.drop()
	}
	if r.err != nil {
		return r.err
	}
	return ctx.Err()
}

// prepare sees to it that there is a consumer, and that it is asked. It
// returns its channel, and one that fires when to come again before that.
func (r *Reader) prepare(now time.Time) (again <-chan time.Time, ch <-chan *nats.Msg) {
	if k := r.cons; k != nil {
		switch {
		case k.reconnects != r.c.reconnects.Load():
			r.restart(restartConnection)
		case len(k.ch) > 0: // alive
		case k.phase == pulling && now.Sub(k.heard) > silence:
			r.restart(restartSilent)
		case k.phase != pulling && now.Sub(k.heard) > answer:
			r.restart(restartCreate)
		}
	}
	if r.cons == nil {
		if delay := r.retryAt.Sub(now); delay > 0 {
			if delay >= idleAfter {
				return nil, nil
			}
			return time.After(delay), nil
		}
		nc := r.c.conn()
		if nc == nil {
			return nil, nil
		}
		var err error
		if r.cons, err = newConsumer(r.c, nc, r.filter, r.pos+1); err != nil {
			r.restart(restartCreate)
			return nil, nil
		}
	}
	if r.cons.phase == pulling {
		if err := r.cons.pull(r.c); err != nil {
			r.restart(restartConnection)
			return nil, nil
		}
	}
	return nil, r.cons.ch
}

// restart lets go of the consumer. The next is made at once, or, after one
// that didn't live for a second, a while later that grows.
func (r *Reader) restart(why restartReason) {
	r.c.m.restarts[why].Inc()
	now := time.Now()
	if r.cons != nil && now.Sub(r.cons.born) > lived {
		r.retryAt, r.backoff = now, 0
	} else {
		r.backoff = min(max(2*r.backoff, backoffMin), backoffMax)
		r.retryAt = now.Add(r.backoff)
	}
	r.drop()
	if why == restartCreate || why == restartStatus {
		r.c.nudge() // the stream itself may have gone
	}
}

func (r *Reader) drop() {
	if r.cons != nil {
		r.cons.end(r.c)
		r.cons = nil
	}
	r.pending.Store(0)
}

// take handles m and all that came behind it. done says that Next has
// something to return.
func (r *Reader) take(ctx context.Context, m *nats.Msg) (evs []session.Event, done bool, err error) {
	k, from, size := r.cons, r.pos, 0
	k.heard = time.Now()
	for {
		if strings.HasPrefix(m.Subject, r.prefix) {
			if evs == nil {
				evs = make([]session.Event, 0, min(len(k.ch)+1, readBatch))
			}
			if evs, done = r.event(evs, m); !done {
				break // a gap: what came before it is good
			}
			size += len(m.Data)
		} else if err = r.control(m); err != nil || r.cons == nil {
			break
		}
		if len(evs) == readBatch || size >= readBytes {
			break
		}
		select {
		case m = <-k.ch:
			continue
		default:
		}
		break
	}
	if r.pos == from || err != nil && len(evs) == 0 {
		return nil, err != nil, err
	}
	return r.hand(ctx, from, evs)
}

// hand returns what was read after from, unless the stream dropped events
// while it was read.
func (r *Reader) hand(ctx context.Context, from uint64, evs []session.Event) ([]session.Event, bool, error) {
	if first, err := r.c.trimmed(ctx, r.inc, from); err != nil {
		// Nobody can say, so it is read again.
		r.pos = from
		r.restart(restartStatus)
		return nil, true, ErrIdle
	} else if first > from+1 {
		return nil, true, r.trim(from, first)
	}
	r.inc.saw(r.pos)
	r.c.m.batches.Inc()
	r.c.m.events.Add(len(evs))
	if len(evs) == 0 {
		return nil, true, ErrIdle
	}
	return evs, true, nil
}

// event appends the event in m; false if m is not the consumer's next one.
func (r *Reader) event(evs []session.Event, m *nats.Msg) ([]session.Event, bool) {
	k := r.cons
	d, ok := parseReply(m.Reply)
	if !ok || d.consumer != k.seq+1 || d.stream <= r.pos {
		r.restart(restartGap)
		return evs, false
	}
	k.seq = d.consumer
	k.asked--
	r.pos = d.stream
	r.pending.Store(d.pending)
	ev := session.Event{Seq: d.stream, Stamp: d.stamp}
	if why := parseEvent(&ev, m.Subject, m.Data, r.c.o.MaxEvent); why != notPoison {
		r.c.skip(r.inc.id, d.stream, why)
		return evs, true
	}
	return append(evs, ev), true
}

// control handles a message that is no event.
func (r *Reader) control(m *nats.Msg) error {
	k := r.cons
	switch m.Subject[len(k.inbox):] {
	case replyMade:
		return r.made(m)
	case replyInfo:
		return r.checked(m)
	default:
		if !k.status(m) {
			r.restart(restartStatus)
		}
		return nil
	}
}

// made: the consumer is there, or was refused. It belongs to the incarnation
// that the stream has now or had before, so asking now settles which.
func (r *Reader) made(m *nats.Msg) error {
	var a struct{ Error *apiError }
	if json.Unmarshal(m.Data, &a) != nil || a.Error != nil {
		r.restart(restartCreate)
		return nil
	}
	r.cons.phase = checking
	err := r.cons.nc.PublishRequest(apiPrefix+"STREAM.INFO."+r.c.o.EventsStream, r.cons.inbox+replyInfo, nil)
	if err != nil {
		r.restart(restartConnection)
	}
	return nil
}

// checked: the stream is the one this reader is about, or not.
func (r *Reader) checked(m *nats.Msg) error {
	var a struct {
		streamInfo
		Error *apiError
	}
	if json.Unmarshal(m.Data, &a) != nil || a.Error != nil {
		r.restart(restartCreate)
		return nil
	}
	if a.metadata()[metaID] != r.inc.id || a.State.LastSeq < r.pos {
		// Run will see the same, and end this reader.
		r.inc.saw(r.pos)
		r.restart(restartCreate)
		return nil
	}
	r.cons.phase = pulling
	if a.State.FirstSeq > r.pos+1 {
		return r.trim(r.pos, a.State.FirstSeq)
	}
	return nil
}

// trim moves to the first sequence stored.
func (r *Reader) trim(from, first uint64) error {
	r.pos = first - 1
	r.restart(restartTrimmed)
	r.c.m.trim.Inc()
	return &TrimmedError{Pos: from, First: first}
}

// trimmed returns the stream's first sequence where events after pos may have
// been dropped before they were read, else 0. Only near the old end of the
// stream it has to ask: nowhere else can the first pass pos between two looks.
func (c *Client) trimmed(ctx context.Context, i *incarnation, pos uint64) (first uint64, err error) {
	first, last := i.first.Load(), i.last.Load()
	if pos >= (first+last)/2 || pos+1 >= last {
		if i.age() < 3*watchEvery {
			return 0, nil
		}
	}
	info, err := c.events(ctx, i.id)
	if err != nil {
		return 0, err
	}
	return info.State.FirstSeq, nil
}
