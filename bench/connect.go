package bench

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// Metrics of the server that scenarios read.
const (
	metricSent       = "dws_messages_sent_total"
	metricControl    = metricSent + `{event_type="control"}`
	metricGoroutines = "go_goroutines"
)

// ConnectOptions is the connect scenario: sessions come at a pace, and stay.
type ConnectOptions struct {
	Options
	Sessions int           `json:"sessions"` // default 1000; a process has at most its file limit of them
	Agents   int           `json:"agents"`   // (company, agent) pairs, default one for 30 sessions
	Hold     time.Duration `json:"hold"`     // how long idle CPU is measured, default 10 s
	Empty    time.Duration `json:"empty"`    // how long the server's own CPU is measured before the ramp, 0: not
	Chat     bool          `json:"chat"`     // each selects a chat at connect

	// During, if not nil, runs while the sessions are held.
	During func(ctx context.Context, st *Stage) error `json:"-"`
}

// Connect runs the connect scenario.
func Connect(ctx context.Context, o ConnectOptions) (*Report, error) {
	orInt(&o.Sessions, 1000)
	orInt(&o.Agents, (o.Sessions+29)/30)
	orDuration(&o.Hold, 10*time.Second)
	return Run(ctx, o.Options, connect{o})
}

type connect struct{ ConnectOptions }

// Name implements Scenario.
func (connect) Name() string { return "connect" }

// Run implements Scenario.
func (s connect) Run(ctx context.Context, st *Stage) error {
	st.breaks(s.During != nil)
	st.Want("junk==0,login_failures==0")
	if !st.faulty {
		st.Want("closed==0")
	}
	return s.come(ctx, st)
}

// come opens the sessions and holds them.
func (s connect) come(ctx context.Context, st *Stage) error {
	logins := s.population(st)
	if s.Empty > 0 {
		if err := st.Phase(ctx, phaseEmpty, func() error { return Wait(ctx, time.Now().Add(s.Empty)) }); err != nil {
			return err
		}
	}
	debug.FreeOSMemory() // what was only made on the way is no part of a socket
	if err := st.Phase(ctx, phaseLogin, func() error { return st.Login(ctx, logins, nil) }); err != nil {
		return err
	}
	return s.hold(ctx, st)
}

// hold lets memory settle, then measures what sessions cost that do nothing.
func (s connect) hold(ctx context.Context, st *Stage) error {
	err := st.Phase(ctx, phaseSettle, func() error {
		debug.FreeOSMemory()
		return Wait(ctx, time.Now().Add(st.Options.Settle))
	})
	if err != nil {
		return err
	}
	return st.Phase(ctx, phaseHold, func() error {
		if s.During != nil {
			if err := s.During(ctx, st); err != nil {
				return fmt.Errorf("during the hold: %w", err)
			}
		}
		return Wait(ctx, time.Now().Add(s.Hold))
	})
}

// Phases that several scenarios have.
const (
	phaseEmpty   = "empty"
	phaseLogin   = "login"
	phaseSettle  = "settle"
	phaseHold    = "hold"
	phaseDeliver = "deliver"
)

// population makes the sessions of this part. Names are shared by agents, so
// that a million users do not weigh more than they must.
func (s connect) population(st *Stage) []Login {
	part := st.Options.Part
	names := make([]string, (s.Sessions+s.Agents-1)/s.Agents)
	for i := range names {
		names[i] = fmt.Sprintf("user%d", i)
	}
	var logins []Login
	for a := range s.Agents {
		if !part.Mine(a) {
			continue
		}
		page := st.Book.Page(st.Options.Company, fmt.Sprintf("agent%d", a), fmt.Sprintf("62812%05d@s.whatsapp.net", a))
		for n := 0; n*s.Agents+a < s.Sessions; n++ {
			l := Login{User: &User{Page: page, Name: names[n]}, Door: (n*s.Agents + a) % st.Doors()}
			if s.Chat {
				l.User.Chat, l.Mode = topicMain, ChatQuery
			}
			logins = append(logins, l)
		}
	}
	return logins
}

// Figures implements figured.
func (s connect) Figures(st *Stage) {
	login, settle, hold := st.Phases[phaseLogin], st.Phases[phaseSettle], st.Phases[phaseHold]
	if login == nil || login.End.Open == 0 {
		return
	}
	st.footprint(login, settle)
	st.loginCost(login)
	if hold != nil {
		st.holdCost(hold)
	}
}

