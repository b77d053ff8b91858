package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// FanoutOptions is the fanout scenario: sessions of many agents over all pods,
// events by schedule, each going to every session that wants it.
type FanoutOptions struct {
	Options
	Sessions  int           `json:"sessions"`  // default 1500, spread evenly over agents and pods
	Agents    int           `json:"agents"`    // (company, agent) pairs, default 50
	Receivers int           `json:"receivers"` // sessions an agent; > 0: sets Agents
	Companies int           `json:"companies"` // with the same agent names, default 2
	Other     float64       `json:"other"`     // share of an agent's sessions on a second chat, default 1/3; < 0: none
	Chats     int           `json:"chats"`     // weight of chats events; both weights 0: 1 to 1
	Messages  int           `json:"messages"`  // weight of messages.<chat> events, of three chats a tenth to one nobody selected
	Rate      float64       `json:"rate"`      // events a second, default 500
	Burst     int           `json:"burst"`     // events due at the same instant, of one agent; default 1
	Duration  time.Duration `json:"duration"`  // of the measured part, default 10 s
	Warmup    time.Duration `json:"warmup"`    // before it, judged but not timed; default 1 s, < 0: none
	Size      int           `json:"size"`      // bytes of a body, default 260
	Resume    bool          `json:"resume"`    // who is cut off comes back with ?resume, and is owed all it missed
	Forget    bool          `json:"forget"`    // with Resume: comes back without saying where it stands, the control of it

	// During, if not nil, runs beside the measured part: the place for faults.
	// The events go on until both have ended.
	During func(ctx context.Context, st *Stage) error `json:"-"`
}

// Fanout runs the fanout scenario.
func Fanout(ctx context.Context, o FanoutOptions) (*Report, error) {
	o = o.withDefaults()
	if err := eventful(o.Rate, o.Duration); err != nil && o.During == nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	return Run(ctx, o.Options, fanout{o})
}

// eventful is an error if no event falls into so much time: there would be
// nothing to find fault with.
func eventful(rate float64, during time.Duration) error {
	if rate*during.Seconds() < 1 {
		return fmt.Errorf("not one event falls into %v at %v a second", during, rate)
	}
	return nil
}

func (o FanoutOptions) withDefaults() FanoutOptions {
	orInt(&o.Sessions, 1500)
	orInt(&o.Agents, 50)
	if o.Receivers > 0 {
		o.Agents = max(1, o.Sessions/o.Receivers)
	}
	orInt(&o.Companies, 2)
	o.Companies = min(o.Companies, o.Agents)
	orInt(&o.Burst, 1)
	orFloat(&o.Rate, 500)
	orDuration(&o.Duration, 10*time.Second)
	if o.Other == 0 {
		o.Other = 1.0 / 3
	}
	if o.Warmup == 0 {
		o.Warmup = time.Second
	}
	if o.Chats <= 0 && o.Messages <= 0 {
		o.Chats, o.Messages = 1, 1
	}
	return o
}

type fanout struct{ FanoutOptions }

// Topics of a page: 0 is chats, then the chats of the two groups of sessions,
// then one that nobody selects.
const (
	topicMain = iota + 1
	topicOther
	topicNobody
)

// Name implements Scenario.
func (fanout) Name() string { return "fanout" }

