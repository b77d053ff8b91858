package bench

import (
	"context"
	"fmt"
	"time"
)

// TakeoverOptions is the takeover scenario: every user logs in on the first
// pod, again on the second, and again on the second; then one event a user.
type TakeoverOptions struct {
	Options
	Users  int `json:"users"`  // default 1000
	Agents int `json:"agents"` // (company, agent) pairs, default one for 10 users

	// Rate of logins a second in each round, by schedule; default 200. The
	// common LoginRate is not used.
	Rate float64 `json:"rate"`
}

// Takeover runs the takeover scenario.
func Takeover(ctx context.Context, o TakeoverOptions) (*Report, error) {
	orInt(&o.Users, 1000)
	orInt(&o.Agents, (o.Users+9)/10)
	orFloat(&o.Rate, 200)
	o.Pollers = 1 // so that the order in which sockets are told things is known
	return Run(ctx, o.Options, takeover{o})
}

type takeover struct{ TakeoverOptions }

// takeoverLimit is how long a takeover may take on a machine where a login takes
// much less (guarantee S3, p99).
const takeoverLimit = 50 * time.Millisecond

// closeReplaced is the code by which the older socket of a key ends.
const closeReplaced = "4402"

// Name implements Scenario.
func (takeover) Name() string { return "takeover" }

// Run implements Scenario.
func (s takeover) Run(ctx context.Context, st *Stage) error {
	st.expected = closeReplaced
	st.Options.LoginRate = s.Rate
	st.Want("closed==0,junk==0,login_failures==0,unreplaced==0,strays==0")
	if err := st.OpenFeed(ctx, 0); err != nil {
		return err
	}
	if err := st.Fleet.Order(ctx, st.Oracle); err != nil {
		return err
	}
	users := s.population(st)
	second := min(1, st.Doors()-1)
	rounds := []struct {
		name string
		door int
		mode ChatMode
	}{
		// The chat is selected once: later sessions of the key get it back.
		{"first", 0, ChatQuery}, {"takeover", second, ChatRestored}, {"takeover_same_pod", second, ChatRestored},
	}
	for n, round := range rounds {
		logins := make([]Login, len(users))
		for i, u := range users {
			logins[i] = Login{User: u, Door: round.door, Mode: round.mode}
		}
		var took twin
		err := st.Phase(ctx, round.name, func() error {
			if err := st.Login(ctx, logins, took.login); err != nil {
				return err
			}
			return st.replaced(ctx, int64(n*len(users)))
		})
		st.addTwin(round.name, &took)
		if err != nil {
			return err
		}
	}
	return st.Phase(ctx, phaseDeliver, func() error { return st.tell(ctx, users, 500) })
}

// population gives each user a chat of its own, so that an event can be sent to
// that user alone.
func (s takeover) population(st *Stage) []*User {
	var users []*User
	perAgent := (s.Users + s.Agents - 1) / s.Agents
	var page *Page
	for i := range s.Users {
		if !st.Options.Part.Mine(i / perAgent) {
			continue
		}
		if i%perAgent == 0 {
			chats := make([]string, perAgent)
			for c := range chats {
				chats[c] = fmt.Sprintf("62812%05d.%d@s.whatsapp.net", i, c)
			}
			page = st.Book.Page(st.Options.Company, fmt.Sprintf("agent%d", i/perAgent), chats...)
		}
		users = append(users, &User{Page: page, Name: fmt.Sprintf("user%d", i), Chat: uint16(i%perAgent + 1)})
	}
	return users
}

// replaced waits, at most DrainTime, until as many sockets have ended as were
// replaced so far.
func (st *Stage) replaced(ctx context.Context, want int64) error {
	limit := time.Now().Add(st.Options.DrainTime)
	for time.Now().Before(limit) && st.Fleet.Closes()[closeReplaced] < want {
		if err := Wait(ctx, time.Now().Add(5*time.Millisecond)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// tell publishes one event a user, to its chat or, without one, its agent, and
// waits until all is there.
func (st *Stage) tell(ctx context.Context, users []*User, rate float64) error {
	err := st.Feed.Play(ctx, st.pacer(rate, 1), len(users), func(i int) (*Page, uint16) {
		return users[i].Page, users[i].Chat
	})
	if err != nil {
		return err
	}
	if err := st.Feed.Flush(ctx); err != nil {
		return err
	}
	_, err = st.Drain(ctx)
	return err
}

// Figures implements figured.
func (s takeover) Figures(st *Stage) {
	p := st.Phases[phaseDeliver]
	if p == nil {
		return
	}
	r, replaced := st.Report, p.End.Replaced
	usual := max(takeoverLimit.Seconds(), 2*r.Latencies["first_raw"].P99)
	for _, name := range []string{"takeover", "takeover_same_pod"} {
		r.Add(name+"_excess", r.Latencies[name+"_raw"].P99-usual, "s", fmt.Sprintf("its p99, from the request as S3 has it, beyond the larger of %v and twice that of logins that take over nothing", takeoverLimit))
	}
	r.Add("replaced", float64(replaced), "", "sockets that saw close 4402")
	r.Add("unreplaced", float64(int64(2*s.Users)-replaced), "", "older sockets that did not")
	r.Add("strays", float64(p.Frames()-int64(s.Users)), "", "event frames beyond, or short of, one a user")
	r.Add("overlaps", float64(r.Oracle.Overlaps), "", "of the older sockets: told of their end after the newcomer's ready was seen")
	r.Add("overlaps_excused", float64(r.Oracle.Excused), "", "of those: while logins took 250 ms or more, as long as a silent pod is waited for")
}
