package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// fakeWorld is what a partition sees, as a script of one test: the stream holds
// events, Redis an incarnation. It notes what was asked, in order.
type fakeWorld struct {
	id      string
	first   uint64
	events  []session.Event
	last    uint64
	inc     string
	age     time.Duration
	lapses  uint64
	down    bool // Redis
	revoked bool // the revocations of the beat are not in force
	between func(read int)
	reads   int
	asked   []string
	told    uint64        // end of the stream as of the last look
	hangs   chan struct{} // unless nil, the stream answers nothing, and says here that it was asked
}

var errDown = errors.New("down")

func (w *fakeWorld) note(format string, args ...any) {
	w.asked = append(w.asked, fmt.Sprintf(format, args...))
}

func (w *fakeWorld) Inc(context.Context, int) (string, uint64, error) {
	w.note("inc")
	if w.down {
		return "", 0, errDown
	}
	return w.inc, 0, nil
}

func (w *fakeWorld) Lookup(_ context.Context, _ int, wants []session.Want, _ bool) (session.Lookup, error) {
	w.note("lookup")
	if w.down {
		return session.Lookup{}, errDown
	}
	return session.Lookup{Inc: w.inc, Owners: make([][]session.Owner, len(wants))}, nil
}

func (w *fakeWorld) Beat() (time.Duration, uint64) { return w.age, w.lapses }
func (w *fakeWorld) Stream() natsx.Stream          { return natsx.Stream{ID: w.id, Partitions: 1, Last: w.told} }

func (w *fakeWorld) LastSeq(ctx context.Context) (first, last uint64, e error) {
	if w.hangs != nil {
		w.hangs <- struct{}{}
		<-ctx.Done()
		return 0, 0, ctx.Err()
	}
	return w.first, w.last, nil
}