// Run implements Scenario.
func (s fanout) Run(ctx context.Context, st *Stage) error {
	st.Want("junk==0,login_failures==0")
	st.breaks(s.During != nil)
	st.undisturbed = !st.faulty
	switch {
	case !st.faulty: // faults may close sockets, and are told by gaps
		st.Want("closed==0,gaps==0,unsure==0")
	case s.Resume:
		st.Want("gaps==0,told==0,away==0")
	}
	if err := st.OpenFeed(ctx, s.Size); err != nil {
		return err
	}
	logins := s.population(st)
	if s.Resume {
		defer s.comeBack(ctx, st)()
	}
	if err := st.Phase(ctx, phaseLogin, func() error { return st.Login(ctx, logins, nil) }); err != nil {
		return err
	}
	picks := s.picker(st.Book.Pages(), st.Rand(fmt.Sprintf("events %d", st.Options.Part.Index)))
	if n := st.Options.Part.share(int(s.Rate * s.Warmup.Seconds())); n > 0 {
		if err := st.Feed.Play(ctx, st.pacer(s.Rate, s.Burst), n, picks); err != nil {
			return err
		}
		if err := st.Feed.Flush(ctx); err != nil {
			return err
		}
		if _, err := st.Drain(ctx); err != nil {
			return err
		}
		st.Fleet.delivery.Reset()
		st.Fleet.deliveryRaw.Reset()
	}
	if err := s.idle(ctx, st); err != nil {
		return err
	}
	return st.Phase(ctx, phaseDeliver, func() error { return s.deliver(ctx, st, picks) })
}

// comeBack lets clients resume until the function it returns is called.
func (s fanout) comeBack(ctx context.Context, st *Stage) (stop func()) {
	st.Fleet.Resume(s.Sessions, s.Forget)
	inner, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { st.Fleet.ComeBack(inner, st.Options.LoginWorkers, st.Options.LoginTimeout) })
	return func() {
		cancel()
		group.Wait()
		most, all := st.Fleet.returns.busiest()
		c := st.Report.Counts
		c["reconnects"], c["reconnect_rate_max"], c["away"] = all, most, int64(st.Fleet.Away())
		st.AddLatency("ready_again", &st.Fleet.returns.took)
	}
}

