package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// PeerOptions is the peer scenario: the same clients, events and judge for the
// gateway and for a bare WebSocket server, so that their figures stand in one
// table.
type PeerOptions struct {
	Options
	Server    string        `json:"server"`     // name of what is measured
	Control   string        `json:"control"`    // control door of a bare server, host:port; empty: events go through NATS
	Brokers   []int         `json:"brokers"`    // pids of Redis and NATS, counted apart
	Sessions  int           `json:"sessions"`   // default 10000
	Receivers int           `json:"receivers"`  // an event, default 10
	Rate      float64       `json:"rate"`       // events a second one by one, default 500
	BurstRate float64       `json:"burst_rate"` // events a second in bursts, default 2000
	Burst     int           `json:"burst"`      // events due at one instant, for the same sockets; default 10
	Duration  time.Duration `json:"duration"`   // of each of the two, default 6 s
	Size      int           `json:"size"`       // bytes of a body, default 260
}

// WithDefaults fills in what is zero.
func (o PeerOptions) WithDefaults() PeerOptions {
	orInt(&o.Sessions, 10000)
	orInt(&o.Receivers, 10)
	orInt(&o.Burst, 10)
	orInt(&o.Size, 260)
	orFloat(&o.Rate, 500)
	orFloat(&o.BurstRate, 2000)
	orDuration(&o.Duration, 6*time.Second)
	return o
}

// Peer runs the peer scenario.
func Peer(ctx context.Context, o PeerOptions) (*Report, error) {
	return Run(ctx, o.Options, peer{o.WithDefaults()})
}

type peer struct{ PeerOptions }

// sender is how events come to the server: its control door, or NATS.
type sender interface {
	Send(ctx context.Context, p *Page, count, size int, due time.Time) error
	Flush(ctx context.Context) error
}

// feedSender publishes over NATS.
type feedSender struct{ *Feed }

// Send implements sender; the size was given to the Feed.
func (f feedSender) Send(ctx context.Context, p *Page, count, _ int, due time.Time) error {
	for range count {
		if err := f.Publish(ctx, p, 0, due); err != nil {
			return err
		}
	}
	return nil
}

// Name implements Scenario.
func (peer) Name() string { return "peer" }

// Run implements Scenario.
func (s peer) Run(ctx context.Context, st *Stage) (err error) {
	st.Want("junk==0,login_failures==0,closed==0")
	send, collect, closing, err := s.open(ctx, st)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closing()) }()
	agents := max(1, s.Sessions/s.Receivers)
	for i := range agents + 1 { // the last has no sessions
		st.Book.Page(st.Options.Company, fmt.Sprintf("agent%d", i))
	}
	if err := s.idle(ctx, st, collect); err != nil {
		return err
	}
	pages := st.Book.Pages()
	phases := []peerPhase{
		{name: "warmup", pages: pages[:agents], rate: s.Rate, burst: 1, length: min(time.Second, s.Duration)},
		{name: "nobody", pages: pages[agents:], rate: s.Rate, burst: 1, length: min(4*time.Second, s.Duration)},
		{name: "single", pages: pages[:agents], rate: s.Rate, burst: 1, length: s.Duration},
		{name: "burst", pages: pages[:agents], rate: s.BurstRate, burst: s.Burst, length: s.Duration},
	}
	for _, p := range phases {
		if err := s.phase(ctx, st, send, p); err != nil {
			return fmt.Errorf("phase %s: %w", p.name, err)
		}
	}
	return nil
}

// open gives the way to the server, what makes it give memory back, and the end
// of both.
func (s peer) open(ctx context.Context, st *Stage) (send sender, collect func(context.Context) error, closing func() error, err error) {
	if s.Control == "" {
		if err := st.OpenFeed(ctx, s.Size); err != nil {
			return nil, nil, nil, err
		}
		return feedSender{st.Feed}, func(context.Context) error { return nil }, func() error { return nil }, nil
	}
	door, err := OpenDoor(ctx, st.Book, s.Control)
	if err != nil {
		return nil, nil, nil, err
	}
	return door, door.Collect, door.Close, nil
}