func (w *fakeWorld) Read(_ context.Context, _ int, after, upto uint64, f func([]session.Event) error) error {
	w.note("read (%d,%d]", after, upto)
	for i := range w.events {
		if seq := w.events[i].Seq; seq <= after || seq > upto {
			continue
		}
		if w.reads++; w.between != nil {
			w.between(w.reads)
		}
		if err := f(w.events[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// Session's side of Redis: nothing is held, so nothing is asked but Inc.
func (w *fakeWorld) Acquire(context.Context, int, string, session.Key, uint64, bool, uint64) (session.Acquired, error) {
	return session.Acquired{}, errDown
}

func (w *fakeWorld) Open(context.Context, int, string, session.Held, bool) (session.Opened, error) {
	return session.Opened{}, errDown
}
func (w *fakeWorld) Release(int, session.Key, uint64) {}
func (w *fakeWorld) Reassert(context.Context, int, string, uint64, []session.Held) ([]session.Reasserted, bool, error) {
	return nil, false, nil
}

func (w *fakeWorld) JoinAll(context.Context, int, string, []session.Want) (bool, error) {
	return false, nil
}
func (w *fakeWorld) Leave(int, session.Want) {}
func (w *fakeWorld) Join(int, string, *session.Want, session.Held, func(session.Verdict, error)) error {
	return nil
}
func (w *fakeWorld) Room(int) bool { return true }
func (w *fakeWorld) Kill(context.Context, session.Owner, session.Key, uint64, uint64) bool {
	return true
}

// onlyPartition lets session ask the one there is.
type onlyPartition struct{ p **partition }

func (o onlyPartition) Assert(ctx context.Context, _ int) error { return (*o.p).Assert(ctx) }
func (o onlyPartition) Inc(int) string                          { return (*o.p).Inc() }

type missedRange struct {
	from, to   uint64
	why        string
	replayable bool
}

// newWorld gives a partition at watermark 10 of stream "s", asserted under "i1".
func newWorld(t *testing.T) (*fakeWorld, *partition, *[]missedRange) {
	t.Helper()
	w := &fakeWorld{id: "s", first: 1, last: 10, inc: "i1"}
	var p *partition
	m, err := session.NewManager(session.Options[*loop.Conn]{
		Owner: "a@1", Partitions: 1, Locks: w, Renewer: w, Routes: w, Killer: w, Parts: onlyPartition{&p},
	})
	if err != nil {
		t.Fatal(err)
	}
	var missed []missedRange
	p = newPartition(0, "s", &partitionEnv{
		index: m.Index(), manager: m, redis: w, stream: w, tally: newTally(metrics.NewSet()), lease: 10 * time.Second,
		revoked: func(context.Context) bool { return !w.revoked },
		heard:   func(_ context.Context, version uint64) bool { return !w.revoked && version <= 5 },
		missed: func(_ int, from, to uint64, why string, replayable bool) {
			missed = append(missed, missedRange{from, to, why, replayable})
		},
	})
	m.Index().SetWatermark(0, 10)
	if !p.openGate(context.Background()) {
		t.Fatal("the gate did not open")
	}
	w.asked = nil
	return w, p, &missed
}

func events(seqs ...uint64) []session.Event {
	var list []session.Event
	for _, s := range seqs {
		list = append(list, session.Event{Seq: s, Route: session.Route{Company: "c", Agent: "a", Kind: "chats"}, Body: []byte("{}")})
	}
	return list
}

func TestTake(t *testing.T) {
	type result struct {
		w     uint64
		acked []uint64
		asked []string
	}
	f := func(name string, prepare func(w *fakeWorld, p *partition), b session.Batch, want result) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			w, p, _ := newWorld(t)
			if b.Stream == "" {
				b.Stream = "s"
			}
			if b.Inc == "" {
				b.Inc = "i1"
			}
			if prepare != nil {
				prepare(w, p)
			}
			got := result{}
			p.take(context.Background(), parcel{batch: &b, ack: func(u uint64) { got.acked = append(got.acked, u) }})
			got.w, got.asked = p.env.index.Watermark(0), w.asked
			if got.w != want.w || !slices.Equal(got.acked, want.acked) || !slices.Equal(got.asked, want.asked) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	next := session.Batch{From: 10, Upto: 12, Events: events(11, 12)}
	f("continues the watermark", nil, next, result{12, []uint64{12}, nil})
	f("overlaps it", nil, session.Batch{From: 5, Upto: 12, Events: events(7, 11)}, result{12, []uint64{12}, nil})
	f("is a repeat", nil, session.Batch{From: 5, Upto: 10, Events: events(7)}, result{10, []uint64{10}, nil})
	f("is progress", nil, session.Batch{From: 10, Upto: 40}, result{40, []uint64{40}, nil})
	f("leaves a hole, which is read", func(w *fakeWorld, _ *partition) {
		w.events, w.last = events(11, 13), 13
	}, session.Batch{From: 11, Upto: 13, Events: events(13)},
		result{13, []uint64{13}, []string{"read (10,13]", "lookup", "lookup"}})
	f("leaves a hole that can't be read", func(w *fakeWorld, _ *partition) {
		w.events, w.last, w.down = events(11, 13), 13, true
	}, session.Batch{From: 11, Upto: 13, Events: events(13)}, result{10, nil, []string{"read (10,13]", "lookup"}})
	f("was looked up under an older incarnation", nil, session.Batch{From: 10, Upto: 12, Events: events(12), Inc: "i0"},
		result{10, nil, []string{"inc"}})
	f("tells of a newer incarnation: assert, repair", func(w *fakeWorld, _ *partition) {
		w.inc, w.events, w.last = "i2", events(12), 12
	}, session.Batch{From: 10, Upto: 12, Events: events(12), Inc: "i2"},
		result{12, nil, []string{"inc", "inc", "inc", "read (10,12]", "lookup"}})
	f("counts in another stream", nil, session.Batch{Stream: "old", From: 10, Upto: 12, Events: events(12)}, result{10, nil, nil})
	f("comes while the beat is old", func(w *fakeWorld, p *partition) { w.age = p.env.lease }, next, result{10, nil, nil})
	f("comes after a lapse: assert, repair, then it is a repeat", func(w *fakeWorld, _ *partition) {
		w.lapses, w.events, w.last = 1, events(11, 12), 12
	}, next, result{12, []uint64{12}, []string{"inc", "inc", "read (10,12]", "lookup", "lookup"}})
	f("comes before the revocations of the beat are in force", func(w *fakeWorld, _ *partition) { w.revoked = true }, next, result{10, nil, nil})
	heard := next
	heard.Revoked = 5
	f("knows of revocations that are in force", nil, heard, result{12, []uint64{12}, nil})
	heard.Revoked = 6
	f("knows of revocations that this pod has not heard of", nil, heard, result{10, nil, nil})
	f("leaves a hole, and the revocations are not in force", func(w *fakeWorld, _ *partition) {
		w.events, w.last, w.revoked = events(11, 12), 12, true
	}, session.Batch{From: 11, Upto: 12, Events: events(12)}, result{10, nil, nil})
	f("comes after a lapse, and the revocations are not in force: assert, read, deliver nothing", func(w *fakeWorld, _ *partition) {
		w.lapses, w.events, w.last, w.revoked = 1, events(11, 12), 12, true
	}, next, result{10, nil, []string{"inc", "inc", "read (10,12]", "lookup"}})
	f("comes in doubt, Redis down", func(w *fakeWorld, p *partition) {
		p.Doubt()
		w.down = true
	}, next, result{10, nil, []string{"inc"}})
}

// P4: what is delivered by a repair was looked up after it was read, under the
// incarnation that stands; one that changes in between is asserted first.
func TestRepairFollowsTheIncarnation(t *testing.T) {
	w, p, _ := newWorld(t)
	w.events, w.last = events(11, 12, 13), 13
	w.between = func(read int) {
		if read == 2 {
			w.inc = "i2"
		}
	}
	if err := p.repair(context.Background(), "hole"); err != nil {
		t.Fatal(err)
	}
	want := []string{"read (10,13]", "lookup", "lookup", "inc", "inc", "lookup", "lookup"}
	if !slices.Equal(w.asked, want) || p.Inc() != "i2" || p.env.index.Watermark(0) != 13 {
		t.Errorf("asked %v, inc %s, W %d", w.asked, p.Inc(), p.env.index.Watermark(0))
	}
}

func TestRepairTellsWhatTheStreamDropped(t *testing.T) {
	w, p, missed := newWorld(t)
	w.first, w.last, w.events = 21, 25, events(23)
	if err := p.repair(context.Background(), "silence"); err != nil {
		t.Fatal(err)
	}
	if want := []missedRange{{11, 20, "retention", false}}; !slices.Equal(*missed, want) || p.env.index.Watermark(0) != 25 {
		t.Errorf("missed %v, W %d", *missed, p.env.index.Watermark(0))
	}
}

// P2: another stream counts anew, and whoever was there is told.
func TestResetStartsOverAndTells(t *testing.T) {
	w, p, missed := newWorld(t)
	w.id, w.last = "t", 3
	b := &session.Batch{Stream: "s", From: 10, Upto: 12, Inc: "i1", Events: events(12)}
	p.take(context.Background(), parcel{batch: b}) // natsx moved on, we not yet
	if got := p.env.index.Watermark(0); got != 10 {
		t.Fatalf("W %d between the streams", got)
	}
	p.Reset(natsx.Stream{ID: "t", Last: 3})
	p.attend(context.Background())
	if len(*missed) != 1 || p.env.index.Watermark(0) != 3 {
		t.Fatalf("missed %v, W %d", *missed, p.env.index.Watermark(0))
	}
	p.take(context.Background(), parcel{batch: b}) // the old stream's, late
	if got := p.env.index.Watermark(0); got != 3 {
		t.Errorf("a late batch of the old stream moved W to %d", got)
	}
	p.take(context.Background(), parcel{batch: &session.Batch{Stream: "t", From: 3, Upto: 4, Inc: "i1", Events: events(4)}})
	if got := p.env.index.Watermark(0); got != 4 {
		t.Errorf("W %d, want 4", got)
	}
}

func TestOfferIsBounded(t *testing.T) {
	_, p, _ := newWorld(t)
	big := &session.Batch{Events: []session.Event{{Body: make([]byte, inboxBytes/2)}}}
	took := 0
	for p.Offer(parcel{batch: big}) {
		took++
	}
	if took < 1 || took > 2 {
		t.Errorf("took %d batches of half the bytes", took)
	}
	_, p, _ = newWorld(t)
	for took = 0; p.Offer(parcel{batch: &session.Batch{}}); took++ {
	}
	if took != inboxBatches {
		t.Errorf("took %d batches, want %d", took, inboxBatches)
	}
}

// A worker whose reader fell silent serves itself, and asks no more than it must.
func TestSelfService(t *testing.T) {
	w, p, _ := newWorld(t)
	w.events, w.last = events(11), 11
	p.heard = time.Now()
	p.selfServe(context.Background())
	if len(w.asked) != 0 {
		t.Errorf("asked %v though batches come", w.asked)
	}
	p.Broken()
	p.selfServe(context.Background())
	if got := p.env.index.Watermark(0); got != 11 {
		t.Errorf("W %d after the peer's stream broke", got)
	}
	p.broken.Store(false)
	p.heard = time.Now().Add(-silence)
	w.events, w.last = events(12), 12
	p.selfServe(context.Background())
	if got := p.env.index.Watermark(0); got != 12 {
		t.Errorf("W %d after silence", got)
	}
	p.heard = time.Now()
	w.events, w.last = events(13), 13
	if p.patience(time.Now()) > selfService {
		t.Error("waits for a reader that is not there")
	}
	p.selfServe(context.Background())
	if got := p.env.index.Watermark(0); got != 13 {
		t.Errorf("W %d: what came next was late, too", got)
	}
	p.take(context.Background(), parcel{batch: &session.Batch{Stream: "s", From: 13, Upto: 13, Inc: p.Inc()}})
	w.events, w.last = events(14), 14
	p.selfServe(context.Background())
	if got := p.env.index.Watermark(0); got != 13 {
		t.Errorf("W %d though a reader is back", got)
	}
}

// Silence counts from when more is known to be owed, not from when an idle
// reader spoke last.
func TestSilenceOfIdleReaders(t *testing.T) {
	w, p, _ := newWorld(t)
	start := time.Now()
	p.heard = start
	listen := func(after time.Duration, last uint64, patience time.Duration) {
		t.Helper()
		w.told = last
		p.listen(start.Add(after))
		if got := silence - start.Add(after).Sub(p.heard); got != patience {
			t.Errorf("after %v with %d stored: serves itself in %v, want %v", after, last, got, patience)
		}
	}
	listen(time.Hour, 10, silence)
	listen(2*time.Hour, 11, owedPatience)
	listen(2*time.Hour+time.Second, 11, owedPatience-time.Second)
	listen(2*time.Hour+2*time.Second, 12, owedPatience-2*time.Second)
	listen(2*time.Hour+3*time.Second, 10, silence)
}

// A hole that the stream's leader does not fill yet is left for later: what
// comes behind it must not pass.
func TestTakeLeavesAHoleThatIsNotThereYet(t *testing.T) {
	w, p, _ := newWorld(t)
	w.last = 10
	b := &session.Batch{Stream: "s", From: 11, Upto: 12, Inc: "i1", Events: events(12)}
	p.take(context.Background(), parcel{batch: b})
	if got := p.env.index.Watermark(0); got != 10 {
		t.Fatalf("W %d", got)
	}
	w.events, w.last = events(11, 12), 12
	p.take(context.Background(), parcel{batch: b})
	if got := p.env.index.Watermark(0); got != 12 {
		t.Errorf("W %d, want 12", got)
	}
}
