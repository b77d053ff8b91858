package server

import (
	"context"
	"fmt"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// modelUser is a client: it logs in again and again, and resumes.
type modelUser struct {
	key     session.Key
	last    uint64 // highest seq it has seen
	stream  string // that last counts in
	sock    *modelSock
	opening bool // w.mu
}

// modelSock is a connection as its client and an all-knowing judge see it.
type modelSock struct {
	id   int
	user *modelUser
	pod  *modelPod
	conn *loop.Conn
	s    *session.Session[*loop.Conn]

	// w.mu guards the following.
	ready    int    // step of its ready, 0 before
	checked  bool   // P5, at its ready
	stream   string // that seqs count in
	floor    uint64 // seq of its ready
	last     uint64 // highest seq it was given
	resumed  bool   // everything above base is owed
	base     uint64
	got      map[uint64]bool
	judged   uint64 // owed events up to here were looked at
	chat     string
	chatAt   int    // step since when chat is selected for sure
	choosing string // a selection on its way
	chooses  bool
	excused  bool // outranked before Redis lost keys
	gapped   uint64
	closed   bool
	replays  bool // a replay is under way
}

// modelUsers are three clients, two of them with one key, on two partitions.
func modelUsers() []*modelUser {
	k := modelKeys()
	return []*modelUser{{key: k[0]}, {key: k[0]}, {key: k[1]}}
}

// modelKeys are of agents in partition 0 and 1.
func modelKeys() []session.Key {
	var keys [modelPartitions]session.Key
	for i := 0; ; i++ {
		k := session.Key{Company: "c", Agent: fmt.Sprint("a", i), User: "u"}
		if n := k.Partition(modelPartitions); keys[n] == (session.Key{}) {
			keys[n] = k
		}
		if keys[0] != (session.Key{}) && keys[1] != (session.Key{}) {
			return keys[:]
		}
	}
}

var modelChats = []string{"x", "y"}

// modelWants is all that anybody may want of n.
func modelWants(n int) []session.Want {
	k := modelKeys()[n]
	wants := []session.Want{{Company: k.Company, Agent: k.Agent}}
	for _, c := range modelChats {
		wants = append(wants, session.Want{Company: k.Company, Agent: k.Agent, Chat: c})
	}
	return wants
}

// modelEngine gives connections that are no sockets; it never runs.
type modelHandler struct{}

func (modelHandler) Message(*loop.Conn, ws.OpCode, []byte) {}
func (modelHandler) Tick(*loop.Conn, uint32) uint32        { return 0 }
func (modelHandler) Closed(*loop.Conn, loop.End)           {}

// login begins a login of u on p.
func (w *world) login(p *modelPod, u *modelUser, chat *string, resume bool) {
	u.opening = true
	s := &modelSock{id: len(w.socks) + 1, user: u, pod: p, conn: w.engine.NewConn(modelHandler{}), got: map[uint64]bool{}}
	s.s = p.m.NewSession(s.conn, u.key, session.Profile{})
	w.mu.Lock()
	w.socks = append(w.socks, s)
	p.socks[s.conn] = s
	opt := session.Login{Chat: chat, Replay: resume && u.stream == p.view().ID, After: u.last}
	stream := u.stream
	w.mu.Unlock()
	w.note("%s: login of socket %d on %s, resume %v from %d", u.key.Agent, s.id, p.owner, opt.Replay, opt.After)
	w.stats.Logins++
	p.run(func() {
		ctx := p.ctx
		var early uint64
		if w.cut == ruleResumeReadsEndAfterOpen && opt.Replay {
			_, early, _ = partStream{p, s.s.Partition()}.LastSeq(ctx)
		}
		err := p.m.Open(ctx, s.s, opt, func(_ *session.Session[*loop.Conn], r session.Ready) { w.greeted(s, r, opt.Replay, opt.After) })
		if err != nil {
			w.note("socket %d refused: %v", s.id, err)
			w.mu.Lock()
			u.opening, s.closed = false, true
			w.mu.Unlock()
			return
		}
		if opt.Replay {
			s.resume(ctx, stream, opt.After, early)
		}
		w.mu.Lock()
		u.opening = false
		w.mu.Unlock()
	})
}

// greeted is the ready frame: from now on the session is owed what is stored.
func (w *world) greeted(s *modelSock, r session.Ready, resumes bool, after uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.ready, s.floor, s.last, s.judged = max(1, w.step()), r.Floor, r.Floor, r.Floor
	s.stream = *s.pod.parts[s.s.Partition()].shown.Load()
	s.chat, s.chatAt = r.Chat, s.ready
	s.user.sock = s
	if !resumes {
		s.user.last, s.user.stream = r.Floor, s.stream
	}
	w.stats.Ready++
	if resumes {
		s.last, s.base = after, after
	}
}

// hasLater says whether a login of the same key began here after that of s. Of
// two that failed unsurely the second, too, ends the socket that the first may
// have robbed of its lock; its client is who comes again.
func (p *modelPod) hasLater(s *modelSock) bool {
	for _, k := range p.socks {
		if k.user == s.user && k.id > s.id {
			return true
		}
	}
	return false
}

// farewell is the error frame that comes before the close frame.
func (p *modelPod) farewell(c *loop.Conn, r session.Reason, _ string) {
	w := p.w
	w.mu.Lock()
	s := p.socks[c]
	dead := p.dead || w.over
	overtaken := w.epochs[s.user.key] > s.s.Epoch() || p.hasLater(s)
	s.closed = true
	w.mu.Unlock()
	if dead {
		return
	}
	w.note("socket %d closed: %s", s.id, r.Label())
	switch {
	case r == session.ReasonReplaced && !overtaken:
		w.breached("S2", "socket %d of epoch %d was told that it is replaced, and no login was ever after it", s.id, s.s.Epoch())
	case r == session.ReasonInternal:
		w.breached("P1", "socket %d was closed as an event came out of order", s.id)
	case r == session.ReasonReplaced:
		w.mu.Lock()
		w.stats.Takeovers++
		w.mu.Unlock()
	}
}

// issued notes an epoch.
func (w *world) issued(key session.Key, epoch uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epochs[key] = max(w.epochs[key], epoch)
}

// missed is a gap frame to every session of n.
func (p *modelPod) missed(n int, from, to uint64, why string, _ bool) {
	w := p.w
	stream, upto := p.parts[n].Position()
	w.note("%s: gap of %d: (%d..%d) %s", p.owner, n, from, to, why)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Gaps++
	for _, s := range p.socks {
		if s.s.Partition() != n || s.ready == 0 {
			continue
		}
		s.gapped = max(s.gapped, to)
		if why == reasonReset {
			s.stream, s.last, s.base, s.resumed, s.judged, s.gapped = stream, upto, upto, false, upto, 0
			s.got = map[uint64]bool{}
			if s.user.sock == s {
				s.user.last, s.user.stream = upto, stream
			}
		}
	}
}

// choose selects a chat on s.
func (w *world) choose(s *modelSock, chat *string) {
	want := ""
	if chat != nil {
		want = *chat
	}
	w.judge(s)
	before := s.chatAt
	s.choosing, s.chooses, s.chatAt = want, true, never
	w.note("socket %d selects %q", s.id, want)
	err := s.pod.m.Select(s.s, chat, func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		s.chooses = false
		if err == nil {
			s.chat, s.chatAt = want, w.step()
			w.stats.Selects++
		} else {
			s.chatAt = w.step() // the old one was never left
		}
	})
	if err != nil {
		s.chooses, s.chatAt = false, before
	}
}

