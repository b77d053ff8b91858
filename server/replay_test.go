package server

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// Events of all that a session wants, and of nothing else, in the stream's
// order, then the live ones.
func TestResume(t *testing.T) {
	h := newHouse(t, nil)
	h.stream.store("ag1", "chats", "", "{}")        // 1
	h.stream.store("ag1", "messages", "c1", "{}")   // 2
	h.stream.store("ag2", "chats", "", "{}")        // 3
	h.stream.store("ag1", "messages", "c2", "{}")   // 4
	h.stream.store("ag1", "contacts", "", "{}")     // 5
	h.stream.store("ag1", "messages", "c1", "{}")   // 6
	h.stream.store("ag1", "new", "", "{}")          // 7
	h.stream.store("ag1", "messages", "c1.x", "{}") // 8
	none := h.login("ag1", "u1", resumeFrom(0), nil)
	none.wantSeqs(1, 5, 7)
	none.barrier()
	c1 := h.login("ag1", "u2", resumeFrom(1)+"&chat=c1", nil)
	c1.wantSeqs(2, 5, 6, 7)
	h.login("ag1", "u3", resumeFrom(8)+"&chat=c1", nil).barrier() // nothing was missed
	h.login("ag1", "u4", "&resume=", nil).barrier()
	for _, chat := range []string{"*", ">", "c1.*", "a%20b", ".", "c1..x", "c1."} { // no subject is made of those
		s := h.login("ag1", "u5", resumeFrom(5)+"&chat="+chat, nil)
		s.wantSeqs(7)
		s.barrier()
	}
	next := h.stream.store("ag1", "messages", "c1", "{}") // 9
	h.live(next)
	c1.wantSeqs(9)
	none.barrier()
	if ready := h.login("ag1", "u6", resumeFrom(3), nil).ready; ready.Payload["seq"] != 3.0 {
		t.Errorf("ready tells seq %v: who resumes from there while the replay is under way would miss something", ready.Payload["seq"])
	}
}

// In-band it is a rewind; what comes behind it waits.
func TestResumeInBand(t *testing.T) {
	h := newHouse(t, nil)
	s := h.login("ag1", "u1", "&chat=c1", nil) // a legacy client may, too
	for range 3 {
		h.live(h.stream.store("ag1", "chats", "", "{}"), h.stream.store("ag1", "messages", "c1", "{}"))
	}
	s.wantSeqs(1, 2, 3, 4, 5, 6)
	s.send(`{"type":"resume","payload":{"stream":"` + testStream + `","seq":2}}`)
	s.send(`{"type":"select_chat","payload":{"chat_id":"c2","ack":true}}`)
	s.send(`{"type":"resume","payload":{"stream":"` + testStream + `","seq":3}}`)
	selected := 0
	for _, want := range []uint64{3, 4, 5, 6, 5} { // at last c1 is not wanted any more
		f := s.next()
		if f.Type == "selected" { // overtakes what is queued
			selected++
			f = s.next()
		}
		if f.Type != "event" || f.Seq != want {
			t.Fatalf("got %+v, want event %d", f, want)
		}
	}
	if selected != 1 {
		t.Errorf("selected %d times", selected)
	}
	s.barrier()
	h.live(h.stream.store("ag1", "chats", "", "{}"))
	s.wantSeqs(7)
}

// Outside the bounds there is one gap, over all of it, and no event; then the
// session is live.
func TestResumeGaps(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Resume = ResumeOptions{Window: time.Minute, MaxEvents: 5, MaxBytes: 100} })
	f := func(name, query string, from, to float64, why string) {
		t.Helper()
		s := h.login("ag1", "u1", query, nil)
		s.expect("gap", map[string]any{"from": from, "to": to, "reason": why, "replayable": false})
		s.barrier()
		ev := h.stream.store("ag1", "chats", "", "{}")
		h.live(ev)
		s.wantSeqs(int(ev.Seq))
		_ = name
	}
	for range 5 {
		h.live(h.stream.store("ag1", "chats", "", "{}"))
	}
	h.login("ag1", "u1", resumeFrom(0), nil).wantSeqs(1, 2, 3, 4, 5)
	f("another stream", "&resume=other:3", 1, 5, "stream_reset")
	f("another stream, a high seq", "&resume=other:3000", 1, 6, "stream_reset")
	f("beyond the last", resumeFrom(8), 7, 7, "beyond_last")
	f("too many", resumeFrom(2), 3, 8, "too_many_events")
	h.live(h.stream.store("ag1", "chats", "", `{"a":"`+strings.Repeat("x", 93)+`"}`)) // 10, of 101 bytes
	f("too large", resumeFrom(9), 10, 10, "too_many_bytes")
	h.stream.set(func() { h.stream.events[10].Stamp -= int64(2 * time.Minute) }) // 11
	f("too old", resumeFrom(10), 11, 11, "window")
	h.stream.set(func() { h.stream.first = 9 })
	f("dropped", resumeFrom(7), 8, 12, "retention")
	h.login("ag1", "u1", resumeFrom(13), nil).barrier()

	legacy := h.login("ag1", "u2", "", nil)
	legacy.send(`{"type":"resume","payload":{"stream":"other","seq":2}}`)
	legacy.expect("error", map[string]any{"code": "SlowConsumer"})
	legacy.expectClose(4408, "gap")
}

