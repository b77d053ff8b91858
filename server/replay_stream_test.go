package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// fakeStream is our events stream as a list.
type fakeStream struct {
	mu      sync.Mutex
	id      string          // mu
	first   uint64          // mu
	last    uint64          // mu
	events  []session.Event // mu
	subject []string        // mu; of each event
	err     error           // mu; the answer to everything
	asked   int             // mu; calls of LastSeq
	reading func()          // mu; runs before each read, without mu
}

func (f *fakeStream) now() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.id
}

// questions is how often the end of the stream was asked for.
func (f *fakeStream) questions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func (f *fakeStream) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// store appends an event of acme and returns it.
func (f *fakeStream) store(agent, kind, chat, body string) session.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	ev := session.Event{
		Seq: f.last, Stamp: time.Now().UnixNano(), Body: []byte(body),
		Route: session.Route{Company: "acme", Agent: agent, Kind: kind, Chat: chat},
	}
	f.events, f.subject = append(f.events, ev), append(f.subject, natsx.EventsSubject(-1, 4, ev.Route))
	return ev
}

func (f *fakeStream) LastSeq(context.Context) (first, last uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return f.first, f.last, f.err
}

// matching are the events of a subject, whose last token may be a wildcard.
func (f *fakeStream) matching(subject string) (list []session.Event) {
	kinds, wild := strings.CutSuffix(subject, "*")
	for i, s := range f.subject {
		kind, under := strings.CutPrefix(s, kinds)
		if f.events[i].Seq >= f.first && (s == subject || wild && under && !strings.Contains(kind, ".")) {
			list = append(list, f.events[i])
		}
	}
	return list
}

func (f *fakeStream) LastOf(_ context.Context, subjects ...string) (last uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range subjects {
		for _, ev := range f.matching(s) {
			last = max(last, ev.Seq)
		}
	}
	return last, f.err
}

func (f *fakeStream) ReadSubject(_ context.Context, subject string, after, upto uint64, give func([]session.Event) error) error {
	f.mu.Lock()
	reading, list, err := f.reading, f.matching(subject), f.err
	f.mu.Unlock()
	if reading != nil {
		reading()
	}
	if err != nil {
		return err
	}
	for _, ev := range list {
		if ev.Seq > after && ev.Seq <= upto {
			if err := give([]session.Event{ev}); err != nil {
				return fmt.Errorf("read %s: %w", subject, err)
			}
		}
	}
	return nil
}

// live delivers an event as a partition's worker does.
func (h *house) live(evs ...session.Event) {
	for i := range evs {
		var d session.Delivered[*loop.Conn]
		n := session.Partition("acme", evs[i].Route.Agent, 4)
		h.core.index.Deliver(n, &evs[i], nil, func(c *loop.Conn) session.Put {
			switch err := c.Queue(eventFrame(&evs[i])); {
			case err == nil:
				return session.Queued
			case errors.Is(err, loop.ErrSlow):
				return session.Slow
			}
			return session.Gone
		}, &d)
		h.core.manager.Finish(&d)
	}
}

// resumeFrom is the query of a login that resumes.
func resumeFrom(seq int) string { return "&resume=" + testStream + ":" + strconv.Itoa(seq) }

// wantSeqs reads the next frames: events with these seqs, and nothing else.
func (s *socket) wantSeqs(seqs ...int) {
	s.t.Helper()
	for _, want := range seqs {
		f, err := s.read()
		if err != nil || f.Type != "event" || f.Seq != uint64(want) {
			s.t.Fatalf("got %+v, %v; want event %d", f, err, want)
		}
	}
}
