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

// footprint is what sessions are measured by.
type footprint struct {
	server  []Process
	own     Process
	kernel  Kernel
	slabs   map[string]int64
	metrics Series
}

// Run implements Scenario.
func (s connect) Run(ctx context.Context, st *Stage) error {
	st.faulty = s.During != nil
	st.Want("junk==0,login_failures==0")
	if !st.faulty {
		st.Want("closed==0")
	}
	logins := s.population(st)
	before, err := s.footprint(ctx, st)
	if err != nil {
		return err
	}
	login, err := st.Measure("login", func() error { return st.Login(ctx, logins, nil) })
	if err != nil {
		return err
	}
	if err := Wait(ctx, time.Now().Add(st.Options.Settle)); err != nil {
		return err
	}
	after, err := s.footprint(ctx, st)
	if err != nil {
		return err
	}
	open := float64(st.Fleet.Open())
	hold, err := st.Measure("hold", func() error {
		if s.During != nil {
			if err := s.During(ctx, st); err != nil {
				return fmt.Errorf("during the hold: %w", err)
			}
		}
		return Wait(ctx, time.Now().Add(s.Hold))
	})
	if open > 0 {
		s.figures(st, before, after, open)
		s.costs(st, login, hold, open)
	}
	return err
}

func (s connect) population(st *Stage) []Login {
	pages := make([]*Page, s.Agents)
	for i := range pages {
		pages[i] = st.Book.Page(st.Options.Company, fmt.Sprintf("agent%d", i), fmt.Sprintf("62812%05d@s.whatsapp.net", i))
	}
	logins := make([]Login, s.Sessions)
	for i := range logins {
		l := Login{User: &User{Page: pages[i%s.Agents], Name: fmt.Sprintf("user%d", i/s.Agents)}, Door: i % st.Doors()}
		if s.Chat {
			l.User.Chat, l.Mode = topicMain, ChatQuery
		}
		logins[i] = l
	}
	return logins
}

func (s connect) footprint(ctx context.Context, st *Stage) (f footprint, err error) {
	debug.FreeOSMemory() // what was only made on the way is no part of a socket
	if f.server, err = st.Sampler.Processes(); err != nil {
		return f, err
	}
	if f.own, err = ReadProcess(0); err != nil {
		return f, err
	}
	f.kernel, f.slabs = ReadKernel(), ReadSlabs()
	f.metrics, err = st.Scraper.Read(ctx)
	st.Report.fail(err)
	return f, nil
}

func (s connect) figures(st *Stage, before, after footprint, open float64) {
	r := st.Report
	r.Add("sessions", open, "", "open after the ramp")
	r.Add("logins_per_second", float64(r.Logins.OK)/r.Logins.Seconds, "1/s", fmt.Sprintf("%d at once", st.Options.LoginWorkers))
	if len(after.server) > 0 {
		var rss, gained int64
		for i, p := range after.server {
			rss += p.RSS
			gained += p.RSS - before.server[i].RSS
		}
		r.Add("server_rss", float64(rss), "B", "all pids")
		r.Add("rss_per_session", float64(gained)/open, "B", "RSS gained by the ramp, a session")
	}
	r.Add("client_rss_per_socket", float64(after.own.RSS-before.own.RSS)/open, "B", "this process")
	r.Generator.Bytes = after.own.RSS - before.own.RSS
	r.Add("kernel_slab_per_session", float64(after.kernel.Slab-before.kernel.Slab)/open, "B", "whole machine: both ends of a connection when the server is on it")
	r.Add("kernel_tcp_per_session", float64(after.kernel.TCP-before.kernel.TCP)/open, "B", "socket buffers, this network namespace")
	if after.slabs != nil {
		r.Slabs = make(map[string]int64)
		for name, n := range after.slabs {
			// Smaller ones are other people's.
			if d := n - before.slabs[name]; float64(d) > 16*open || float64(d) < -16*open {
				r.Slabs[name] = d
			}
		}
	}
	if g := after.metrics.Total(metricGoroutines); g > 0 {
		r.Add("goroutines_before", before.metrics.Total(metricGoroutines), "", "all pods")
		r.Add("goroutines", g, "", "all pods, after the ramp")
	}
	r.Server = before.metrics.Changes(after.metrics)
}

func (s connect) costs(st *Stage, login, hold Usage, open float64) {
	r := st.Report
	if ok := float64(r.Logins.OK); ok > 0 {
		r.Add("client_cpu_per_login", login.Own/ok, "s", "this process")
		if len(st.Options.PIDs) > 0 {
			r.Add("server_cpu_per_login", login.Server/ok, "s", "all pids, until the last login")
		}
	}
	if len(st.Options.PIDs) > 0 && hold.Seconds > 0 {
		r.Add("idle_cpu_per_session", hold.Server/hold.Seconds/open, "", "seconds a second, all pids, while held")
	}
}
