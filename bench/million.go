package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"
)

// MillionOptions is the million scenario: as many sessions as memory holds, all
// alive at once, counted on both sides and in Redis, then told and taken over.
type MillionOptions struct {
	ConnectOptions
	Events    int     `json:"events"`     // to agents drawn by the seed, default 10,000
	EventRate float64 `json:"event_rate"` // a second, default 200
	Takeovers int     `json:"takeovers"`  // sessions drawn by the seed, default 1,000
	Abreast   int     `json:"abreast"`    // workers that log in at the same time, default 2: few busy processes log in faster than many that wake each other
	Reserve   int64   `json:"reserve"`    // with less memory available on this machine the run stops; default 1.5 GiB
}

// usersAnAgent is how many sessions one (company, agent) has.
const usersAnAgent = 10

// Million runs the million scenario.
func Million(ctx context.Context, o MillionOptions) (*Report, error) {
	orInt(&o.Sessions, 1000000)
	orInt(&o.Agents, (o.Sessions+usersAnAgent-1)/usersAnAgent)
	orDuration(&o.Hold, time.Minute)
	orInt(&o.Events, 10000)
	orFloat(&o.EventRate, 200)
	orInt(&o.Takeovers, 1000)
	orInt(&o.Abreast, 2)
	o.Takeovers = min(o.Takeovers, o.Sessions)
	if o.Reserve <= 0 {
		o.Reserve = 3 << 29
	}
	return Run(ctx, o.Options, million{o})
}

type million struct{ MillionOptions }

// Name implements Scenario.
func (million) Name() string { return "million" }

// Phases and counts of the scenario's own.
const (
	phaseTakeover = "takeover"
	phaseAfter    = "after_takeover"
	countActive   = "server_active"
	countLocks    = "locks"

	metricActive = "dws_active_connections"
)

// Run implements Scenario.
func (s million) Run(ctx context.Context, st *Stage) error {
	st.expected, st.untimed = closeReplaced, true
	st.Want("junk==0,login_failures==0,closed==0,unsure==0,unreplaced==0")
	ctx, stop := st.guard(ctx, s.Reserve)
	defer stop()
	err := s.run(ctx, st)
	if cause := context.Cause(ctx); errors.Is(cause, errMemory) {
		return cause
	}
	return err
}

func (s million) run(ctx context.Context, st *Stage) error {
	if err := st.OpenFeed(ctx, 0); err != nil {
		return err
	}
	if err := s.come(ctx, st); err != nil {
		return err
	}
	if err := st.Solo(ctx, "count", func() error { return s.count(ctx, st) }); err != nil {
		return err
	}
	rng := st.Rand(fmt.Sprintf("events %d", st.Options.Part.Index))
	if err := st.Phase(ctx, phaseDeliver, func() error { return s.publish(ctx, st, rng) }); err != nil {
		return err
	}
	moved := s.drawn(st, rng)
	err := st.Phase(ctx, phaseTakeover, func() error {
		var took twin
		err := st.Login(ctx, moved, took.login)
		st.addTwin(phaseTakeover, &took)
		if err != nil {
			return err
		}
		return st.replaced(ctx, int64(len(moved)))
	})
	if err != nil {
		return err
	}
	users := make([]*User, len(moved))
	for i := range moved {
		users[i] = moved[i].User
	}
	return st.Phase(ctx, phaseAfter, func() error { return st.tell(ctx, users, s.EventRate) })
}

