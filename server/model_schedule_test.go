package server

import (
	"maps"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// modelConfig is what a schedule is made of: how often each step is drawn, of
// the sum of all, and what holds for the whole of it.
type modelConfig struct {
	steps   int
	weights map[string]int
	tick    time.Duration // the longest of "tick"
	wait    time.Duration // of "wait"
	slow    int           // one in so many deliveries finds a full queue; 0 none
	resume  bool          // clients resume
	deaf    int           // percent of kills that nobody hears
}

// modelEngine gives connections that are no sockets; it never runs.
var modelEngine = sync.OnceValue(func() *loop.Engine {
	e, err := loop.New(loop.Options{})
	if err != nil {
		panic(err)
	}
	return e
})

// runModel runs one schedule in a bubble of its own.
func runModel(rt *rapid.T, cut rule, cfg modelConfig, stats *modelStats) (broken *modelBreach, trace []string) {
	engine := modelEngine()
	rapid.SyncTest(rt, func(rt *rapid.T) {
		w := &world{rt: rt, cut: cut, cfg: cfg, stats: stats, engine: engine, users: modelUsers(), epochs: map[session.Key]uint64{}}
		w.mail.streams, w.mail.cut, w.mail.served = map[link]uint64{}, map[link]bool{}, map[servedKey]uint64{}
		w.redis, w.stream = newModelRedis(modelPartitions, w.redisTime), newModelStream()
		w.redis.cut = cut
		defer func() { // rapid ends a draw that it gives up by a panic
			w.end()
			broken, trace = w.breach, w.trace
		}()
		for i := range modelPods {
			w.pods = append(w.pods, w.start(string(rune('A'+i))))
		}
		w.pods[0].read(0)
		w.pods[1].read(1)
		w.settle(20)
		w.schedule()
	})
	return broken, trace
}

// redisTime never says the same twice: an epoch issued again within the
// microsecond in which all keys were lost would be equal, not higher. The rule
// that epochs rise by themselves is for clocks that stand still.
func (w *world) redisTime() time.Time {
	if w.cut == ruleEpochsRise {
		return time.Now()
	}
	w.asked++
	return time.Now().Add(w.asked * time.Microsecond)
}

// schedule draws steps, then ends all faults and waits for what must come.
func (w *world) schedule() {
	var table []string
	for _, name := range slices.Sorted(maps.Keys(w.cfg.weights)) {
		for range w.cfg.weights[name] {
			table = append(table, name)
		}
	}
	action := rapid.SampledFrom(table)
	for i := range w.cfg.steps {
		w.steps.Add(1)
		w.stats.Steps++
		modelActions[action.Draw(w.rt, "step")](w)
		synctest.Wait()
		if i%8 == 0 {
			w.check()
		}
		if w.isBroken() {
			return
		}
	}
	w.calm()
	w.settle(35)
	w.probe() // by which those learn what Redis lost to whom no reader speaks
	w.settle(35)
	// A login that comes to its end behind the probe would find no event that
	// fences the socket before it, which a lost kill left alive till then.
	for tenths := 0; w.isOpening() && tenths < 150; tenths += 5 {
		w.settle(5)
	}
	w.probe()
	w.settle(35)
	w.checkEnd()
}

// isOpening says whether a login is under way.
func (w *world) isOpening() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.users, func(u *modelUser) bool { return u.opening })
}

// calm ends all faults.
func (w *world) calm() {
	w.down, w.past = false, nil
	clear(w.mail.cut)
	for i, p := range w.pods {
		if p.dead {
			w.pods[i] = w.start(p.name)
		}
		w.pods[i].until = 0
	}
	w.learnAll()
}

// learnAll is every pod's look at the stream, once a second.
func (w *world) learnAll() {
	for _, p := range w.living() {
		p.learn()
	}
}

// settle lets everything go its way, for so many tenths of a second.
func (w *world) settle(tenths int) {
	synctest.Wait() // pods that were just started are not to run beside the schedule
	for tenth := range tenths {
		w.steps.Add(1)
		if tenth%10 == 5 {
			w.learnAll()
		}
		for range 100 {
			calls, arriving := w.runnable(), w.arriving()
			if len(calls)+len(arriving) == 0 {
				break
			}
			for _, c := range calls {
				w.finish(c)
			}
			for _, m := range arriving {
				w.deliverMail(m, false)
			}
			synctest.Wait()
		}
		w.pass(100 * time.Millisecond)
		w.check()
	}
}

// finish takes a call to its end.
func (w *world) finish(c *modelCall) {
	if !c.ran {
		w.effect(c, false)
	}
	w.answer(c, nil)
}

// probe stores one event of everything that anybody may want.
func (w *world) probe() {
	w.steps.Add(1)
	for n := range modelPartitions {
		for _, want := range modelWants(n) {
			w.storeOf(want)
		}
	}
	w.steps.Add(1)
}

func (w *world) storeOf(want session.Want) {
	r := session.Route{Company: want.Company, Agent: want.Agent, Kind: session.KindChats, Chat: want.Chat}
	if want.Chat != "" {
		r.Kind = session.KindMessages
	}
	w.stream.store(r, w.step())
}

// drawOne draws from list; ok is false when it is empty. The first are drawn a
// little more often, so lists begin with the oldest.
func drawOne[T any](w *world, label string, list []T) (one T, ok bool) {
	if len(list) == 0 {
		return one, false
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(w.rt, label)], true
}

func (w *world) living() []*modelPod {
	return slices.DeleteFunc(slices.Clone(w.pods), func(p *modelPod) bool { return p.dead })
}

// liveSocks are those whose client can ask for something now.
func (w *world) liveSocks() []*modelSock {
	var list []*modelSock
	for _, s := range w.socks {
		if s.isLive() && !s.pod.isStopped() {
			list = append(list, s)
		}
	}
	return list
}
