package server

import (
	"fmt"

	"github.com/daisi/daisi-ws/session"
)

// mail is a message between pods: a kill, an answer, a batch. The schedule
// delivers it, late, or never when it is lossy.
type mail struct {
	from, to session.Owner
	name     string
	lossy    bool
	stream   uint64 // not 0: in order among those of its stream
	run      func(to *modelPod)
}

// link is the way of batches from one pod to another.
type link struct{ from, to session.Owner }

func (w *world) send(m *mail) {
	w.mail.Lock()
	defer w.mail.Unlock()
	w.mail.list = append(w.mail.list, m)
}

// arriving is the mail that may arrive now: of a stream only the oldest.
func (w *world) arriving() []*mail {
	w.mail.Lock()
	defer w.mail.Unlock()
	type way struct {
		link
		stream uint64
	}
	var can []*mail
	headed := map[way]bool{}
	keep := w.mail.list[:0]
	for _, m := range w.mail.list {
		to := w.pod(m.to)
		if to == nil {
			continue // nobody gets it
		}
		keep = append(keep, m)
		k := way{link{m.from, m.to}, m.stream}
		if m.stream != 0 && headed[k] || to.isStopped() {
			continue
		}
		headed[k] = true
		can = append(can, m)
	}
	w.mail.list = keep
	return can
}

// take removes m from the mail.
func (w *world) take(m *mail) {
	w.mail.Lock()
	defer w.mail.Unlock()
	for i, o := range w.mail.list {
		if o == m {
			w.mail.list = append(w.mail.list[:i], w.mail.list[i+1:]...)
			return
		}
	}
}

// deliverMail lets m arrive, or loses it.
func (w *world) deliverMail(m *mail, lose bool) {
	w.take(m)
	if lose && m.lossy {
		w.note("lost: %s -> %s: %s", m.from, m.to, m.name)
		w.stats.Lost++
		return
	}
	if to := w.pod(m.to); to != nil {
		w.note("%s -> %s: %s", m.from, m.to, m.name)
		m.run(to)
	}
}

// breakStream ends a stream of batches; what was on its way is lost, and the
// receiver hears of it.
func (w *world) breakStream(from, to session.Owner) {
	l := link{from, to}
	w.mail.Lock()
	w.mail.streams[l] = w.streamOf(l) + 1
	keep := w.mail.list[:0]
	for _, m := range w.mail.list {
		if m.stream == 0 || m.from != from || m.to != to {
			keep = append(keep, m)
		}
	}
	w.mail.list = keep
	w.mail.Unlock()
	w.send(&mail{from: from, to: to, name: "stream broke", run: func(q *modelPod) {
		for _, part := range q.parts {
			part.Broken()
		}
	}})
}

// streamOf is the generation of a way; the lock of mail is held.
func (w *world) streamOf(l link) uint64 {
	if s := w.mail.streams[l]; s != 0 {
		return s
	}
	return 1
}

// podPeers carries a pod's batches.
type podPeers struct{ p *modelPod }

func (s podPeers) Stream(to session.Owner) uint64 {
	w := s.p.w
	w.mail.Lock()
	defer w.mail.Unlock()
	if w.mail.cut[link{s.p.owner, to}] {
		return 0
	}
	return w.streamOf(link{s.p.owner, to})
}

func (s podPeers) Send(to session.Owner, b *session.Batch) bool {
	w, l := s.p.w, link{s.p.owner, to}
	if w.cut == ruleMissedRoundBeginsAnew {
		b = w.asIfServed(l, b)
	}
	w.mail.Lock()
	stream := w.streamOf(l)
	w.mail.Unlock()
	w.send(&mail{
		from: s.p.owner, to: to, lossy: true, stream: stream,
		name: fmt.Sprintf("batch of %d (%d,%d] %s with %d", b.N, b.From, b.Upto, b.Inc, len(b.Events)),
		run:  func(q *modelPod) { q.offer(b, func(uint64) {}) },
	})
	return true
}

// asIfServed has b begin where the batch before it ended, though the receiver
// was left out of rounds between them.
func (w *world) asIfServed(l link, b *session.Batch) *session.Batch {
	w.mail.Lock()
	defer w.mail.Unlock()
	k := servedKey{l, b.N}
	c := *b
	if upto, ok := w.mail.served[k]; ok {
		c.From = min(c.From, upto)
	}
	w.mail.served[k] = b.Upto
	return &c
}

type servedKey struct {
	link
	n int
}
