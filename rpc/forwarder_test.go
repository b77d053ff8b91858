package rpc

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daisi/daisi-ws/session"
)

func TestPeersFollowTheLiveList(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Service, n *fakeNet) {
		first := s.Stream("b@1")
		s.SetPeers([]session.Pod{{Owner: "b@1", Addr: "b:1"}})
		synctest.Wait()
		if s.Stream("b@1") != first {
			t.Error("the same list made another stream")
		}
		s.SetPeers([]session.Pod{{Owner: "b@1", Addr: "b:2"}})
		synctest.Wait()
		if again := s.Stream("b@1"); again <= first {
			t.Errorf("another address: generation %d after %d", again, first)
		}
		n.mu.Lock()
		n.hello = helloFrom("b@2")
		n.mu.Unlock()
		s.SetPeers([]session.Pod{{Owner: "b@2", Addr: "b:2"}})
		synctest.Wait()
		if s.Stream("b@1") != 0 || s.Stream("b@2") == 0 {
			t.Error("another boot is another peer")
		}
		if s.Send("b@1", batchOf(0, 0, 1, 1)) || dropped(s, dropNoPeer) != 1 {
			t.Error("sent to a pod that left")
		}
		if s.Send("a@1", batchOf(0, 0, 1, 1)) {
			t.Error("sent to ourselves")
		}
		s.SetPeers(nil)
		synctest.Wait()
		if open := n.links[len(n.links)-1].ctx.Err(); open == nil {
			t.Error("a stream is open to nobody")
		}
	})
}

// The owner of Run starts it again when it failed.
func TestRunCanBeRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, testOptions("a@1", &testSink{}))
		s.dial = &fakeNet{hello: helloFrom("b@1")}
		s.SetPeers([]session.Pod{{Owner: "b@1", Addr: "b:1"}})
		last := uint64(0)
		for i := range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			go func() { time.Sleep(time.Second); synctest.Wait(); cancel() }()
			go func() {
				time.Sleep(ms)
				if g := s.Stream("b@1"); g <= last {
					t.Errorf("run %d: generation %d after %d", i, g, last)
				} else {
					last = g
				}
			}()
			if err := s.Run(ctx); err != nil || s.Stream("b@1") != 0 {
				t.Errorf("run %d: %v, stream %d", i, err, s.Stream("b@1"))
			}
		}
	})
}

func TestStreamIDChangeBreaksTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		id := "stream-1"
		o := testOptions("a@1", &testSink{})
		o.Stream = func() string { mu.Lock(); defer mu.Unlock(); return id }
		s := newService(t, o)
		n := &fakeNet{hello: helloFrom("b@1")}
		s.dial = n
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		s.SetPeers([]session.Pod{{Owner: "b@1", Addr: "b:1"}})
		synctest.Wait()
		mu.Lock()
		id = "stream-2"
		mu.Unlock()
		if s.Send("b@1", batchOf(0, 0, 1, 1)) || dropped(s, dropStreamChanged) != 1 {
			t.Error("sent under an id the peer did not agree on")
		}
		synctest.Wait()
		if s.Stream("b@1") != 0 {
			t.Error("the stream is still open")
		}
		n.mu.Lock()
		n.hello = helloFrom("b@1")
		n.hello.Stream = "stream-2"
		n.mu.Unlock()
		time.Sleep(10 * time.Second)
		if s.Stream("b@1") == 0 {
			t.Error("no stream under the new id")
		}
		cancel()
		<-done
	})
}

func TestOptionsAreChecked(t *testing.T) {
	f := func(name string, change func(o *Options)) {
		t.Helper()
		o := testOptions("a@1", &testSink{})
		change(&o)
		if _, err := New(o); (err != nil) != (name != "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f("", func(*Options) {})
	f("no owner", func(o *Options) { o.Owner = "" })
	f("no partitions", func(o *Options) { o.Partitions = 0 })
	f("no stream", func(o *Options) { o.Stream = nil })
	f("no sink", func(o *Options) { o.Sink = nil })
	f("no creds", func(o *Options) { o.Creds = Creds{} })
	f("small queue", func(o *Options) { o.QueueBytes = 1 })
	f("large message", func(o *Options) { o.MaxMessage = 2 << 30 })
	f("negative timeout", func(o *Options) { o.AckTimeout = -1 })
	f("legacy without push", func(o *Options) { o.Legacy = true })
}
