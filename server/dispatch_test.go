package server

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// fakeHouse is what a dispatch sees: it notes what each pod was offered.
type fakeHouse struct {
	live    []session.Pod
	streams map[session.Owner]uint64
	stream  natsx.Stream
	lastOf  uint64
	refuse  bool // peers' queues are full
	asked   int  // what was heard of revocations
	got     map[session.Owner][]string
}

func (h *fakeHouse) Inc(context.Context, int) (string, uint64, error) { return "i", 0, nil }
func (h *fakeHouse) Beat() (age time.Duration, lapses uint64)         { return 0, 0 }
func (h *fakeHouse) Stream() natsx.Stream                             { return h.stream }
func (h *fakeHouse) LastOf(context.Context, ...string) (uint64, error) {
	return h.lastOf, nil
}

// Lookup says that everybody wants everything.
func (h *fakeHouse) Lookup(_ context.Context, _ int, wants []session.Want, _ bool) (session.Lookup, error) {
	l := session.Lookup{Inc: "i"}
	for range wants {
		l.Owners = append(l.Owners, []session.Owner{"a@1", "b@1", "c@1"})
	}
	return l, nil
}

type fakePeers struct{ *fakeHouse }

func (p fakePeers) Stream(to session.Owner) uint64 { return p.streams[to] }
func (p fakePeers) Send(to session.Owner, b *session.Batch) bool {
	if p.refuse {
		return false
	}
	p.note(to, b)
	return true
}

func (h *fakeHouse) note(to session.Owner, b *session.Batch) {
	var seqs []uint64
	for _, e := range b.Events {
		seqs = append(seqs, e.Seq)
	}
	h.got[to] = append(h.got[to], fmt.Sprintf("(%d,%d]%v", b.From, b.Upto, seqs))
	if b.Revoked != 5 && len(seqs) > 0 {
		h.got[to] = append(h.got[to], fmt.Sprint("knows of revocations up to ", b.Revoked))
	}
}

func (h *fakeHouse) heard(context.Context) (uint64, bool) {
	h.asked++
	return 5, h.asked%2 == 0 // what it has heard is old, every other time
}

func newHouse3() (*fakeHouse, *dispatch) {
	h := &fakeHouse{
		live:    []session.Pod{{Owner: "a@1"}, {Owner: "b@1"}},
		streams: map[session.Owner]uint64{"b@1": 7, "c@1": 8},
		stream:  natsx.Stream{ID: "s"}, got: map[session.Owner][]string{},
	}
	d := newDispatch(0, &dispatchEnv{
		self: "a@1", stream: h, redis: h, peers: fakePeers{h}, tally: newTally(metrics.NewSet()),
		live:  func() []session.Pod { return h.live },
		local: func(b *session.Batch) bool { h.note("a@1", b); return true },
		heard: h.heard,
	})
	d.stream, d.pos = "s", 10
	return h, d
}

func (h *fakeHouse) want(t *testing.T, q session.Owner, want ...string) {
	t.Helper()
	if !slices.Equal(h.got[q], want) {
		t.Errorf("%s was offered %v, want %v", q, h.got[q], want)
	}
}

// From says what a pod was offered before, without a word between the lines:
// whoever was left out of a round finds a hole.
func TestDispatchOffersRangesWithoutLies(t *testing.T) {
	ctx := context.Background()
	h, d := newHouse3()
	d.batch(ctx, events(11, 12))
	d.batch(ctx, events(15))
	h.live = h.live[:1] // b leaves the list, for its beat is late
	d.batch(ctx, events(16))
	h.live = append(h.live, session.Pod{Owner: "b@1"})
	d.batch(ctx, events(18))
	h.want(t, "a@1", "(10,12][11 12]", "(12,15][15]", "(15,16][16]", "(16,18][18]")
	h.want(t, "b@1", "(10,12][11 12]", "(12,15][15]", "(16,18][18]")

	h, d = newHouse3()
	d.batch(ctx, events(11))
	h.streams["b@1"] = 0 // its stream broke
	d.batch(ctx, events(12))
	h.streams["b@1"] = 9
	d.batch(ctx, events(13))
	h.want(t, "b@1", "(10,11][11]", "(12,13][13]")

	h, d = newHouse3()
	d.batch(ctx, events(11))
	h.streams["b@1"] = 9 // another stream: what was sent on the old one may be lost
	d.batch(ctx, events(12))
	h.want(t, "b@1", "(10,11][11]", "(11,12][12]")

	h, d = newHouse3()
	h.refuse = true // its queue is full: the part is dropped, and told by the next From
	d.batch(ctx, events(11))
	h.refuse = false
	d.batch(ctx, events(12))
	h.want(t, "b@1", "(11,12][12]")
}