// idle opens the sessions and measures what they hold.
func (s peer) idle(ctx context.Context, st *Stage, collect func(context.Context) error) error {
	pages := st.Book.Pages()
	logins := make([]Login, s.Sessions)
	for i := range logins {
		logins[i] = Login{User: &User{Page: pages[i%(len(pages)-1)], Name: fmt.Sprintf("user%d", i/(len(pages)-1))}}
	}
	if err := collect(ctx); err != nil {
		return err
	}
	before, kernel, err := s.memory(st)
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
	if err := collect(ctx); err != nil {
		return err
	}
	after, kernelAfter, err := s.memory(st)
	if err != nil {
		return err
	}
	if open := float64(st.Fleet.Open()); open > 0 {
		st.Report.Add("sessions", open, "", "open after the ramp")
		st.Report.Add("rss_per_session", float64(after-before)/open, "B", "RSS gained by the ramp, a session")
		st.Report.Add("kernel_slab_per_session", float64(kernelAfter-kernel)/open, "B", "whole machine: both ends of a connection")
		st.Report.Add("server_cpu_per_login", login.Server/open, "s", "until the last login")
	}
	return nil
}

// memory is the server's RSS and the machine's slab.
func (s peer) memory(st *Stage) (rss, slab int64, err error) {
	list, err := st.Sampler.Processes()
	for _, p := range list {
		rss += p.RSS
	}
	return rss, ReadKernel().Slab, err
}

// peerPhase is events of one kind for some seconds.
type peerPhase struct {
	name   string
	pages  []*Page
	rate   float64
	burst  int
	length time.Duration
}

func (s peer) phase(ctx context.Context, st *Stage, send sender, p peerPhase) error {
	rng := st.Rand(p.name)
	fl := st.Fleet
	fl.delivery.Reset()
	fl.deliveryRaw.Reset()
	brokers := NewSampler(s.Brokers, nil)
	end, err := brokers.Window()
	if err != nil {
		return err
	}
	frames, events := fl.Frames(), st.Book.Published()
	use, err := st.Measure(p.name, func() error {
		pace := Pacer{Start: time.Now(), Rate: p.rate, Burst: p.burst}
		for i := 0; i < int(p.rate*p.length.Seconds()); i += p.burst {
			if err := Wait(ctx, pace.Due(i)); err != nil {
				return err
			}
			if err := send.Send(ctx, p.pages[rng.IntN(len(p.pages))], p.burst, s.Size, pace.Due(i)); err != nil {
				return err
			}
		}
		if err := send.Flush(ctx); err != nil {
			return err
		}
		_, err := st.Drain(ctx)
		return err
	})
	if err != nil {
		return err
	}
	broker, err := end()
	if err != nil {
		return err
	}
	st.AddLatency(p.name, &fl.delivery)
	st.AddLatency(p.name+"_raw", &fl.deliveryRaw)
	s.figures(st, p.name, [2]float64{use.Server, broker.Server}, float64(fl.Frames()-frames), float64(st.Book.Published()-events))
	return nil
}

// figures adds what a phase cost; cpu is of the server and of its brokers.
func (s peer) figures(st *Stage, name string, cpu [2]float64, copies, events float64) {
	r := st.Report
	if events > 0 {
		r.Add(name+"_cpu_per_event", cpu[0]/events, "s", "server, all it did")
	}
	if copies > 0 {
		r.Add(name+"_cpu_per_delivery", cpu[0]/copies, "s", fmt.Sprintf("server, %.0f copies of %.0f events", copies, events))
		if intake, ok := r.Figure("nobody_cpu_per_event"); ok && name == "single" {
			r.Add(name+"_cpu_per_delivery_net", (cpu[0]-intake*events)/copies, "s", "server, without what an event costs that nobody wants")
		}
		if len(s.Brokers) > 0 {
			r.Add(name+"_broker_cpu_per_delivery", cpu[1]/copies, "s", "Redis and NATS")
		}
	}
}
