package server

import (
	"errors"
	"time"

	"pgregory.net/rapid"

	"github.com/daisi/daisi-ws/session"
)

var errModelFault = errors.New("the answer is lost")

// modelActions are the steps that a schedule is made of.
var modelActions = map[string]func(*world){
	// What goes on by itself: calls take effect and are answered, mail comes.
	"finish": func(w *world) {
		if c, ok := drawOne(w, "call", w.runnable()); ok {
			w.finish(c)
		}
	},
	"effect": func(w *world) {
		if c, ok := drawOne(w, "call", w.runnable()); ok {
			if c.ran {
				w.answer(c, nil)
			} else {
				w.effect(c, false)
			}
		}
	},
	"arrive": func(w *world) {
		if m, ok := drawOne(w, "mail", w.arriving()); ok {
			w.deliverMail(m, false)
		}
	},
	"tick": func(w *world) { w.pass(w.cfg.tick * time.Duration(rapid.IntRange(1, 8).Draw(w.rt, "eighths")) / 8) },
	"wait": func(w *world) { w.pass(w.cfg.wait * time.Duration(rapid.IntRange(1, 8).Draw(w.rt, "eighths")) / 8) },

	// What clients and publishers do.
	"store": func(w *world) {
		n := rapid.IntRange(0, modelPartitions-1).Draw(w.rt, "partition")
		want, _ := drawOne(w, "want", modelWants(n))
		w.storeOf(want)
		w.note("stored %d of %+v", w.stream.last(), want)
	},
	"login": func(w *world) {
		p, ok := drawOne(w, "pod", w.living())
		u, _ := drawOne(w, "user", w.users)
		if !ok || u.opening || p.isStopped() {
			return
		}
		var chat *string
		if c, _ := drawOne(w, "chat", []string{"restore", "x", "y", ""}); c != "restore" {
			chat = &c
		}
		w.login(p, u, chat, w.cfg.resume && u.last > 0 && rapid.Bool().Draw(w.rt, "resume"))
	},
	"select": func(w *world) {
		s, ok := drawOne(w, "socket", w.liveSocks())
		if !ok || s.chooses {
			return
		}
		var chat *string
		if c, _ := drawOne(w, "chat", []string{"x", "y", ""}); c != "" {
			chat = &c
		}
		w.choose(s, chat)
	},
	"logout": func(w *world) {
		if s, ok := drawOne(w, "socket", w.liveSocks()); ok {
			w.note("socket %d logs out", s.id)
			s.closed = true
			s.pod.m.Close(s.s, session.ReasonClient, "")
		}
	},

	// What pods do: nobody, one or several of them read a partition.
	"own": func(w *world) {
		p, ok := drawOne(w, "pod", w.living())
		n := rapid.IntRange(0, modelPartitions-1).Draw(w.rt, "partition")
		switch {
		case !ok:
		case p.readers[n] == nil:
			w.note("%s reads %d", p.owner, n)
			p.read(n)
		default:
			w.note("%s reads %d no more", p.owner, n)
			p.readers[n]()
			p.readers[n] = nil
		}
	},

	// Faults.
	"lose": func(w *world) {
		if m, ok := drawOne(w, "mail", w.arriving()); ok {
			w.deliverMail(m, true)
		}
	},
	"fail": func(w *world) { // before or after it took effect
		if c, ok := drawOne(w, "call", w.runnable()); ok {
			w.answer(c, errModelFault)
		}
	},
	"late": func(w *world) { // a connection breaks: the call is made again, the first copy comes some time
		if c, ok := drawOne(w, "call", w.runnable()); ok && !c.ran {
			w.effect(c, true)
		}
	},
	"past": func(w *world) {
		if c, ok := drawOne(w, "command", w.past); ok && !w.down {
			w.note("%s", c.name)
			c.run()
		}
	},
	"stop": func(w *world) {
		if p, ok := drawOne(w, "pod", w.living()); ok {
			steps := rapid.IntRange(20, 400).Draw(w.rt, "steps")
			w.note("%s stops for %d steps", p.owner, steps)
			p.until = w.step() + steps
			w.stats.Stops++
		}
	},
	"kill": func(w *world) {
		if p, ok := drawOne(w, "pod", w.living()); ok {
			w.note("%s is killed", p.owner)
			w.kill(p)
			w.stats.Kills++
		}
	},
	"restart": func(w *world) {
		for i, p := range w.pods {
			if p.dead {
				w.pods[i] = w.start(p.name)
				w.note("%s starts", w.pods[i].owner)
				return
			}
		}
	},
	"cut": func(w *world) { // or mend
		from, _ := drawOne(w, "from", w.living())
		to, ok := drawOne(w, "to", w.living())
		if ok && from != to {
			l := link{from.owner, to.owner}
			w.mail.cut[l] = !w.mail.cut[l]
			w.note("%s -> %s cut %v", l.from, l.to, w.mail.cut[l])
			w.breakStream(l.from, l.to)
		}
	},
	"redis": func(w *world) {
		w.down = !w.down
		w.note("redis down %v", w.down)
	},
	"flush": func(w *world) {
		w.excuse()
		w.redis.flush()
		w.note("redis loses all keys")
		w.stats.Flushes++
	},
	"save": func(w *world) { w.saved = w.redis.clone() },
	"failover": func(w *world) {
		if w.saved != nil {
			w.excuse()
			w.redis.failover(w.saved)
			w.note("redis fails over")
			w.saved = nil
			w.stats.Failovers++
		}
	},
	"reset": func(w *world) {
		w.stream.reset()
		w.note("the stream is made anew")
		w.stats.Resets++
	},
	"learn": func(w *world) {
		if p, ok := drawOne(w, "pod", w.living()); ok && !p.isStopped() {
			p.learn()
		}
	},
	"expire": func(w *world) { // retention
		w.stream.first = max(w.stream.first, w.stream.last()/2)
	},
}
