package natsx

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/daisi/daisi-ws/natsx/natstest"
)

// TestStreamsMadeTogether starts pods at the same time: one stream, one id.
func TestStreamsMadeTogether(t *testing.T) {
	srv := natstest.StartProcess(t)
	var pods []*Client
	for range 5 {
		pods = append(pods, run(t, Options{URL: srv.URL, CreateStream: true}))
	}
	want := ready(t, pods[0])
	made := uint64(0)
	for _, c := range pods {
		if s := ready(t, c); s.ID != want.ID {
			t.Fatalf("ids %s and %s", s.ID, want.ID)
		}
		made += c.m.made.Get()
	}
	if made != 1 {
		t.Fatalf("made %d times", made)
	}
}

// TestStreamHasNoStorage: the server can't set aside what a stream asks for, and
// the error says what to change.
func TestStreamHasNoStorage(t *testing.T) {
	c := run(t, Options{URL: natstest.StartProcess(t).URL, CreateStream: true, MaxBytes: 1 << 40})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := c.Ready(ctx); err == nil || !strings.Contains(err.Error(), "max_file_store") {
		t.Fatalf("got %v; want what to change", err)
	}
}

// TestStreamConfig: what was asked for, kept by the server; what an operator
// changed, kept by us.
func TestStreamConfig(t *testing.T) {
	srv := natstest.Start(t)
	start(t, Options{URL: srv.URL, CreateStream: true, MaxAge: 2 * time.Minute, MaxBytes: 32 << 20})
	js := srv.JetStream(t)
	s, err := js.Stream(t.Context(), "dws_events")
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	if cfg.MaxAge != 2*time.Minute || cfg.MaxBytes != 32<<20 || !cfg.AllowDirect || cfg.Discard != jetstream.DiscardOld ||
		cfg.Retention != jetstream.LimitsPolicy || cfg.Storage != jetstream.FileStorage || len(cfg.Subjects) != 0 || len(cfg.Sources) != 1 {
		t.Fatalf("unexpected config %+v", cfg)
	}
	cfg.Description, cfg.MaxMsgSize = "mine", 1<<24
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	second := start(t, Options{URL: srv.URL, MaxAge: 3 * time.Minute, MaxBytes: 64 << 20})
	if s, err = js.Stream(t.Context(), "dws_events"); err != nil {
		t.Fatal(err)
	}
	got := s.CachedInfo().Config
	if got.MaxAge != 3*time.Minute || got.MaxBytes != 64<<20 || got.Description != "mine" || got.MaxMsgSize != 1<<24 || len(got.Sources) != 1 {
		t.Fatalf("unexpected config %+v", got)
	}
	if second.m.resourced.Get() != 0 {
		t.Fatal("sources were set up again without need")
	}
}

// TestMetrics: series don't depend on what happens, and carry no ids.
func TestMetrics(t *testing.T) {
	srv := natstest.Start(t)
	set := metrics.NewSet()
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 2, Metrics: set})
	names := func() string {
		var b bytes.Buffer
		set.WritePrometheus(&b)
		var names []string
		for line := range strings.Lines(b.String()) {
			name, _, _ := strings.Cut(line, " ")
			names = append(names, name)
			if !strings.HasPrefix(name, "dws_nats_") {
				t.Errorf("unexpected series %s", name)
			}
		}
		return strings.Join(names, "\n")
	}
	before := names()
	r := c.Reader(0, 0)
	defer r.Close()
	other := c.Reader(1, 0)
	defer other.Close()
	pub := srv.Publisher(t)
	for _, agent := range []string{"a", "b", "c", "d", "e", "f"} {
		pub.Publish("websocket.c."+agent+".chats", `{}`)
		pub.Publish("websocket.c."+agent+".chats", `x`)
	}
	until(t, "all read", func() bool {
		for _, r := range []*Reader{r, other} {
			if _, err := r.Next(t.Context()); err != nil && !errors.Is(err, ErrIdle) {
				t.Fatal(err)
			}
		}
		return c.m.events.Get() == 6 && c.m.poison[PoisonBody].Get() == 6
	})
	if after := names(); after != before {
		t.Fatalf("series before:\n%s\nafter:\n%s", before, after)
	}
}

// TestRunAgain: a Client may be run again after its Run ended.
func TestRunAgain(t *testing.T) {
	srv := natstest.Start(t)
	c, err := New(Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	pub := srv.Publisher(t)
	var r *Reader
	for i := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		ready(t, c)
		if r == nil {
			r = c.Reader(0, 0)
			defer r.Close()
		}
		pub.Publish("websocket.c.a.chats", body(i))
		checkNumbers(t, readUntil(t, r, 1), i)
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if c.Connected() == nil {
			t.Fatal("connected after Run ended")
		}
	}
}
