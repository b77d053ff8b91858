package natsx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/daisi/daisi-ws/session"
)

// How a chunk is read again when a replica had nothing although the leader has.
const (
	lagWaitMin = 10 * time.Millisecond
	lagWaitMax = 200 * time.Millisecond
)

var errChunk = errors.New("messages of a chunk were lost")

// Read hands f every event of partition n in (after, upto], in order, in
// chunks of at most 256 events or about 1 MiB; the slices are f's. When it
// returns nil, none was left out: the stream's leader said so, after upto was
// stored. *TrimmedError: the stream dropped some; all up to its Pos were
// handed over, so read on after its First-1. ErrStream: another stream now.
// Any other error: what f got was right, so far.
func (c *Client) Read(ctx context.Context, n int, after, upto uint64, f func([]session.Event) error) error {
	return c.ReadSubject(ctx, PartitionSubject(n), after, upto, f)
}

// ReadSubject is Read for any subject of our stream, which may hold wildcards.
func (c *Client) ReadSubject(ctx context.Context, subject string, after, upto uint64, f func([]session.Event) error) error {
	cur := c.cur.Load()
	if cur == nil {
		return ErrNotConnected
	}
	if after >= upto {
		return nil
	}
	s := scan{c: c, inc: cur, subject: subject, pos: after, upto: upto, f: f}
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("read %s after %d: %w", subject, after, err)
	}
	return nil
}

// scan is one Read.
type scan struct {
	c       *Client
	inc     *incarnation
	subject string
	upto    uint64
	f       func([]session.Event) error

	pos uint64 // all up to it was handed over
	nc  *nats.Conn
	sub *nats.Subscription
	ch  chan *nats.Msg
}

// run reads until the last sequence that the leader knows of was seen, or one
// above upto: a replica holds all that comes before what it holds.
func (s *scan) run(ctx context.Context) error {
	last, err := s.c.LastOf(ctx, s.subject)
	if err != nil {
		return err
	}
	defer s.close()
	wait := lagWaitMin
	for s.pos < min(last, s.upto) {
		evs, top, err := s.chunk(ctx)
		if err != nil {
			return err
		}
		// Asked after the chunk was read: first tells whether it has holes.
		if err := s.whole(ctx); err != nil {
			return err
		}
		if top > s.pos {
			if len(evs) > 0 {
				s.c.m.repaired.Add(len(evs))
				if err := s.f(evs); err != nil {
					return err
				}
			}
			s.pos, wait = top, lagWaitMin
			continue
		}
		// This replica lags, or what the leader had has gone meanwhile.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, lagWaitMax)
		if last, err = s.c.LastOf(ctx, s.subject); err != nil {
			return err
		}
	}
	return s.whole(ctx)
}

// whole says whether the stream is still ours and still holds what follows pos.
func (s *scan) whole(ctx context.Context) error {
	i, err := s.c.events(ctx, s.inc.id)
	if err != nil {
		return err
	}
	if first := i.State.FirstSeq; first > s.pos+1 && s.pos < s.upto {
		s.c.m.trim.Inc()
		return &TrimmedError{Pos: s.pos, First: first}
	}
	return nil
}

// chunk asks any replica for the next messages. top is the highest sequence
// it brought, poison and those above upto included.
func (s *scan) chunk(ctx context.Context) (evs []session.Event, top uint64, err error) {
	if err := s.open(); err != nil {
		return nil, 0, err
	}
	req, err := json.Marshal(config{
		"seq": s.pos + 1, "next_by_subj": s.subject, "batch": readBatch, "max_bytes": readBytes,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("encode request: %w", err)
	}
	if err := s.nc.PublishRequest(apiPrefix+"DIRECT.GET."+s.c.o.EventsStream, s.sub.Subject, req); err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var prev uint64
	for {
		var m *nats.Msg
		select {
		case m = <-s.ch:
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("wait for a chunk: %w", ctx.Err())
		}
		d, ok := parseDirect(m)
		if !ok {
			return evs, top, s.status(m, prev)
		}
		if d.prev != prev || d.seq <= s.pos || d.seq <= prev {
			s.close() // what still comes belongs to nobody
			return nil, 0, errChunk
		}
		prev = d.seq
		if top = d.seq; d.seq > s.upto {
			continue // proves that nothing before it is missing
		}
		ev := session.Event{Seq: d.seq, Stamp: d.stamp}
		if why := parseEvent(&ev, d.subject, m.Data, s.c.o.MaxEvent); why != notPoison {
			s.c.skip(s.inc.id, d.seq, why)
			continue
		}
		evs = append(evs, ev)
	}
}

// status reads the end of a chunk, whose last message was prev.
func (s *scan) status(m *nats.Msg, prev uint64) error {
	switch status := m.Header.Get("Status"); status {
	case "204": // end of batch
		if seq, _ := parseNumber(last(m.Header, "Nats-Last-Sequence")); seq != prev {
			return errChunk
		}
		return nil
	case "404": // nothing to send
		return nil
	case "503":
		return nats.ErrNoResponders
	default:
		return fmt.Errorf("direct get refused: %s %s", status, m.Header.Get("Description"))
	}
}

func (s *scan) open() error {
	if s.sub != nil {
		return nil
	}
	nc := s.c.conn()
	if nc == nil {
		return ErrNotConnected
	}
	ch := make(chan *nats.Msg, readBatch+16)
	sub, err := nc.ChanSubscribe(nc.NewInbox(), ch)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	s.nc, s.sub, s.ch = nc, sub, ch
	return nil
}

func (s *scan) close() {
	if s.sub != nil {
		_ = s.sub.Unsubscribe() // fails only where the connection has gone
		s.sub = nil
	}
}

// direct is what a message of a chunk says of itself.
type direct struct {
	subject   string
	seq, prev uint64
	stamp     int64
}

// parseDirect reads a message's headers. The server appends its own behind
// the publisher's, who may have used the same names: the last of each counts.
func parseDirect(m *nats.Msg) (d direct, ok bool) {
	if d.seq, ok = parseNumber(last(m.Header, "Nats-Sequence")); !ok {
		return d, false
	}
	if d.prev, ok = parseNumber(last(m.Header, "Nats-Last-Sequence")); !ok {
		return d, false
	}
	stamp, err := time.Parse(time.RFC3339Nano, last(m.Header, "Nats-Time-Stamp"))
	d.subject, d.stamp = last(m.Header, "Nats-Subject"), stamp.UnixNano()
	return d, err == nil && d.subject != ""
}

func last(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}
