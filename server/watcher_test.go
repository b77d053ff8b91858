package server_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// watcher keeps clients on every pod and a publisher at work while parts of a
// cluster fail, and holds what they saw against what was published.
type watcher struct {
	t       *testing.T
	c       *clustertest.Cluster
	clients []*clustertest.Client // one a pod; nil: its pod was killed

	stop chan struct{}
	wg   sync.WaitGroup

	mu        sync.Mutex
	published []string // mu; ids that the stream took
}

func newWatcher(c *clustertest.Cluster) *watcher {
	w := &watcher{t: c.T(), c: c, stop: make(chan struct{})}
	for i, p := range c.Pods {
		w.clients = append(w.clients, c.Dial(p, user("acme", "ag1", fmt.Sprintf("w%d", i))))
	}
	w.wg.Go(w.publish)
	return w
}

// publish publishes 50 events a second; one that is not taken is tried again
// under the same message id, so that a lost answer makes no second one.
func (w *watcher) publish() {
	for n := 0; ; n++ {
		id := fmt.Sprintf("w%06d", n)
		for !w.c.TryPublish(clustertest.Subject("acme", "ag1", "chats", ""), body(id), id) {
			select {
			case <-w.stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		w.mu.Lock()
		w.published = append(w.published, id)
		w.mu.Unlock()
		select {
		case <-w.stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// forget says that a pod's client will go with its pod.
func (w *watcher) forget(pod int) {
	k := w.clients[pod]
	w.clients[pod] = nil
	w.wg.Go(func() {
		end, _ := k.AwaitClose(arrival)
		w.t.Logf("  client of pod-%d: cut, code %d", pod, end.Code)
	})
}

// during breaks something for a while and prints what clients and probes saw.
func (w *watcher) during(what string, d time.Duration, breakIt, mend func()) {
	w.t.Helper()
	before := w.seen()
	breakIt()
	began := time.Now()
	states := map[string]int{}
	for time.Since(began) < d {
		for i, p := range w.c.Pods {
			if w.clients[i] == nil {
				continue
			}
			a, err := w.c.Do("GET", p.InternalURL()+"/readyz", "")
			states[fmt.Sprintf("%d %v", a.Status, a.JSON()["status"])]++
			if err != nil {
				states[err.Error()]++
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	w.t.Logf("%s for %v: delivered meanwhile %d, /readyz %v", what, d, w.seen()-before, states)
	mend()
	healed := time.Now()
	w.mu.Lock()
	due := len(w.published)
	w.mu.Unlock()
	for i, k := range w.clients {
		if k == nil {
			continue
		}
		if !k.AwaitEvents(60*time.Second, due) {
			w.t.Errorf("%s: client of pod-%d has %d of %d events a minute later, closed %v", what, i, k.Count("event"), due, k.Closed())
		}
	}
	w.c.Eventually(30*time.Second, what+": all pods ready again", func() bool {
		for i, p := range w.c.Pods {
			if w.clients[i] != nil && !p.Ready() {
				return false
			}
		}
		return true
	})
	w.t.Logf("  whole %v after it was mended; %d events so far, sockets kept", time.Since(healed).Round(10*time.Millisecond), due)
}

func (w *watcher) seen() int {
	n := 0
	for _, k := range w.clients {
		if k != nil {
			n += k.Count("event")
		}
	}
	return n
}

// end stops publishing; every client that was not killed has every event,
// once, in order.
func (w *watcher) end() {
	w.t.Helper()
	close(w.stop)
	w.wg.Wait()
	for i, k := range w.clients {
		if k != nil {
			wantEvents(w.t, fmt.Sprintf("client of pod-%d", i), k, w.published...)
		}
	}
	if !w.t.Failed() {
		w.t.Logf("%d events published: 0 lost, 0 repeated, 0 out of order at %d clients", len(w.published), len(w.clients)-1)
	}
}
