package server_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// watcher keeps clients of one agent on some pods, and a publisher, at work
// while parts of a cluster fail. It holds what they saw against what was
// published, and writes a row of a table about each outage.
type watcher struct {
	t       *testing.T
	c       *clustertest.Cluster
	agent   string
	clients []*watched // one a pod; nil: none is there

	table []string
	stop  chan struct{}
	wg    sync.WaitGroup
	pause sync.Mutex   // held: nothing is published
	every atomic.Int64 // nanoseconds between events

	mu        sync.Mutex
	published []stored // mu
}

// watched is a client, and where in what was published it begins.
type watched struct {
	*clustertest.Client
	from int
}

// stored is an event that the stream took, and when that was known.
type stored struct {
	id string
	at time.Time
}

// newWatcher has a client on each of these pods, of all when none is named.
func newWatcher(c *clustertest.Cluster, agent string, pods ...int) *watcher {
	w := &watcher{t: c.T(), c: c, agent: agent, clients: make([]*watched, len(c.Pods)), stop: make(chan struct{})}
	for i := range c.Pods {
		if len(pods) == 0 || slices.Contains(pods, i) {
			w.clients[i] = w.dial(i, "watch")
		}
	}
	w.every.Store(int64(20 * time.Millisecond))
	w.wg.Go(w.publish)
	c.Eventually(arrival, "events are on their way", func() bool { return len(w.stored()) >= 75 }) // whoever read before has handed over
	return w
}

// dial logs in; it is owed what is stored from now on.
func (w *watcher) dial(pod int, name string) *watched {
	k := w.c.Dial(w.c.Pods[pod], user("acme", w.agent, fmt.Sprint(name, pod)), "resume=")
	return &watched{k, len(w.stored())}
}

func (w *watcher) stored() []stored {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.published[:len(w.published):len(w.published)]
}

// publish publishes 50 events a second, or as every says; one that is not taken is tried again
// under the same message id, so that a lost answer makes no second one.
func (w *watcher) publish() {
	for n := 0; ; n++ {
		if !w.publishOne(fmt.Sprintf("%s-%06d", w.agent, n)) {
			return
		}
		select {
		case <-w.stop:
			return
		case <-time.After(time.Duration(w.every.Load())):
		}
	}
}