// What is passed over while a replay runs comes behind it: no seam, whenever it
// is stored and delivered.
func TestResumeHasNoSeam(t *testing.T) {
	h := newHouse(t, nil)
	for range 3 {
		h.stream.store("ag1", "chats", "", "{}")
	}
	n := 0
	h.stream.set(func() {
		h.stream.reading = func() { // 2 more each time, 5 times
			if n++; n <= 5 {
				h.live(h.stream.store("ag1", "chats", "", "{}"))
				h.stream.store("ag1", "chats", "", "{}") // stored, delivered later
			}
		}
	})
	s := h.login("ag1", "u1", resumeFrom(1), nil)
	s.wantSeqs(2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
	s.barrier()
	h.stream.mu.Lock()
	late := h.stream.events[12]
	h.stream.mu.Unlock()
	h.live(late, h.stream.store("ag1", "chats", "", "{}")) // the first was replayed before it was delivered
	s.wantSeqs(14)
}

// A client that reads slowly gets all of it, pieces waiting for room; one that
// reads nothing is closed 4408, and holds up nobody.
func TestResumeOfSlowReaders(t *testing.T) {
	t.Parallel()
	const events, size = 200, 90 << 10
	h := newHouse(t, func(o *Options) {
		o.Limits.SendBudget = 64 << 10
		o.Resume.MaxBytes = 64 << 20
	})
	h.core.replays.patience = time.Second
	body := `{"a":"` + strings.Repeat("x", size) + `"}`
	var all []int
	for i := range events {
		h.stream.store("ag1", "chats", "", body)
		all = append(all, i+1)
	}
	for i := range replayWorkers + 1 { // more than may be at work at once
		h.login("ag1", fmt.Sprintf("stuck%d", i), resumeFrom(0), nil)
	}
	s := h.login("ag1", "slow", resumeFrom(0), nil)
	for i := 0; i < events; i += 40 {
		s.wantSeqs(all[i : i+40]...)
		time.Sleep(10 * time.Millisecond)
	}
	s.barrier()
	eventually(t, "the stuck ones are closed", func() bool { return h.core.index.Len() == 1 })
	if made, written, queued, discarded := h.env.engine.Ledger(); made != written+queued+discarded {
		t.Errorf("ledger: %d made, %d written, %d queued, %d discarded", made, written, queued, discarded)
	}
}

// An event larger than the half of the budget goes when nothing waits.
func TestResumeOfLargeEvents(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Limits.SendBudget = 64 << 10; o.Resume.MaxBytes = 16 << 20 })
	var all []int
	for i := range 20 {
		h.stream.store("ag1", "chats", "", `{"a":"`+strings.Repeat("x", 20000*(i%4))+`"}`)
		all = append(all, i+1)
	}
	h.login("ag1", "u1", resumeFrom(0), nil).wantSeqs(all...)
}

// While NATS has no answer a resume waits, and its commands with it; nobody is
// told a gap.
func TestResumeWaits(t *testing.T) {
	h := newHouse(t, nil)
	h.stream.store("ag1", "chats", "", "{}")
	h.stream.set(func() { h.stream.err = errDown })
	s := h.login("ag1", "u1", resumeFrom(0), nil)
	s.send(`{"type":"ready"}`)
	eventually(t, "it tries", func() bool { return h.stream.questions() > 2 })
	h.stream.set(func() { h.stream.err = nil })
	first, second := s.next(), s.next()
	if first.Type == "ready" { // overtakes what is queued
		first, second = second, first
	}
	if first.Type != "event" || first.Seq != 1 || second.Type != "ready" {
		t.Fatalf("got %+v and %+v", first, second)
	}
}

// The session's lock is looked at after the stream's end was read: one that was
// outranked gets nothing.
func TestResumeOfAnOutrankedSession(t *testing.T) {
	h := newHouse(t, nil)
	h.stream.store("ag1", "chats", "", "{}")
	h.redis.lost.Store(true)
	s := h.login("ag1", "u1", resumeFrom(0), nil)
	s.expect("error", map[string]any{"code": "SessionConflict"})
	s.expectClose(4402, "session-replaced")
	eventually(t, "no replay is left", func() bool { return h.core.replays.admitted.Load() == 0 })
}

