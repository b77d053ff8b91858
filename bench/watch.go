package bench

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/valyala/fastjson"
)

// Watch is what the oracle knows of one socket. Its methods are called by
// whoever handles that socket's frames, in their order; they never block.
type Watch struct {
	// Static.
	oracle *Oracle
	user   *User
	pod    string
	began  time.Time // made, right before it was dialled

	mu       sync.Mutex
	ready    bool
	closed   bool
	topic    uint16   // selected chat, 0: none
	coming   uint16   // asked for, not confirmed yet
	going    uint16   // selected before; may still come for numbers below chatMust
	must     uint32   // from here on the agent's events are owed
	chatMust uint32   // from here on the selected chat's events are owed
	next     uint32   // the number after the highest that came
	end      uint32   // length of the page when the socket closed
	above    uint32   // with overtook: numbers from here on belong to the newer one
	gap      bool     // a gap frame came since the last event
	overtook bool     // a newer socket of the key was ready
	late     bool     // and this one was not told of its end before
	seq      uint64   // highest stream seq
	stream   string   // what seq and place count in
	place    uint64   // where the server said it stands: ready, cursor
	met      int64    // owed, and came
	told     int64    // owed, and skipped over by a gap frame
	missing  []uint32 // owed and skipped
	since    time.Time
	epoch    uint64
	podName  string
}

// Ready notes the server's `ready`: from now on the socket is owed its events,
// with topic (0: none) as its selected chat, and it outranks older sockets of
// its key. epoch 0: the server tells none; the later ready is then the newer. Once
// more, after Closed: the session has resumed, and is owed all that it ever was.
func (w *Watch) Ready(epoch uint64, podName string, topic uint16) {
	u, now := w.user, time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	w.mu.Lock()
	if !w.ready {
		w.oracle.overlaps.ready(w.began, now)
		w.must = u.Page.Len()
		w.chatMust = w.must
	}
	w.ready, w.closed, w.topic, w.epoch, w.podName = true, false, topic, epoch, podName
	w.mu.Unlock()
	old := u.newest
	switch {
	case old == w:
		return
	case old == nil:
		u.newest = w
	case epoch != 0 && epoch < old.epoch:
		// Its ready was sent before old's and is seen after it.
		w.outrank(now)
	default:
		u.newest = w
		old.outrank(now)
	}
	if old != nil && epoch != 0 && epoch == old.epoch {
		w.oracle.breach(TwoOwners, w.finding(Mark{}, 0, fmt.Sprintf("epoch %d was given to another socket of its key", epoch)))
	}
}

// outrank is called with User.mu held, when a newer socket's ready was seen.
func (w *Watch) outrank(now time.Time) {
	o := w.oracle
	o.takeovers.Add(1)
	w.mu.Lock()
	w.overtook, w.above, w.since = true, w.user.Page.Len(), now
	w.mu.Unlock()
	if o.overlaps.after != nil {
		o.overlaps.after(w.judgeOverlap)
	}
}

// judgeOverlap comes when all that this machine had received by the time of the
// newer socket's ready was handled.
func (w *Watch) judgeOverlap() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.late = true
	w.oracle.overlaps.add(w.since, w.finding(Mark{}, 0, "not told of its end before a newer socket of its key was ready"))
}

// Selecting notes that the client is about to ask for the chat of this topic.
func (w *Watch) Selecting(topic uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.coming = topic
}

// Selected notes that the selection took effect: from now on its events are
// owed, those of the former chat are not.
func (w *Watch) Selected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.going, w.topic, w.coming = w.topic, w.coming, 0
	w.chatMust = w.user.Page.Len()
}

// Gap notes a gap frame: what is skipped before the next event was told.
func (w *Watch) Gap() {
	w.oracle.gaps.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gap = true
	if !w.oracle.rough {
		w.oracle.breach(Unexplained, w.finding(Mark{N: w.next}, w.seq, "a gap frame, and nothing had been broken"))
	}
}

// Closed notes the end of the socket, or the word that it is about to end; the
// first call counts.
func (w *Watch) Closed() {
	end, now := w.user.Page.Len(), time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed, w.end = true, end
	if w.late {
		w.oracle.overlaps.late.Record(0, now.Sub(w.since))
	}
}

// Event judges one event frame by its payload and stream seq (0: the server
// tells none). False: not an event of this run, or its bytes are damaged.
func (w *Watch) Event(payload []byte, seq uint64) (Mark, bool) {
	m, err := ParseBody(payload)
	o := w.oracle
	if errors.Is(err, ErrForeign) || err == nil && m.Run != o.book.Run {
		o.foreign.Add(1)
		if whose := w.strayed(payload); whose != "" {
			o.breach(WrongTenant, w.finding(Mark{}, seq, whose))
		}
		return m, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		o.breach(Damaged, w.finding(Mark{}, seq, err.Error()))
		return m, false
	}
	o.received.Add(1)
	b, detail := w.judge(m, seq)
	if detail != "" {
		o.breach(b, w.finding(m, seq, detail))
	}
	return m, true
}