// footprint adds what sessions weigh: from before the first login until after
// settle, or until the last login when it did not come to that.
func (st *Stage) footprint(login, settle *Phase) {
	r := st.Report
	last := settle
	if last == nil {
		last = login
	}
	open := float64(last.End.Open)
	r.Add("sessions", open, "", "open after the ramp")
	if login.Seconds > 0 {
		r.Add("logins_per_second", float64(login.Logins())/login.Seconds, "1/s", fmt.Sprintf("%d at once in a process", st.Options.LoginWorkers))
	}
	if len(last.Usage.After) > 0 {
		var rss, gained int64
		for i, p := range last.Usage.After {
			rss += p.RSS
			gained += p.RSS - login.Usage.Before[i].RSS
		}
		n := len(last.Usage.After)
		r.Add("server_rss", float64(rss), "B", fmt.Sprintf("all %d processes", n))
		r.Add("server_rss_empty", float64(rss-gained)/float64(n), "B", "a process without a session")
		r.Add("rss_per_session", float64(gained)/open, "B", "RSS gained by the ramp, a session")
	}
	own := last.End.RSS - login.Begin.RSS
	r.Add("client_rss_per_socket", float64(own)/open, "B", fmt.Sprintf("RSS gained by %d client processes, a socket", last.End.Processes))
	r.Add("client_rss", float64(last.End.RSS), "B", "all client processes")
	r.Generator.Bytes = own
	before, after := login.Before, last.After
	r.Add("kernel_slab_per_session", float64(after.Kernel.Slab-before.Kernel.Slab)/open, "B", "whole machine: both ends of a connection when the server is on it")
	r.Add("kernel_slab", float64(after.Kernel.Slab), "B", "whole machine")
	r.Add("kernel_tcp_per_session", float64(after.Kernel.TCP-before.Kernel.TCP)/open, "B", "socket buffers, this network namespace")
	r.Add("kernel_sockets", float64(after.Kernel.Sockets), "", "TCP, this network namespace")
	r.Add("memory_available", float64(after.Kernel.Available), "B", "whole machine; before: "+bytesText(float64(before.Kernel.Available)))
	r.Slabs = slabsGained(before.Slabs, after.Slabs, open)
	if g := after.Metrics.Total(metricGoroutines); g > 0 {
		r.Add("goroutines_before", before.Metrics.Total(metricGoroutines), "", "all pods")
		r.Add("goroutines", g, "", "all pods, after the ramp")
	}
	r.Server = before.Metrics.Changes(after.Metrics)
	if after.Redis != (RedisInfo{}) {
		r.Add("redis_memory", float64(after.Redis.Memory), "B", "")
		r.Add("redis_memory_per_session", float64(after.Redis.Memory-before.Redis.Memory)/open, "B", "lock, route and all else")
	}
}

// slabsGained is what the slab caches that matter grew by.
func slabsGained(before, after map[string]int64, open float64) map[string]int64 {
	if after == nil {
		return nil
	}
	gained := make(map[string]int64)
	for name, n := range after {
		// Smaller ones are other people's.
		if d := n - before[name]; float64(d) > 16*open || float64(d) < -16*open {
			gained[name] = d
		}
	}
	return gained
}

// loginCost adds what a login cost.
func (st *Stage) loginCost(p *Phase) {
	r, ok := st.Report, float64(p.Logins())
	if ok == 0 {
		return
	}
	r.Add("client_cpu_per_login", p.Own/ok, "s", "client processes")
	if p.lived() {
		r.Add("server_cpu_per_login", p.Server/ok, "s", "all pids, until the last login")
	}
	if p.After.Redis != (RedisInfo{}) {
		r.Add("redis_cpu_per_login", (p.After.Redis.CPU-p.Before.Redis.CPU)/ok, "s", "")
		r.Add("redis_commands_per_login", float64(p.After.Redis.Commands-p.Before.Redis.Commands)/ok, "", "calls inside of scripts counted")
	}
}

// holdCost adds what sessions cost while nothing happens.
func (st *Stage) holdCost(p *Phase) {
	r, open := st.Report, float64(p.End.Open)
	if p.Seconds <= 0 || open <= 0 {
		return
	}
	if p.lived() {
		r.Add("idle_cpu_per_session", p.Server/p.Seconds/open, "", "seconds a second, all pids, while held")
		if empty := st.Phases[phaseEmpty]; empty != nil && empty.Seconds > 0 {
			own := empty.Server / empty.Seconds
			r.Add("empty_cpu", own, "", "cores, all pids, before the first session")
			r.Add("idle_cpu_per_session_net", (p.Server/p.Seconds-own)/open, "", "seconds a second, without that")
		}
		r.Add("idle_cpu", p.Server/p.Seconds, "", "cores, all pids, while held")
	}
	st.rates(p.Before, p.After)
	r.Add("idle_cpu_clients", p.Own/p.Seconds, "", "cores, client processes, while held")
	r.Add("idle_machine_busy", p.Machine, "", "share of all cores, while held")
}