// A stream that is replaced while a replay runs ends it: the gap comes from
// whoever replaced it.
func TestResumeWhileTheStreamIsReplaced(t *testing.T) {
	h := newHouse(t, nil)
	h.stream.store("ag1", "chats", "", "{}")
	n := session.Partition("acme", "ag1", 4)
	h.stream.set(func() {
		h.stream.reading = func() {
			h.stream.set(func() { h.stream.id, h.stream.reading = "new", nil })
			time.AfterFunc(50*time.Millisecond, func() { h.core.index.SetWatermark(n, 0) })
		}
	})
	s := h.login("ag1", "u1", resumeFrom(0), nil)
	s.barrier()
	h.live(session.Event{Seq: 1, Body: []byte("{}"), Route: session.Route{Company: "acme", Agent: "ag1", Kind: "chats"}})
	s.wantSeqs(1)
}

// A token's limits hold in a replay.
func TestResumeGrants(t *testing.T) {
	h := newHouse(t, nil)
	h.stream.store("ag1", "chats", "", "{}")       // 1
	h.stream.store("ag1", "agents", "", "{}")      // 2
	h.stream.store("ag1", "messages", "c1", "{}")  // 3
	h.stream.store("ag1", "messages", "c22", "{}") // 4
	h.stream.store("ag1", "new", "", "{}")         // 5
	f := func(chat string, c session.Claims, seqs ...int) {
		t.Helper()
		c.Company, c.Agent, c.User, c.ExpiresAt = "acme", "ag1", "u1", time.Now().Add(time.Hour)
		s, _ := h.dial("/ws/acme/ag1?token="+h.mintFor(c)+resumeFrom(0)+"&chat="+chat, map[string]string{"X-API-Key": testAPIKey}, nil)
		s.expect("ready", nil)
		s.wantSeqs(seqs...)
		s.barrier()
	}
	f("c1", session.Claims{}, 1, 2, 3, 5)
	f("c1", session.Claims{Chats: []string{"c2*"}}, 1, 2, 5)
	f("c22", session.Claims{Chats: []string{"c2*"}}, 1, 2, 4, 5)
	f("c1", session.Claims{Events: []string{"chats"}}, 1)
	f("c1", session.Claims{Events: []string{"messages", "agents"}}, 2, 3)
	f("", session.Claims{Events: []string{"contacts"}})
}

// Beyond what may wait, logins that resume are refused and told when to come
// again; those that do not are let in.
func TestResumesAreBounded(t *testing.T) {
	h := newHouse(t, nil)
	s := h.login("ag1", "u1", "&resume=", nil)
	h.core.replays.admitted.Store(replayLimit)
	s.send(`{"type":"resume","payload":{"stream":"` + testStream + `","seq":0}}`)
	s.expect("error", map[string]any{"code": "Overloaded"})
	_, answer := h.dial("/ws/acme/ag1?token="+h.token("ag1", "u2")+resumeFrom(0), map[string]string{"X-API-Key": testAPIKey}, nil)
	if answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" {
		t.Errorf("%d, Retry-After %q", answer.StatusCode, answer.Header.Get("Retry-After"))
	}
	h.login("ag1", "u3", "", nil).barrier()
	h.core.replays.admitted.Store(0)
	h.login("ag1", "u2", resumeFrom(0), nil).barrier()
}

// Who resumes hears of the watermark with a ping, once, unless an event went
// since the one before; others never do.
func TestCursor(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Ping.Interval = time.Second })
	n := session.Partition("acme", "ag1", 4)
	s, legacy := h.login("ag1", "u1", "&resume=", nil), h.login("ag1", "u2", "", nil)
	h.live(h.stream.store("ag1", "chats", "", "{}"))
	s.wantSeqs(1)
	legacy.wantSeqs(1)
	var d session.Delivered[*loop.Conn]
	h.core.index.Advance(n, 50, nil, &d)
	s.expect("cursor", map[string]any{"seq": 50.0})
	h.core.index.Advance(n, 60, nil, &d)
	s.expect("cursor", map[string]any{"seq": 60.0})
	s.barrier()
	legacy.barrier()
	h.live(session.Event{Seq: 61, Body: []byte("{}"), Route: session.Route{Company: "acme", Agent: "ag1", Kind: "chats"}})
	s.wantSeqs(61)
}

// Whatever ?resume= holds, it is a point or an error, and what was read can be
// written again.
func FuzzParseResume(f *testing.F) {
	for _, s := range []string{"", "a:1", "a:b:9007199254740991", ":1", "a:", "a:-1", "a:9007199254740992", "a:01", "a:+1", "\x00:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseResume(s)
		if p == nil {
			if err == nil && s != "" {
				t.Fatalf("%q is neither point nor error", s)
			}
			return
		}
		if err != nil || p.Stream == "" || p.Seq > maxSeq || len(p.Stream) > session.MaxID {
			t.Fatalf("%q: %+v, %v", s, p, err)
		}
		again, err := parseResume(p.Stream + ":" + strconv.FormatUint(p.Seq, 10))
		if err != nil || *again != *p {
			t.Fatalf("%q: %+v, then %+v, %v", s, p, again, err)
		}
	})
}