// resume brings what was missed, as protocols.md has it.
func (s *modelSock) resume(ctx context.Context, stream string, after, early uint64) {
	p, w, n := s.pod, s.pod.w, s.s.Partition()
	w.mu.Lock()
	s.replays = true
	now := s.stream
	w.mu.Unlock()
	at := partStream{p, n}
	first, end, err := at.LastSeq(ctx)
	if early > 0 {
		end = early
	}
	if w.cut == ruleResumeToStreamEnd {
		end = p.m.Index().Watermark(n)
	}
	if err != nil || !s.stillHolds(ctx, n) {
		p.m.Close(s.s, session.ReasonOverloaded, "")
		return
	}
	if stream != now || after > end || after+1 < first { // told by its end
		p.m.Close(s.s, session.ReasonGap, "")
		return
	}
	for {
		err := at.Read(ctx, n, after, end, func(events []session.Event) error {
			for i := range events {
				if p.m.Index().State(s.s) != session.Replay || s.streamOf() != stream {
					return session.ErrClosed
				}
				if s.wants(&events[i]) {
					s.give(&events[i])
				}
			}
			return nil
		})
		if err != nil {
			p.m.Close(s.s, session.ReasonOverloaded, "")
			return
		}
		if s.streamOf() != stream {
			p.m.Close(s.s, session.ReasonGap, "")
			return
		}
		more, live := p.m.Index().Replayed(s.s, end)
		if more > 0 && w.cut == ruleReplayGoesToTheMark {
			more, live = p.m.Index().Replayed(s.s, more)
		}
		if more == 0 {
			w.mu.Lock()
			defer w.mu.Unlock()
			if live {
				s.resumed, s.replays, s.judged = true, false, s.base
				w.stats.Resumed++
			}
			return
		}
		after, end = end, more
	}
}

func (s *modelSock) streamOf() string {
	s.pod.w.mu.Lock()
	defer s.pod.w.mu.Unlock()
	return s.stream
}

func (s *modelSock) wants(ev *session.Event) bool {
	s.pod.w.mu.Lock()
	defer s.pod.w.mu.Unlock()
	return ev.Route.Kind != session.KindMessages || ev.Route.Chat == s.chat
}

// stillHolds reads the lock, after the end of the stream was read.
func (s *modelSock) stillHolds(ctx context.Context, n int) bool {
	w := s.pod.w
	c := &modelCall{name: fmt.Sprintf("lock of socket %d", s.id), redis: true}
	asserted := s.pod.parts[n].Inc()
	ok, err := ask(ctx, s.pod, c, func() bool {
		return w.redis.lock(n, s.user.key).isOf(s.pod.owner, s.s.Conn()) && w.redis.incOf(n) == asserted
	})
	return err == nil && ok
}
