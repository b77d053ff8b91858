package bench

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/daisi/daisi-ws/natsx/natstest"
)

func TestFeedOrder(t *testing.T) {
	host := natstest.Start(t)
	nc := host.Conn(t)
	sub, err := nc.SubscribeSync("websocket.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	b, p := testPage()
	f, err := OpenFeed(t.Context(), b, FeedOptions{URL: host.URL, Create: true, Window: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const count = 100
	if err := f.Play(t.Context(), Pacer{Start: time.Now()}, count, func(i int) (*Page, uint16) { return p, uint16(i % 3) }); err != nil {
		t.Fatal(err)
	}
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		m, err := sub.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		mark, err := ParseBody(m.Data)
		if err != nil || int(mark.N) != i || int(mark.Topic) != i%3 || int(mark.K) != i/3 || m.Subject != p.Subject("websocket", mark.Topic) {
			t.Fatalf("event %d on %s: %+v, %v", i, m.Subject, mark, err)
		}
	}
	s, err := f.Stats()
	if err != nil || s.Sent != count || s.Acked != count || s.Refused != 0 || b.Unsure() != 0 {
		t.Errorf("stats %+v, unsure %d, error %v", s, b.Unsure(), err)
	}
}

// Events that nobody acknowledged are unsure, whatever became of them.
func TestFeedUnsure(t *testing.T) {
	host := natstest.Start(t)
	b, p := testPage()
	f, err := OpenFeed(t.Context(), b, FeedOptions{URL: host.URL, Create: true, AckTimeout: 200 * time.Millisecond, Window: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	host.DeleteStream(t, "wa_stream")
	if err := f.Play(t.Context(), Pacer{Start: time.Now()}, 10, func(int) (*Page, uint16) { return p, 0 }); err != nil {
		t.Fatal(err)
	}
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.Unsure() != 10 || b.Published() != 10 {
		t.Errorf("published %d, unsure %d; want 10, 10", b.Published(), b.Unsure())
	}
}

// NATS keeps the feed for 0.5 s: what was due meanwhile is late for its sake.
func TestFeedHeld(t *testing.T) {
	host := natstest.Start(t)
	host.MakeStream(t, "wa_stream", "elsewhere.>")
	nc := host.Conn(t)
	began := time.Now()
	_, err := nc.Subscribe("websocket.>", func(m *nats.Msg) {
		_ = Wait(context.Background(), began.Add(500*time.Millisecond))
		_ = m.Respond([]byte(`{"stream":"wa_stream","seq":1}`))
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	b, p := testPage()
	f, err := OpenFeed(t.Context(), b, FeedOptions{URL: host.URL, Window: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Play(t.Context(), Pacer{Start: began, Rate: 200}, 150, func(int) (*Page, uint16) { return p, 0 }); err != nil {
		t.Fatal(err)
	}
	s, err := f.Stats()
	// More than half were due while nothing came through, or right after it.
	if err != nil || s.Stalls == 0 || s.Lag.Count < 50 || s.Lag.P99 > maxFeedLag.Seconds() {
		t.Errorf("stats %+v, error %v", s, err)
	}
}

// NATS reads nothing for a second: who writes to it then waits in the write.
func TestFeedBlocked(t *testing.T) {
	p := natstest.StartProcess(t)
	b, page := testPage()
	f, err := OpenFeed(t.Context(), b, FeedOptions{URL: p.URL, Create: true, Size: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.Stop()
	played := make(chan error, 1)
	began := time.Now()
	go func() {
		played <- f.Play(t.Context(), Pacer{Start: began, Rate: 300}, 450, func(int) (*Page, uint16) { return page, 0 })
	}()
	_ = Wait(t.Context(), began.Add(time.Second)) // the fault itself
	p.Cont()
	err = <-played
	s, statsErr := f.Stats()
	// What is left is how long the generator takes to catch up.
	if err != nil || statsErr != nil || s.Stalls == 0 || s.Lag.P99 > 0.3 {
		t.Errorf("stats %+v, error %v, %v", s, err, statsErr)
	}
}

func TestFeedFailure(t *testing.T) {
	host := natstest.Start(t)
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	for _, o := range []FeedOptions{{}, {URL: "nats://127.0.0.1:1"}, {URL: host.URL}} {
		if f, err := OpenFeed(ctx, NewBook(1), o); err == nil {
			f.Close()
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestPacer(t *testing.T) {
	start := time.Unix(100, 0)
	f := func(p Pacer, i int, want time.Duration) {
		t.Helper()
		p.Start = start
		if got := p.Due(i).Sub(start); got != want {
			t.Errorf("event %d of %+v is due after %v, want %v", i, p, got, want)
		}
	}
	f(Pacer{Rate: 500}, 0, 0)
	f(Pacer{Rate: 500}, 500, time.Second)
	f(Pacer{Rate: 500, Burst: 10}, 9, 0)
	f(Pacer{Rate: 500, Burst: 10}, 19, 20*time.Millisecond)
	f(Pacer{}, 1000, 0)
}

func TestWait(t *testing.T) {
	due := time.Now().Add(5 * time.Millisecond)
	if err := Wait(t.Context(), due); err != nil || time.Now().Before(due) {
		t.Errorf("woke %v early, %v", time.Until(due), err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := Wait(ctx, time.Now().Add(time.Hour)); err == nil {
		t.Error("no error although ctx ended")
	}
}