// judge takes one event; with an empty detail all is well.
func (w *Watch) judge(m Mark, seq uint64) (Breach, string) {
	p := w.user.Page
	if m.Page != p.index {
		return WrongTenant, w.stranger(m)
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if int(m.N) >= len(p.entries) || p.entries[m.N].topic() != m.Topic {
		return Forged, "no such event in the publisher's list"
	}
	if !w.may(m) {
		return WrongChat, "another chat was selected"
	}
	if w.overtook && m.N >= w.above {
		return TwoOwners, "published after a newer socket of the key was ready"
	}
	if m.N >= w.next {
		return w.forward(m, seq)
	}
	if i := slices.Index(w.missing, m.N); i >= 0 {
		w.missing = slices.Delete(w.missing, i, i+1)
		w.met++
		return Disordered, fmt.Sprintf("came after number %d", w.next-1)
	}
	return Repeated, fmt.Sprintf("came again after number %d", w.next-1)
}

// forward takes an event beyond all that came, and notes those it skips. Called
// with Page.mu held for reading.
func (w *Watch) forward(m Mark, seq uint64) (Breach, string) {
	p := w.user.Page
	for n := w.next; n < m.N; n++ {
		if !w.owed(n, p.entries[n]) {
			continue
		}
		if w.gap {
			w.told++
		} else {
			w.missing = append(w.missing, n)
		}
	}
	if w.owed(m.N, p.entries[m.N]) {
		w.met++
	}
	w.next, w.gap = m.N+1, false
	if seq != 0 && seq <= w.seq {
		return Disordered, fmt.Sprintf("stream seq fell from %d", w.seq)
	}
	w.seq = max(w.seq, seq)
	return 0, ""
}

// owed says whether the socket must be given number n.
func (w *Watch) owed(n uint32, e entry) bool {
	switch t := e.topic(); {
	case !w.ready:
		return false
	case w.user.Page.all[t]:
		return n >= w.must
	default:
		return t == w.topic && n >= w.chatMust
	}
}

// may says whether an event of m's topic may come at all.
func (w *Watch) may(m Mark) bool {
	t := m.Topic
	return w.user.Page.all[t] || t == w.topic || t == w.coming || t == w.going && m.N < w.chatMust ||
		!w.ready && t == w.user.Chat
}

// settlement is what a Watch adds to the Verdict as things stand.
type settlement struct {
	ready                bool
	expected, told, lost int64
	findings             []Finding
}

// settle counts what is owed and has not come: lost at an open socket, told at
// a closed one where nothing newer came after it.
func (w *Watch) settle(describe bool) (s settlement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.user.Page
	p.mu.RLock()
	defer p.mu.RUnlock()
	s.ready, s.told = w.ready, w.told
	lose := func(n uint32) {
		s.lost++
		if describe && len(s.findings) < MaxFindings {
			e := p.entries[n]
			f := w.finding(Mark{Page: p.index, N: n, Topic: e.topic()}, 0, "owed and never given")
			f.Breach, f.At = Lost.String(), time.Now()
			s.findings = append(s.findings, f)
		}
	}
	for _, n := range w.missing {
		if p.entries[n].sure() {
			lose(n)
		}
	}
	end := uint32(len(p.entries))
	if w.closed {
		end = w.end
	}
	if w.overtook {
		end = min(end, w.above)
	}
	for n := w.next; n < end; n++ {
		switch e := p.entries[n]; {
		case !e.sure() || !w.owed(n, e):
		case w.closed || w.overtook || w.gap:
			s.told++
		default:
			lose(n)
		}
	}
	s.expected = w.met + s.told + s.lost
	return s
}

// undead says whether the socket is open although it was outranked.
func (w *Watch) undead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.overtook && !w.closed
}

// strayed says what is wrong about an event that is not of this run: it is of
// another company by its own word, or came where nobody else publishes.
func (w *Watch) strayed(payload []byte) string {
	company := fastjson.GetString(payload, "company_id")
	switch {
	case company != "" && company != w.user.Page.Company:
		return fmt.Sprintf("an event of company %q, which is not of this run", company)
	case w.oracle.secluded:
		return "an event that is not of this run, in a company made for it"
	default:
		return ""
	}
}

func (w *Watch) stranger(m Mark) string {
	q := w.oracle.book.page(m.Page)
	if q == nil {
		return "an event of an unknown agent"
	}
	return fmt.Sprintf("an event of company %q, agent %q", q.Company, q.Agent)
}

func (w *Watch) finding(m Mark, seq uint64, detail string) Finding {
	p := w.user.Page
	f := Finding{Company: p.Company, Agent: p.Agent, User: w.user.Name, Pod: w.pod, N: m.N, K: m.K, Seq: seq, Detail: detail}
	if w.podName != "" {
		f.Pod += " " + w.podName
	}
	if m.Page == p.index && int(m.Topic) < len(p.Topics) {
		t := p.Topics[m.Topic]
		f.Topic = t.Kind
		if t.Chat != "" {
			f.Topic += "." + t.Chat
		}
	}
	return f
}