// Idle readers report progress, and pass what other partitions stored only when
// this one has nothing there.
func TestDispatchReportsProgress(t *testing.T) {
	ctx := context.Background()
	h, d := newHouse3()
	d.batch(ctx, events(11))
	h.stream.Last, h.lastOf = 40, 11
	d.inc = "" // a second has passed
	r := &fakeReader{current: true}
	d.idle(ctx, r)
	h.want(t, "b@1", "(10,11][11]", "(11,40][]")
	h.stream.Last, h.lastOf = 50, 55 // on its way
	d.inc = ""
	d.idle(ctx, r)
	h.live = append(h.live, session.Pod{Owner: "c@1"})
	d.idle(ctx, r)
	if len(r.owed) > 0 {
		t.Errorf("asked for %v, stored after the end was read", r.owed)
	}
	d.batch(ctx, events(45))
	h.want(t, "b@1", "(10,11][11]", "(11,40][]", "(40,40][]", "(40,45][45]")
	h.want(t, "c@1", "(40,40][]", "(40,45][45]")
	h.live = h.live[:1]
	d.idle(ctx, r)
	if len(d.sent) != 1 {
		t.Errorf("marks of %d pods kept", len(d.sent))
	}
}

// Nothing is said that everybody was told, but to whom it may not have reached.
func TestDispatchKeepsSilentWhenAllKnow(t *testing.T) {
	ctx := context.Background()
	h, d := newHouse3()
	r := &fakeReader{current: true}
	say := func(what string, want ...string) {
		t.Helper()
		h.got = map[session.Owner][]string{}
		d.idle(ctx, r)
		if !slices.Equal(h.got["b@1"], want) {
			t.Errorf("%s: b was offered %v, want %v", what, h.got["b@1"], want)
		}
	}
	say("at first", "(10,10][]")
	say("nothing new")
	h.streams["b@1"] = 9
	say("another stream", "(10,10][]")
	say("nothing new")
	h.refuse = true
	d.batch(ctx, events(11))
	h.refuse = false
	say("the last was dropped: its hole shows", "(11,11][]")
	say("nothing new")
	d.told = "before"
	say("another incarnation", "(11,11][]")
	h.live = append(h.live, session.Pod{Owner: "c@1"})
	say("one more pod", "(11,11][]")
	say("nothing new")
	h.stream.Last, h.lastOf = 20, 11
	d.asked = time.Time{}
	say("others' events", "(11,20][]")
}

// A reader that does not get what the leader holds is told so, and reports
// nothing: all others look for themselves.
func TestDispatchAsksForWhatIsOwed(t *testing.T) {
	ctx := context.Background()
	h, d := newHouse3()
	h.stream.Last, h.lastOf = 40, 35
	r := &fakeReader{current: true}
	d.idle(ctx, r)
	if !slices.Equal(r.owed, []uint64{35}) {
		t.Errorf("asked for %v, want 35", r.owed)
	}
	h.want(t, "b@1")
	d.idle(ctx, r) // took another consumer, which is not there yet
	h.want(t, "b@1")
	if d.pos != 10 {
		t.Errorf("at %d, past what is owed", d.pos)
	}
}

// fakeReader is as current as told, until something is owed.
type fakeReader struct {
	eventReader
	current bool
	owed    []uint64
}

func (r *fakeReader) Current() bool { return r.current }
func (r *fakeReader) Owes(seq uint64) {
	r.owed = append(r.owed, seq)
	r.current = false
}