// come opens the sessions and holds them. Workers take turns, Abreast at a
// time, and each goes from door to door: what is awake then has much to do.
func (s million) come(ctx context.Context, st *Stage) error {
	logins := connect{s.ConnectOptions}.population(st)
	part, doors := st.Options.Part, st.Doors()
	first := part.Index % s.Abreast * doors / s.Abreast // those abreast are at different doors
	slices.SortStableFunc(logins, func(a, b Login) int { return (a.Door+first)%doors - (b.Door+first)%doors })
	rounds := (max(part.Count, 1) + s.Abreast - 1) / s.Abreast
	// The rate is that of all who are at it.
	st.Options.LoginRate *= float64(max(part.Count, 1)) / float64(min(s.Abreast, max(part.Count, 1)))
	debug.FreeOSMemory()
	err := st.Phase(ctx, phaseLogin, func() error {
		for round := range rounds {
			if !part.Guide && part.Index/s.Abreast == round {
				if err := st.Login(ctx, logins, nil); err != nil {
					return err
				}
				debug.FreeOSMemory()
			}
			if rounds == 1 {
				break
			}
			if err := st.Solo(ctx, fmt.Sprintf("login round %d", round), func() error { return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return connect{s.ConnectOptions}.hold(ctx, st)
}

// count compares what clients, gateways and Redis say is there.
func (s million) count(ctx context.Context, st *Stage) error {
	m, err := st.Scraper.Read(ctx)
	if err != nil {
		return err
	}
	if len(st.Options.Internal) > 0 { // who was not asked did not say 0
		st.Report.Counts[countActive] = int64(m.Total(metricActive))
	}
	locks, err := st.Redis.Locks(ctx, st.Options.Company)
	if errors.Is(err, errNoRedis) {
		return nil
	}
	st.Report.Counts[countLocks] = locks
	return err
}

// publish sends this part's share of events to agents of its own.
func (s million) publish(ctx context.Context, st *Stage, rng *rand.Rand) error {
	pages := st.Book.Pages()
	if len(pages) > 0 {
		err := st.Feed.Play(ctx, st.pacer(s.EventRate, 1), st.Options.Part.share(s.Events), func(int) (*Page, uint16) {
			return pages[rng.IntN(len(pages))], 0
		})
		if err != nil {
			return err
		}
	}
	if err := st.Feed.Flush(ctx); err != nil {
		return err
	}
	_, err := st.Drain(ctx)
	return err
}

// drawn are logins of this part's share of users, each at the door next to the
// one where it is.
func (s million) drawn(st *Stage, rng *rand.Rand) []Login {
	watches := st.Oracle.all()
	n := min(st.Options.Part.share(s.Takeovers), len(watches))
	list := make([]Login, n)
	for i, at := range rng.Perm(len(watches))[:n] {
		w := watches[at]
		list[i] = Login{User: w.user, Door: (st.doorOf(w.pod) + 1) % st.Doors()}
	}
	return list
}

// doorOf is the index of a door's address.
func (st *Stage) doorOf(addr string) int {
	for i, a := range st.Options.Addrs {
		if a == addr {
			return i
		}
	}
	return 0
}

// Figures implements figured.
func (s million) Figures(st *Stage) {
	connect{s.ConnectOptions}.Figures(st)
	r, hold := st.Report, st.Phases[phaseHold]
	if hold != nil {
		clients := float64(hold.End.Open)
		r.Add("clients_open", clients, "", "sockets of clients after the hold")
		if n, ok := r.Counts[countActive]; ok {
			r.Add("server_active", float64(n), "", "sum of "+metricActive+" after the hold")
			r.Add("server_off", float64(n)-clients, "", "that, less the clients' sockets")
			st.Want("server_off==0")
		}
		if n, ok := r.Counts[countLocks]; ok {
			r.Add("locks", float64(n), "", "locks of this run in Redis, counted by SCAN after the hold")
			r.Add("locks_off", float64(n)-clients, "", "that, less the clients' sockets")
			st.Want("locks_off==0")
		}
		r.Add("memory_least", float64(min(hold.Before.Kernel.Available, hold.After.Kernel.Available)), "B", "available around the hold, whole machine")
	}
	if p := st.Phases[phaseDeliver]; p != nil {
		r.Add("events", float64(p.Published()), "", "published to agents drawn by the seed")
		r.Add("deliveries", float64(p.Frames()), "", "event frames received")
		r.Add("unsure", float64(p.End.Unsure), "", "events whose storing was not confirmed")
		st.deliveryCost(p)
	} else {
		r.Add("unsure", 0, "", "it did not come to events")
	}
	if p := st.Phases[phaseTakeover]; p != nil {
		r.Add("taken_over", float64(p.Logins()), "", "sessions that logged in at another pod")
		r.Add("unreplaced", float64(p.Logins()-p.End.Replaced), "", "of their older sockets: did not see 4402")
	} else {
		r.Add("unreplaced", 0, "", "it did not come to takeovers")
	}
	if p := st.Phases[phaseAfter]; p != nil {
		r.Add("deliveries_after_takeover", float64(p.Frames()), "", fmt.Sprintf("of %d events", p.Published()))
	}
}
