package session

import (
	"slices"
	"testing"
)

// hear is a put that notes what was queued, and answers what the socket says.
type ear struct {
	got     []*sock
	answers map[*sock]Put
}

func (e *ear) put(s *sock) Put {
	if a := e.answers[s]; a != Queued {
		return a
	}
	e.got = append(e.got, s)
	return Queued
}

func event(seq uint64, route string) *Event {
	r, ok := ParseRoute(route)
	if !ok {
		panic("bad route in test: " + route)
	}
	return &Event{Seq: seq, Route: r, Body: []byte("{}")}
}

// The table of states and events: what a session in each state does with an
// event, a fence, a kill, and how it is left.
func TestStateTable(t *testing.T) {
	const seq = 100
	type outcome struct {
		got    bool // the event was queued
		state  State
		fenced bool
	}
	f := func(state State, epoch uint64, do string, want outcome) {
		t.Helper()
		w := newWorld()
		a := w.pod(t, "a@1")
		n := alice.Partition(testPartitions)
		w.last = epoch - 1
		a.m.Index().SetWatermark(n, seq-1)
		s := a.mustLogin(t, alice, Login{Replay: state == Replay, After: 5})
		sh := a.m.shard(s)
		switch state {
		case Joining:
			s.state = Joining
			sh.live--
			defer func() { s.state = Live; sh.live++ }()
		case Closing:
			a.m.Close(s, ReasonClient, "")
		}
		var d Delivered[*sock]
		var e ear
		x := a.m.Index()
		switch do {
		case "event":
			x.Deliver(n, event(seq, "acme.ag1.chats"), nil, e.put, &d)
		case "old event":
			x.Deliver(n, event(seq-1, "acme.ag1.chats"), nil, e.put, &d)
		case "event, outranked":
			x.Deliver(n, event(seq, "acme.ag1.chats"), []Fence{{"acme", "ag1", "alice", epoch + 1}}, e.put, &d)
		case "event, fence of its own":
			x.Deliver(n, event(seq, "acme.ag1.chats"), []Fence{{"acme", "ag1", "alice", epoch}, {"acme", "ag1", "bob", epoch + 9}}, e.put, &d)
		case "progress, outranked":
			x.Advance(n, seq, []Fence{{"acme", "ag1", "alice", epoch + 1}}, &d)
		}
		got := outcome{len(e.got) == 1, s.state, slices.Contains(d.Fenced, s)}
		if got != want {
			t.Errorf("%v, %s: got %+v; want %+v", state, do, got, want)
		}
		if passed := state == Replay && (do == "event" || do == "event, fence of its own"); passed != (s.mark == seq) || !passed && s.mark != 0 {
			t.Errorf("%v, %s: mark %d", state, do, s.mark)
		}
		if got.fenced { // dooms: not even a later event without the fence is taken
			x.Deliver(n, event(seq+1, "acme.ag1.chats"), nil, e.put, &d)
			if len(e.got) > 0 || len(d.Fenced) != 1 {
				t.Errorf("%v, %s: took an event after its fence", state, do)
			}
		}
	}
	for _, state := range []State{Joining, Live, Replay, Closing} {
		inside := state != Closing
		f(state, 7, "event", outcome{state == Live, state, false})
		f(state, 7, "old event", outcome{false, state, false})
		f(state, 7, "event, outranked", outcome{false, state, inside})
		f(state, 7, "event, fence of its own", outcome{state == Live, state, false})
		f(state, 7, "progress, outranked", outcome{false, state, inside})
	}
}