// allBack waits until nobody is between two sockets, a minute at most.
func (s fanout) allBack(ctx context.Context, st *Stage) error {
	for end := time.Now().Add(time.Minute); s.Resume && st.Fleet.Away() > 0 && time.Now().Before(end); {
		if err := Wait(ctx, time.Now().Add(10*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// population makes the pages and one login a session: each agent's sessions on
// all pods in turn, a share of them, drawn by the seed, on the other chat.
func (s fanout) population(st *Stage) []Login {
	perAgent := (s.Sessions + s.Agents - 1) / s.Agents
	others := int(s.Other*float64(perAgent) + 0.5)
	rng := st.Rand("population")
	pages, drawn := make([]*Page, s.Agents), make([][]int, s.Agents)
	for i := range pages {
		drawn[i] = rng.Perm(perAgent) // by all parts alike
		if !st.Options.Part.Mine(i) {
			continue
		}
		company, agent := i%s.Companies, i/s.Companies
		chat := func(n int) string { return fmt.Sprintf("62812%05d%d@s.whatsapp.net", agent, n) }
		pages[i] = st.Book.Page(fmt.Sprintf("%s-c%d", st.Options.Company, company), fmt.Sprintf("agent%d", agent), chat(1), chat(2), chat(3))
	}
	var logins []Login
	for i := range s.Sessions {
		page, nth := i%s.Agents, i/s.Agents
		if pages[page] == nil {
			continue
		}
		u := &User{Page: pages[page], Name: fmt.Sprintf("user%d", nth), Chat: topicMain}
		if drawn[page][nth] < others {
			u.Chat = topicOther
		}
		mode := ChatQuery
		if nth/st.Doors()%2 == 1 {
			mode = ChatSelect
		}
		logins = append(logins, Login{User: u, Door: nth % st.Doors(), Mode: mode})
	}
	return logins
}

// picker draws what event i is. Events of one burst go to one agent, so that
// they wait together at its sockets.
func (s fanout) picker(pages []*Page, rng *rand.Rand) func(i int) (*Page, uint16) {
	var page *Page
	return func(i int) (*Page, uint16) {
		if len(pages) == 0 {
			return nil, 0 // no agent is this part's
		}
		if i%s.Burst == 0 || page == nil {
			page = pages[rng.IntN(len(pages))]
		}
		if rng.IntN(s.Chats+s.Messages) < s.Chats {
			return page, 0
		}
		switch n := rng.IntN(20); {
		case n < 9:
			return page, topicMain
		case n < 18:
			return page, topicOther
		default:
			return page, topicNobody
		}
	}
}

// idle measures what the sessions cost while nothing is published.
func (s fanout) idle(ctx context.Context, st *Stage) error {
	if len(s.PIDs) == 0 {
		return nil
	}
	return st.Phase(ctx, phaseHold, func() error { return Wait(ctx, time.Now().Add(2*time.Second)) })
}

// deliver plays the events, beside During, and waits until all is there.
func (s fanout) deliver(ctx context.Context, st *Stage, picks func(int) (*Page, uint16)) error {
	group, inner := errgroup.WithContext(ctx)
	during := make(chan struct{})
	group.Go(func() error {
		defer close(during)
		if s.During == nil {
			return nil
		}
		if err := s.During(inner, st); err != nil {
			return fmt.Errorf("during the events: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		pace, least := st.pacer(s.Rate, s.Burst), st.Options.Part.share(int(s.Rate*s.Duration.Seconds()))
		for i := 0; ; i++ {
			if i >= least {
				select {
				case <-during:
					return nil
				default:
				}
			}
			if err := Wait(inner, pace.Due(i)); err != nil {
				return err
			}
			page, topic := picks(i)
			if page == nil {
				continue
			}
			if err := st.Feed.Publish(inner, page, topic, pace.Due(i)); err != nil {
				return err
			}
		}
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := st.Feed.Flush(ctx); err != nil {
		return err
	}
	if err := s.allBack(ctx, st); err != nil {
		return err
	}
	took, err := st.Drain(ctx)
	st.Report.Counts["drain_us"] = took.Microseconds()
	return err
}

// Figures implements figured.
func (s fanout) Figures(st *Stage) {
	p := st.Phases[phaseDeliver]
	if p == nil {
		return
	}
	r, copies, events := st.Report, float64(p.Frames()), float64(p.Published())
	r.Add("sessions", float64(p.End.Open), "", "open at the end")
	r.Add("events", events, "", "published in the measured part")
	r.Add("deliveries", copies, "", "event frames received in it")
	r.Add("unsure", float64(p.End.Unsure), "", "events whose storing was not confirmed")
	if events > 0 {
		r.Add("fanout", copies/events, "", "receivers an event")
	}
	if s.During == nil {
		r.Add("delivery_rate", copies/s.Duration.Seconds(), "1/s", "over the nominal duration")
	} else {
		r.Add("delivery_rate", copies/p.Seconds, "1/s", "until nothing was outstanding")
	}
	if !st.shared() {
		r.Add("drain", float64(r.Counts["drain_us"])/1e6, "s", "from the last ack until nothing was outstanding")
	}
	if s.Resume {
		r.addReturns()
	}
	st.deliveryCost(p)
	st.compare(p.Before, p.After, p.Frames())
}

// addReturns adds who was cut off and came back.
func (r *Report) addReturns() {
	r.Add("reconnects", float64(r.Counts["reconnects"]), "", "attempts of clients that were cut off")
	r.Add("reconnect_rate_max", float64(r.Counts["reconnect_rate_max"]), "1/s", "in the busiest second")
	r.Add("away", float64(r.Counts["away"]), "", "clients that were not back at the end")
}

// deliveryCost adds what the server's processes spent on deliveries.
func (st *Stage) deliveryCost(p *Phase) {
	r, copies := st.Report, float64(p.Frames())
	r.Add("machine_busy", p.Machine, "", "share of all cores")
	if !p.lived() || copies == 0 {
		return
	}
	r.Add("server_cpu_per_delivery", p.Server/copies, "s", "all pids, all they did")
	if idle := st.Phases[phaseHold]; idle != nil && idle.Seconds > 0 {
		net := p.Server - idle.Server/idle.Seconds*p.Seconds
		r.Add("server_cpu_per_delivery_net", net/copies, "s", "without what they did while nothing was published")
		r.Add("server_cpu_idle", idle.Server/idle.Seconds, "", "cores, all pids, nothing published")
	}
	r.Add("server_cpu_per_event", p.Server/float64(max(p.Published(), 1)), "s", "all pids")
}