func (w *watcher) publishOne(id string) bool {
	w.pause.Lock()
	defer w.pause.Unlock()
	for !w.c.TryPublish(clustertest.Subject("acme", w.agent, "chats", ""), body(id), id) {
		select {
		case <-w.stop:
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.published = append(w.published, stored{id, time.Now()})
	return true
}

// quietly does something while nothing is on its way.
func (w *watcher) quietly(do func()) {
	w.pause.Lock()
	defer w.pause.Unlock()
	w.caughtUp("before", len(w.stored()))
	do()
}

// rejoin puts a client on a pod that lost its own, once that pod has come as far
// as the others: who is let in before is given what it still comes by.
func (w *watcher) rejoin(pod int) {
	w.quietly(func() {
		end := uint64(0)
		for _, k := range w.clients {
			if k != nil {
				_, seq := place(k.Client)
				end = max(end, seq)
			}
		}
		w.c.Eventually(30*time.Second, "the pod is as far as the others", func() bool {
			k := w.dial(pod, "again")
			if readySeq(k.Client) < end {
				k.Close()
				return false
			}
			w.clients[pod] = k
			return true
		})
	})
}

// caughtUp waits until every client has what was published up to due.
func (w *watcher) caughtUp(what string, due int) {
	w.t.Helper()
	for i, k := range w.clients {
		if k != nil && !k.AwaitEvents(60*time.Second, due-k.from) {
			w.t.Errorf("%s: client of pod-%d has %d of %d events a minute later, closed %v", what, i, k.Count("event"), due-k.from, k.Closed())
		}
	}
}

// outage is something that fails for a while.
type outage struct {
	what     string
	d        time.Duration
	begin    func()
	mend     func()
	beside   func()        // beside it; may be nil
	down     []int         // pods that answer nobody meanwhile
	ends     []int         // pods whose clients are ended by it
	degraded bool          // /readyz must say so, once it has lasted for 3 s
	login    string        // what a login elsewhere comes to after half of it: "in", "503"; "": no matter
	late     time.Duration // what is stored meanwhile comes at most so late; the short form waits for whatever comes
	then     time.Duration // and what is stored once others had the time to notice; 0: no matter
}

// noticed is how long others may take to see that a pod reads no more, with room
// for a machine that stands still: only what is stored before it may be late.
const noticed = 5 * time.Second

// during breaks something for a while, and adds a row of what clients and probes
// saw.
func (w *watcher) during(o outage) {
	w.t.Helper()
	first := len(w.stored())
	gone := map[int]*watched{}
	for _, i := range o.ends {
		gone[i], w.clients[i] = w.clients[i], nil
	}
	probes := w.startProbes(o.down)
	o.begin()
	began := time.Now()
	var beside sync.WaitGroup
	if o.beside != nil {
		beside.Go(o.beside)
	}
	login := make(chan string, 1)
	go func() { login <- w.tryLogin(o) }()
	time.Sleep(time.Until(began.Add(o.d)))
	took := time.Since(began)
	o.mend()
	mended := time.Now()
	due := len(w.stored())
	w.caughtUp(o.what, due)
	w.c.Eventually(60*time.Second, o.what+": all pods ready again", func() bool {
		return !slices.ContainsFunc(w.c.Pods, func(p *clustertest.Pod) bool { return !p.Ready() })
	})
	whole := time.Since(mended)
	beside.Wait()
	ready, came := probes.end(), <-login
	events := w.stored()[first:due]
	late := w.late(events)
	w.table = append(w.table, fmt.Sprintf("| %s | %v | %s | %.2f s | %s | %s | %.2f s |",
		o.what, took.Round(10*time.Millisecond), w.sockets(gone), late.Seconds(), came, ready, whole.Seconds()))
	if o.login != "" && o.d >= time.Second && !strings.HasPrefix(came, o.login) {
		w.t.Errorf("%s: a login came to %q, want %q", o.what, came, o.login)
	}
	if o.degraded && o.d >= 3*time.Second && !strings.Contains(ready, "DEGRADED") {
		w.t.Errorf("%s: /readyz said %s", o.what, ready)
	}
	if late > o.late && !shortForm {
		w.t.Errorf("%s: an event came %v after it was stored, more than %v", o.what, late, o.late)
	}
	if o.then == 0 || o.d <= noticed || shortForm {
		return
	}
	behind := slices.DeleteFunc(slices.Clone(events), func(s stored) bool {
		return s.at.Sub(began) < noticed || s.at.After(mended)
	})
	late = w.late(behind)
	w.t.Logf("%s: %d events stored more than %v after it began, late by at most %v", o.what, len(behind), noticed, late)
	if len(behind) == 0 || late > o.then {
		w.t.Errorf("%s: an event came %v after it was stored, more than %v, though all had noticed", o.what, late, o.then)
	}
}

// tryLogin says what became of a login of somebody else in the middle of it.
func (w *watcher) tryLogin(o outage) string {
	if o.d < time.Second {
		return "–"
	}
	time.Sleep(o.d / 2)
	at := slices.IndexFunc(w.clients, func(k *watched) bool { return k != nil })
	for slices.Contains(o.down, at) || slices.Contains(o.ends, at) {
		at = (at + 1) % len(w.c.Pods)
	}
	began := time.Now()
	k, err := w.c.TryDial(w.c.Pods[at], user("acme", "visitors", fmt.Sprint("v", began.UnixNano())))
	took := time.Since(began).Round(time.Millisecond)
	if refused, ok := err.(*clustertest.Refused); ok {
		return fmt.Sprintf("%d in %v", refused.Status, took)
	}
	if err != nil {
		return err.Error()
	}
	k.Close()
	return fmt.Sprintf("in after %v", took)
}

// late is by how much the latest of these events came to anybody.
func (w *watcher) late(events []stored) (worst time.Duration) {
	for _, k := range w.clients {
		if k != nil {
			worst = max(worst, lateness(events, k.Frames()))
		}
	}
	return worst
}

// lateness is how long the slowest of these events was on its way to somebody.
func lateness(events []stored, frames []clustertest.Frame) (worst time.Duration) {
	at := map[string]time.Time{}
	for _, s := range events {
		at[s.id] = s.at
	}
	for _, f := range frames {
		if t, ok := at[f.Field("event_id")]; ok {
			worst = max(worst, f.At.Sub(t))
		}
	}
	return worst
}

// sockets says which ended; only those of gone may.
func (w *watcher) sockets(gone map[int]*watched) string {
	kept, ended := 0, []string{}
	for i, k := range w.clients {
		if k == nil {
			continue
		}
		if end := k.Closed(); end != nil {
			w.t.Errorf("the client of pod-%d was closed: %+v", i, end)
		}
		kept++
	}
	for i, k := range gone {
		end, ok := k.AwaitClose(arrival)
		if !ok {
			w.t.Errorf("the client of pod-%d was not closed", i)
		}
		ended = append(ended, fmt.Sprintf("1 ended (%d)", end.Code))
		w.judge(fmt.Sprintf("client of pod-%d, while it was in", i), k, k.from+k.Count("event"))
	}
	return strings.Join(append([]string{fmt.Sprintf("%d kept", kept)}, ended...), ", ")
}

// tableHead is over the rows.
const tableHead = "| what | for | sockets | events late by at most | a login meanwhile | `/readyz` of pods that answer | whole after |\n|---|---|---|---|---|---|---|"

// end stops publishing; every client has every event that it is owed, once, in
// order.
func (w *watcher) end() {
	w.t.Helper()
	close(w.stop)
	w.wg.Wait()
	all := len(w.stored())
	w.caughtUp("at the end", all)
	clients := 0
	for i, k := range w.clients {
		if k != nil {
			w.judge(fmt.Sprintf("client of pod-%d", i), k, all)
			clients++
		}
	}
	w.t.Logf("%d events published, %d clients at the end\n%s\n%s", all, clients, tableHead, strings.Join(w.table, "\n"))
}

// judge holds what a client was given against what was published up to a place.
func (w *watcher) judge(who string, k *watched, upto int) {
	w.t.Helper()
	var want []string
	for _, s := range w.stored()[k.from:upto] {
		want = append(want, s.id)
	}
	for _, f := range faultsOf(k.Frames(), want) {
		w.t.Errorf("%s: %s", who, f)
	}
}

// faultsOf says what is wrong with frames of somebody who is owed these events:
// each once and in order, their seqs rising, but for a stream that was reset.
func faultsOf(frames []clustertest.Frame, want []string) (faults []string) {
	next, last := 0, uint64(0)
	for _, f := range frames {
		switch id := f.Field("event_id"); {
		case f.Type == "gap" && f.Field("reason") == "stream_reset":
			last = 0
		case f.Type == "gap":
			faults = append(faults, "told of a gap: "+string(f.Payload))
		case f.Type != "event":
		case f.Seq <= last:
			faults = append(faults, fmt.Sprintf("seq %d after %d", f.Seq, last))
		case next == len(want):
			faults = append(faults, id+" is one too many")
		case id != want[next]:
			faults = append(faults, fmt.Sprintf("event %d is %s, want %s", next, id, want[next]))
			if i := slices.Index(want, id); i >= next {
				next = i + 1
			}
		default:
			next++
		}
		if f.Type == "event" {
			last = max(last, f.Seq)
		}
		if len(faults) == 5 {
			return faults
		}
	}
	if next < len(want) {
		faults = append(faults, fmt.Sprintf("%d of %d events are missing at the end", len(want)-next, len(want)))
	}
	return faults
}

// What faultsOf is worth: it sees an event that is missing, doubled, too many,
// out of order, or told as a gap.
func TestWatcherSeesFaults(t *testing.T) {
	event := func(id string, seq uint64) clustertest.Frame {
		return clustertest.Frame{Type: "event", Seq: seq, Payload: json.RawMessage(body(id))}
	}
	gap := func(reason string) clustertest.Frame {
		return clustertest.Frame{Type: "gap", Payload: json.RawMessage(fmt.Sprintf(`{"reason":%q}`, reason))}
	}
	f := func(faults int, frames ...clustertest.Frame) {
		t.Helper()
		if got := faultsOf(frames, []string{"a", "b", "c"}); len(got) != faults {
			t.Errorf("%v: %d faults %q, want %d", frames, len(got), got, faults)
		}
	}
	a, b, c := event("a", 1), event("b", 2), event("c", 4)
	f(0, a, b, c)
	f(0, a, gap("stream_reset"), event("b", 1), event("c", 2))
	f(1, a, b)
	f(1, a, c)
	f(1, a, b, b, c)
	f(1, a, b, c, event("d", 5))
	f(1, a, b, gap("retention"), c)
	f(1, a, b, event("c", 2), event("c", 3))
	f(2, event("b", 1), event("a", 2), event("c", 3))
}

// What lateness is worth: it finds the one event that was late, among these only.
func TestWatcherSeesLateness(t *testing.T) {
	began := time.Now()
	event := func(id string, after time.Duration) clustertest.Frame {
		return clustertest.Frame{Type: "event", At: began.Add(after), Payload: json.RawMessage(body(id))}
	}
	events := []stored{{"a", began}, {"b", began.Add(time.Second)}, {"c", began.Add(2 * time.Second)}}
	frames := []clustertest.Frame{event("a", 3*time.Second), event("b", 3*time.Second), event("c", 2100*time.Millisecond)}
	for n, want := range []time.Duration{3 * time.Second, 2 * time.Second, 100 * time.Millisecond, 0} {
		if got := lateness(events[n:], frames); got != want {
			t.Errorf("from event %d: %v, want %v", n, got, want)
		}
	}
}
