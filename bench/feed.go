package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// FeedOptions configures a Feed. URL is required.
type FeedOptions struct {
	URL        string
	Stream     string        // the publisher's stream, default wa_stream
	Prefix     string        // of its subjects, default websocket
	Create     bool          // make the stream when it is missing (memory, 10 minutes)
	Size       int           // bytes of a body, about; default 260
	Window     int           // events without an ack before the next one waits, default 16384
	AckTimeout time.Duration // then storing is unsure, default 10 s
	Options    []nats.Option // credentials and the like
}

func (o FeedOptions) withDefaults() (FeedOptions, error) {
	if o.URL == "" {
		return o, errors.New("feed needs the URL of NATS (-nats)")
	}
	orString(&o.Stream, "wa_stream")
	orString(&o.Prefix, "websocket")
	orInt(&o.Size, 260)
	orInt(&o.Window, 16384)
	if o.AckTimeout <= 0 {
		o.AckTimeout = 10 * time.Second
	}
	return o, nil
}

// Feed publishes events to the publisher's stream and enters them in the Book
// before it does. One goroutine publishes, so the order of a page is the order
// of its events in the stream; nothing is ever sent again, for that would break
// it. Acks come in on NATS's own goroutine.
type Feed struct {
	// Static after OpenFeed.
	opts  FeedOptions
	book  *Book
	nc    *nats.Conn
	inbox string

	// Owned by the publishing goroutine.
	id       uint64
	subjects map[subjectKey]string
	buf      []byte
	freed    time.Time // when NATS last let us go on that had held us up

	mu   sync.Mutex
	ring []sent // by id modulo Window

	acked, refused, stalls atomic.Int64
	lag                    Hist // sent - due, or since NATS let us go on when that was later: what it kept from us is not our fault
}

type subjectKey struct {
	page  uint32
	topic uint16
}

// sent is an event without an ack yet; page nil: the place is free.
type sent struct {
	page *Page
	n    uint32
	id   uint64
	at   time.Time
}

// FeedStats says how publishing went.
type FeedStats struct {
	Sent    int64   `json:"sent"`
	Acked   int64   `json:"acked"`
	Refused int64   `json:"refused"` // errors from NATS
	Stalls  int64   `json:"stalls"`  // waits for NATS because the window was full, or it did not read
	Lag     Latency `json:"lag"`     // sent - due, stalls excluded
}