// P1, P3: what can't be queued ends in a close, and nothing newer is taken.
func TestDeliverToSlowAndGone(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	n := alice.Partition(testPartitions)
	var all []*Session[*sock]
	e := ear{answers: map[*sock]Put{}}
	for i, put := range []Put{Queued, Slow, Gone, Missed} {
		s := a.mustLogin(t, Key{"acme", "ag1", string(rune('a' + i))}, Login{})
		all = append(all, s)
		e.answers[s.Sock()] = put
	}
	var d Delivered[*sock]
	a.m.Index().Deliver(n, event(1, "acme.ag1.chats"), nil, e.put, &d)
	if d.Receivers != 1 || d.Missed != 1 || !slices.Equal(d.Slow, all[1:2]) || all[0].last != 1 {
		t.Errorf("%+v", d)
	}
	if from, hole := all[3].Hole(); from != 1 || !hole {
		t.Errorf("hole from %d: %v", from, hole)
	}
	clear(e.answers) // all could take it now; the slow one must not
	a.m.Index().Deliver(n, event(2, "acme.ag1.chats"), nil, e.put, &d)
	if _, hole := all[3].Hole(); hole {
		t.Error("a hole is left after the event behind it")
	}
	if d.Receivers != 4 || slices.Contains(e.got, all[1].Sock()) || len(d.Slow) != 1 {
		t.Errorf("after: %+v", d)
	}
	a.m.Finish(&d)
	if all[1].Sock().closed() != 4408 || all[0].Sock().closed() != 0 || len(d.Slow) != 0 || d.Receivers != 0 {
		t.Errorf("close codes %d, %d; %+v", all[1].Sock().closed(), all[0].Sock().closed(), d)
	}
	a.whole(t)
}

// A hole behind which nothing comes is told with the next ping, once.
func TestHoleIsToldWithThePings(t *testing.T) {
	a := newWorld().pod(t, "a@1")
	n := alice.Partition(testPartitions)
	s := a.mustLogin(t, alice, Login{})
	e := ear{answers: map[*sock]Put{s.Sock(): Missed}}
	var d Delivered[*sock]
	a.m.Index().Deliver(n, event(1, "acme.ag1.chats"), nil, e.put, &d)
	told := 0
	cursor := func(taken bool) {
		a.m.Index().Cursor(s, func(seq uint64) bool {
			if from, hole := s.Hole(); !hole || from != 1 || seq != 1 {
				t.Errorf("hole %v from %d to %d", hole, from, seq)
			}
			told++
			return taken
		})
	}
	cursor(false) // no room yet
	cursor(true)
	cursor(true)
	if told != 2 {
		t.Errorf("told %d times, want 2: once in vain", told)
	}
}

// P1: an event that would break a socket's order is counted and ends it.
func TestDeliverOutOfOrder(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	s := a.mustLogin(t, alice, Login{})
	s.last = 50 // cannot happen; if it does, this is what stops it
	var d Delivered[*sock]
	var e ear
	a.m.Index().Deliver(alice.Partition(testPartitions), event(50, "acme.ag1.chats"), nil, e.put, &d)
	a.m.Finish(&d)
	if len(e.got) != 0 || s.Sock().closed() != 1011 || a.m.metrics.disordered.Get() != 1 {
		t.Errorf("got %d events, code %d", len(e.got), s.Sock().closed())
	}
}

// P2: the watermark only rises, but for another stream.
func TestWatermark(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	n := alice.Partition(testPartitions)
	x := a.m.Index()
	s := a.mustLogin(t, alice, Login{})
	var d Delivered[*sock]
	var e ear
	x.Deliver(n, event(10, "other.agent.chats"), nil, e.put, &d)
	x.Deliver(n, event(9, "acme.ag1.chats"), nil, e.put, &d) // a repeat of another reader
	x.Advance(n, 8, nil, &d)
	if x.Watermark(n) != 10 || len(e.got) != 0 {
		t.Errorf("W is %d, %d events", x.Watermark(n), len(e.got))
	}
	x.Advance(n, 20, nil, &d)
	x.Deliver(n, event(21, "acme.ag1.chats"), nil, e.put, &d)
	if x.Watermark(n) != 21 || len(e.got) != 1 {
		t.Errorf("W is %d, %d events", x.Watermark(n), len(e.got))
	}
	x.SetWatermark(n, 3) // a new stream counts from the start
	x.Deliver(n, event(4, "acme.ag1.chats"), nil, e.put, &d)
	if len(e.got) != 2 || len(d.Disordered) != 0 || s.last != 4 {
		t.Errorf("after a new stream: %d events, %+v", len(e.got), d)
	}
}

