package server

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/daisi/daisi-ws/session"
)

// viewer is one client of the model: what it was given since it last said where
// it stands, and what it must have been given.
type viewer struct {
	user string
	chat string
	sock *socket
	from uint64        // it stands behind this seq
	done chan struct{} // closed when its reading has ended

	mu     sync.Mutex
	seqs   []uint64 // mu; as read
	others []string // mu; types of other frames
}

// read takes everything until the socket ends.
func (v *viewer) read(s *socket, done chan struct{}) {
	defer close(done)
	for {
		f, err := s.read()
		if err != nil {
			return
		}
		v.mu.Lock()
		if f.Type == "event" {
			v.seqs = append(v.seqs, f.Seq)
		} else {
			v.others = append(v.others, f.Type)
		}
		v.mu.Unlock()
	}
}

func (v *viewer) seen() (seqs []uint64, others int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.seqs), len(v.others)
}

// world of the model: one agent, a stream, and how much of it was delivered.
type resumeModel struct {
	h         *house
	agent     string
	stored    []session.Event
	delivered int
	viewers   []*viewer
}

// owed is what v must get, in order: all it wants of what was stored behind its
// place.
func (m *resumeModel) owed(v *viewer) (seqs []uint64) {
	for _, ev := range m.stored {
		if ev.Seq > v.from && (ev.Route.Kind != session.KindMessages || ev.Route.Chat == v.chat) {
			seqs = append(seqs, ev.Seq)
		}
	}
	return seqs
}

// settle delivers all there is, waits until v has what it is owed, and makes
// that its place.
func (m *resumeModel) settle(t *rapid.T, v *viewer) {
	m.deliver(len(m.stored))
	v.ask(t, `{"type":"ready"}`) // a resume that it asked for is over then
	want := m.owed(v)
	var got []uint64
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if got, _ = v.seen(); len(got) >= len(want) || time.Now().After(end) {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%s, chat %q, behind %d got %v; want %v", v.user, v.chat, v.from, got, want)
	}
	v.mu.Lock()
	v.seqs = nil
	v.mu.Unlock()
	if n := len(m.stored); n > 0 {
		v.from = m.stored[n-1].Seq
	}
}

func (m *resumeModel) deliver(upto int) {
	m.h.live(m.stored[m.delivered:upto]...)
	m.delivered = upto
}

// reconnect cuts v's socket and resumes from the last event that came.
func (m *resumeModel) reconnect(t *rapid.T, v *viewer) {
	_ = v.sock.nc.Close()
	<-v.done
	got, _ := v.seen()
	want := m.owed(v)
	if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
		t.Fatalf("%s, chat %q, behind %d got %v; want a beginning of %v", v.user, v.chat, v.from, got, want)
	}
	if len(got) > 0 {
		v.from = got[len(got)-1]
	}
	m.connect(v)
}

func (m *resumeModel) connect(v *viewer) {
	v.mu.Lock()
	v.seqs = nil
	v.mu.Unlock()
	v.sock = m.h.login(m.agent, v.user, "&chat="+v.chat+"&resume="+testStream+":"+strconv.FormatUint(v.from, 10), nil)
	v.done = make(chan struct{})
	go v.read(v.sock, v.done)
}

// rewind asks for everything behind an earlier place again.
func (m *resumeModel) rewind(t *rapid.T, v *viewer) {
	for _, v := range m.viewers {
		m.settle(t, v)
	}
	v.from = rapid.Uint64Range(m.first(), v.from).Draw(t, "seq")
	asked := m.h.stream.questions()
	v.sock.send(fmt.Sprintf(`{"type":"resume","payload":{"stream":%q,"seq":%d}}`, testStream, v.from))
	for m.h.stream.questions() == asked { // what came live before it took effect would rightly come again
		time.Sleep(100 * time.Microsecond)
	}
}

// first is the seq before the model's own events.
func (m *resumeModel) first() uint64 {
	if len(m.stored) == 0 {
		return m.viewers[0].from
	}
	return m.stored[0].Seq - 1
}

// choose selects another chat.
func (m *resumeModel) choose(t *rapid.T, v *viewer) {
	m.settle(t, v)
	v.chat = rapid.SampledFrom([]string{"c1", "c2"}).Draw(t, "chat")
	v.ask(t, `{"type":"select_chat","payload":{"chat_id":"`+v.chat+`","ack":true}}`)
}

// ask sends a message and waits for its answer.
func (v *viewer) ask(t *rapid.T, message string) {
	_, before := v.seen()
	v.sock.send(message)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, others := v.seen(); others > before {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: no answer to %s", v.user, message)
		}
	}
}

// Under random storing, delivery, cuts, resumes at connect and in-band and
// selections, every client gets all that it wants behind its place, once and
// in order.
func TestResumeProperty(t *testing.T) {
	h := newHouse(t, nil)
	models := 0
	rapid.Check(t, func(t *rapid.T) {
		models++
		m := &resumeModel{h: h, agent: fmt.Sprintf("ag%d", models)}
		_, last, _ := h.stream.LastSeq(h.t.Context())
		for _, user := range []string{"u1", "u2"} {
			v := &viewer{user: user, chat: "c1", from: last}
			m.viewers = append(m.viewers, v)
			m.connect(v)
		}
		defer func() {
			for _, v := range m.viewers {
				_ = v.sock.nc.Close()
				<-v.done
			}
		}()
		some := func(t *rapid.T) *viewer { return m.viewers[rapid.IntRange(0, len(m.viewers)-1).Draw(t, "viewer")] }
		store := func(t *rapid.T) {
			for range rapid.IntRange(1, 4).Draw(t, "events") {
				kind := rapid.SampledFrom([]string{"chats", "contacts", "c1", "c2", "nobody's"}).Draw(t, "kind")
				chat := ""
				if kind != "chats" && kind != "contacts" {
					kind, chat = "messages", kind
				}
				m.stored = append(m.stored, h.stream.store(m.agent, kind, chat, "{}"))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"store":     store,
			"store2":    store,
			"deliver":   func(t *rapid.T) { m.deliver(rapid.IntRange(m.delivered, len(m.stored)).Draw(t, "upto")) },
			"reconnect": func(t *rapid.T) { m.reconnect(t, some(t)) },
			"rewind":    func(t *rapid.T) { m.rewind(t, some(t)) },
			"choose":    func(t *rapid.T) { m.choose(t, some(t)) },
		})
		for _, v := range m.viewers {
			m.settle(t, v)
		}
	})
	if err := h.core.index.Check(); err != nil {
		t.Error(err)
	}
}