// OpenFeed connects and looks for the stream. Close ends it.
func OpenFeed(ctx context.Context, book *Book, o FeedOptions) (*Feed, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(o.URL, append([]nats.Option{
		nats.Name("daisi-bench"), nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectBufSize(64 << 20),
	}, o.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS %s: %w", Redacted(o.URL), err)
	}
	f := &Feed{opts: o, book: book, nc: nc, inbox: nats.NewInbox() + ".", subjects: make(map[subjectKey]string), ring: make([]sent, o.Window)}
	if err := f.findStream(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	sub, err := nc.Subscribe(f.inbox+"*", f.ack)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("subscribe to acks: %w", err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		nc.Close()
		return nil, fmt.Errorf("lift limits of acks: %w", err)
	}
	return f, nil
}

func (f *Feed) findStream(ctx context.Context) error {
	js, err := jetstream.New(f.nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	_, err = js.Stream(ctx, f.opts.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) && f.opts.Create {
		_, err = js.CreateStream(ctx, jetstream.StreamConfig{
			Name: f.opts.Stream, Subjects: []string{f.opts.Prefix + ".>"}, Storage: jetstream.MemoryStorage, MaxAge: 10 * time.Minute,
		})
	}
	if err != nil {
		return fmt.Errorf("find the publisher's stream %s: %w", f.opts.Stream, err)
	}
	return nil
}

// Close flushes for up to a second and disconnects.
func (f *Feed) Close() {
	// Whether the last bytes left is told by the acks, not by this error.
	_ = f.nc.FlushTimeout(time.Second)
	f.nc.Close()
}

// Publish enters one event of the topic in the book and sends it. It waits only
// while the window is full, or NATS does not read. Errors: ctx; a failed send makes the event unsure
// and is counted.
func (f *Feed) Publish(ctx context.Context, p *Page, topic uint16, due time.Time) error {
	slot := &f.ring[f.id%uint64(len(f.ring))]
	held, err := f.room(ctx, slot)
	if err != nil {
		return err
	}
	n, k := p.add(topic)
	now := time.Now()
	if held {
		f.freed = now
	} else {
		f.lag.Record(0, now.Sub(later(due, f.freed)))
	}
	m := Mark{Run: f.book.Run, Page: p.index, Topic: topic, N: n, K: k, Due: due.UnixNano(), Sent: now.UnixNano()}
	size := f.opts.Size
	if p.size > 0 {
		size = p.size
	}
	f.buf = AppendBody(f.buf[:0], p, m, size)
	f.mu.Lock()
	*slot = sent{page: p, n: n, id: f.id, at: now}
	f.mu.Unlock()
	reply := f.inbox + strconv.FormatUint(f.id, 10)
	f.id++
	if err := f.nc.PublishRequest(f.subject(p, topic), reply, f.buf); err != nil {
		f.refused.Add(1)
		f.settle(f.id-1, false)
	}
	if end := time.Now(); end.Sub(now) > blocked {
		f.freed = end
		f.stalls.Add(1)
	}
	return nil
}

// blocked is how long a write takes that waited for NATS to read.
const blocked = 10 * time.Millisecond

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// room waits until slot is free, giving up on what it holds after AckTimeout.
func (f *Feed) room(ctx context.Context, slot *sent) (held bool, err error) {
	for {
		f.mu.Lock()
		s := *slot
		f.mu.Unlock()
		if s.page == nil {
			return held, nil
		}
		if !held {
			held = true
			f.stalls.Add(1)
		}
		if time.Since(s.at) > f.opts.AckTimeout {
			f.settle(s.id, false)
			continue
		}
		if err := Wait(ctx, time.Now().Add(time.Millisecond)); err != nil {
			return held, err
		}
	}
}

func (f *Feed) subject(p *Page, topic uint16) string {
	k := subjectKey{p.index, topic}
	s, ok := f.subjects[k]
	if !ok {
		s = p.Subject(f.opts.Prefix, topic)
		f.subjects[k] = s
	}
	return s
}

func (f *Feed) ack(m *nats.Msg) {
	id, err := strconv.ParseUint(m.Subject[len(f.inbox):], 10, 64)
	if err != nil {
		return
	}
	ok := len(m.Data) > 0 && !bytes.Contains(m.Data, []byte(`"error"`))
	if !ok {
		f.refused.Add(1)
	}
	f.settle(id, ok)
}

// settle frees the place of id; an event that was not confirmed is in doubt
// from now on.
func (f *Feed) settle(id uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	slot := &f.ring[id%uint64(len(f.ring))]
	if slot.page == nil || slot.id != id {
		return // answered after we gave up on it
	}
	if ok {
		f.acked.Add(1)
	} else {
		slot.page.doubt(slot.n)
	}
	*slot = sent{}
}

// Play publishes count events by the schedule; pick chooses what event i is.
// It returns when the last was sent, or with ctx's error.
func (f *Feed) Play(ctx context.Context, s Pacer, count int, pick func(i int) (*Page, uint16)) error {
	for i := range count {
		due := s.Due(i)
		if err := Wait(ctx, due); err != nil {
			return err
		}
		p, topic := pick(i)
		if err := f.Publish(ctx, p, topic, due); err != nil {
			return err
		}
	}
	return nil
}

// Flush waits until every event was acked or is in doubt: at most AckTimeout
// after the last, or until ctx ends.
func (f *Feed) Flush(ctx context.Context) error {
	// Errors here mean no connection; then the acks below time out.
	_ = f.nc.FlushTimeout(time.Second)
	for {
		open := f.pending()
		if len(open) == 0 {
			return nil
		}
		for _, s := range open {
			if time.Since(s.at) > f.opts.AckTimeout || ctx.Err() != nil {
				f.settle(s.id, false)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := Wait(ctx, time.Now().Add(5*time.Millisecond)); err != nil {
			continue // once more, to put what is left in doubt
		}
	}
}

func (f *Feed) pending() (open []sent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.ring {
		if s.page != nil {
			open = append(open, s)
		}
	}
	return open
}

// Stats says how it went so far.
func (f *Feed) Stats() (FeedStats, error) {
	lag, err := f.lag.Summary()
	return FeedStats{Sent: f.book.Published(), Acked: f.acked.Load(), Refused: f.refused.Load(), Stalls: f.stalls.Load(), Lag: lag}, err
}