// Who gets what (wire.md).
func TestDeliverRoutes(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	chat, other := "628@s.whatsapp.net", "628"
	with := func(user string, c *string, p Profile) *Session[*sock] {
		s := a.m.NewSession(&sock{}, Key{"acme", "ag1", user}, p)
		if err := a.m.Open(t.Context(), s, Login{Chat: c}, func(*Session[*sock], Ready) {}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	plain := with("plain", nil, Profile{})
	dotted := with("dotted", &chat, Profile{})
	short := with("short", &other, Profile{})
	onlyMessages := with("limited", &chat, Profile{Grants: NewGrants(&Claims{Events: []string{KindMessages}})})
	stranger := a.mustLogin(t, Key{"acme2", "ag1", "plain"}, Login{Chat: &chat})
	names := map[*sock]string{plain.Sock(): "plain", dotted.Sock(): "dotted", short.Sock(): "short", onlyMessages.Sock(): "limited", stranger.Sock(): "stranger"}
	seq := uint64(0)
	f := func(route string, want ...string) {
		t.Helper()
		seq++
		var d Delivered[*sock]
		var e ear
		ev := event(seq, route)
		n := Partition(ev.Route.Company, ev.Route.Agent, testPartitions)
		a.m.Index().Deliver(n, ev, nil, e.put, &d)
		var got []string
		for _, s := range e.got {
			got = append(got, names[s])
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s went to %v; want %v", route, got, want)
		}
	}
	f("acme.ag1.chats", "dotted", "plain", "short")
	f("acme.ag1.contacts", "dotted", "plain", "short")
	f("acme.ag1.agents", "dotted", "plain", "short")
	f("acme.ag1.whatever", "dotted", "plain", "short")
	f("acme.ag1.messages.628@s.whatsapp.net", "dotted", "limited")
	f("acme.ag1.messages.628", "short")
	f("acme.ag1.messages.629")
	f("acme.ag2.chats")
	f("acme2.ag1.chats", "stranger")
	if got := a.m.Index().Push(plain.Partition(), Route{Company: "acme", Agent: "ag1", Kind: KindMessages}, (&ear{}).put); got != 4 {
		t.Errorf("a push to all of the agent reached %d; want 4", got)
	}
	if got := a.m.Index().Push(plain.Partition(), Route{Company: "acme", Agent: "ag1", Kind: KindMessages, Chat: chat}, (&ear{}).put); got != 2 {
		t.Errorf("a push to a chat reached %d; want 2", got)
	}
}

func TestReplay(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	n, x := alice.Partition(testPartitions), a.m.Index()
	s := a.mustLogin(t, alice, Login{})
	var d Delivered[*sock]
	var e ear
	if !x.BeginReplay(s, 0) || x.BeginReplay(s, 0) {
		t.Error("a replay begins once")
	}
	x.Deliver(n, event(7, "acme.ag1.chats"), nil, e.put, &d)
	if more, live := x.Replayed(s, 5); more != 7 || live {
		t.Errorf("more %d, live %v; event 7 was passed over", more, live)
	}
	if _, live := x.Replayed(s, 7); !live || x.State(s) != Live {
		t.Errorf("not live: %v", x.State(s))
	}
	x.Deliver(n, event(8, "acme.ag1.chats"), nil, e.put, &d)
	if len(e.got) != 1 || s.last != 8 {
		t.Errorf("%d events, last %d", len(e.got), s.last)
	}
	// The stream was read beyond W: what comes live after that is a repeat.
	x.BeginReplay(s, 8)
	x.Replayed(s, 20)
	x.Deliver(n, event(15, "acme.ag1.chats"), nil, e.put, &d)
	x.Deliver(n, event(21, "acme.ag1.chats"), nil, e.put, &d)
	if len(e.got) != 2 || len(d.Disordered) != 0 || s.last != 21 {
		t.Errorf("%d events, last %d, %d disordered", len(e.got), s.last, len(d.Disordered))
	}
	if _, live := x.Replayed(s, 9); live {
		t.Error("a replay ended twice")
	}
}
