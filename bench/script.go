package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// ScriptOptions is a population and what happens to it, step by step. The named
// scenarios burst, churn, storm, slow, drain, chaos and soak are scripts; a
// user's own come from YAML.
type ScriptOptions struct {
	FanoutOptions        // population and kinds of events; its Rate and Burst are the steps' defaults
	Title         string `json:"title"`
	Again         bool   `json:"again"` // users whose socket ended without them come again
	Steps         []Step `json:"steps"`

	// Local is the cluster that steps break; nil: the run can't break any.
	Local *Local `json:"-"`
}

// Deed is what a step does beside its events.
type Deed string

// All deeds.
const (
	DeedNone     Deed = ""         // only events
	DeedChurn    Deed = "churn"    // users leave and come again at another door, Pace a second
	DeedStorm    Deed = "storm"    // all users leave at once and come again, Pace a second or as fast as they can
	DeedTakeover Deed = "takeover" // Share of the users log in elsewhere without leaving, Pace a second
	DeedStuck    Deed = "stuck"    // Share of the sessions more, that read nothing
	DeedKill     Deed = "kill"     // a pod is killed and started again after Pause, every Every
	DeedStop     Deed = "stop"     // a pod stands still for Pause, every Every
	DeedRestart  Deed = "restart"  // each pod in turn is ended by SIGTERM and started again
)

var deeds = []Deed{DeedNone, DeedChurn, DeedStorm, DeedTakeover, DeedStuck, DeedKill, DeedStop, DeedRestart}

// breaks says that a deed needs a cluster of the run's own.
func (d Deed) breaks() bool { return d == DeedKill || d == DeedStop || d == DeedRestart }

// Step is one stretch of a script: events by schedule, and a deed beside them.
// It is a phase of the report under its name, and so is its latency.
type Step struct {
	Name  string        `json:"name" yaml:"name"` // default the deed, or events; unique
	Do    Deed          `json:"do" yaml:"do"`
	For   time.Duration `json:"for" yaml:"for"`     // at least; deeds may take longer. Default 10 s
	Rate  float64       `json:"rate" yaml:"rate"`   // events a second; < 0: none
	Burst int           `json:"burst" yaml:"burst"` // events of one agent due at the same instant
	Pace  float64       `json:"pace" yaml:"pace"`   // of the deed, a second
	Share float64       `json:"share" yaml:"share"` // of users, 0-1
	Every time.Duration `json:"every" yaml:"every"` // between two faults, default 10 s
	Pause time.Duration `json:"pause" yaml:"pause"` // of a fault, default 2 s
}

// Script runs a script.
func Script(ctx context.Context, o ScriptOptions) (*Report, error) {
	s, err := newScript(o)
	if err != nil {
		return nil, err
	}
	return Run(ctx, s.Options, s)
}

func newScript(o ScriptOptions) (script, error) {
	orString(&o.Title, "script")
	o.FanoutOptions = o.FanoutOptions.withDefaults()
	if o.Again && o.Resume {
		return script{}, errors.New("read script: again and resume are two ways to come back: one of them")
	}
	names := map[string]bool{phaseLogin: true, phaseHold: true}
	for i := range o.Steps {
		p := &o.Steps[i]
		if !slices.Contains(deeds, p.Do) {
			return script{}, fmt.Errorf("read step %d: no deed %q, there are %s", i+1, p.Do, strings.Trim(fmt.Sprint(deeds[1:]), "[]"))
		}
		if p.Do.breaks() && o.Local == nil && !o.Part.Guide && o.Part.Count == 0 {
			return script{}, fmt.Errorf("read step %d: %q breaks pods, so it needs a cluster of this run's own (-servers)", i+1, p.Do)
		}
		orString(&p.Name, orText(string(p.Do), "events"))
		if names[p.Name] {
			return script{}, fmt.Errorf("read step %d: there is another %q", i+1, p.Name)
		}
		names[p.Name] = true
		if p.Rate == 0 {
			p.Rate = o.Rate
		}
		orInt(&p.Burst, o.Burst)
		orDuration(&p.For, 10*time.Second)
		orDuration(&p.Every, 10*time.Second)
		orDuration(&p.Pause, 2*time.Second)
		if p.Share <= 0 {
			p.Share = defaultShare
		}
		if err := p.check(); err != nil {
			return script{}, fmt.Errorf("read step %d: %w", i+1, err)
		}
	}
	return script{o}, nil
}

const defaultShare = 0.1

// check refuses a step that would do nothing, or more than it can.
func (p *Step) check() error {
	switch {
	case p.Share > 1:
		return fmt.Errorf("a share of %v: want one from 0 to 1", p.Share)
	case p.Do == DeedChurn && p.Pace*p.For.Seconds() < 1:
		return fmt.Errorf("nobody leaves at a pace of %v users a second for %v: set pace, or a longer for", p.Pace, p.For)
	case p.Do == DeedNone && p.Rate > 0:
		return eventful(p.Rate, p.For)
	}
	return nil
}

func orText(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

type script struct{ ScriptOptions }

// Name implements Scenario.
func (s script) Name() string { return s.Title }

// breaks says whether pods end or stand still in it.
func (s script) breaks() bool {
	return slices.ContainsFunc(s.Steps, func(p Step) bool { return p.Do.breaks() })
}

func (s script) does(d Deed) bool {
	return slices.ContainsFunc(s.Steps, func(p Step) bool { return p.Do == d })
}

// Run implements Scenario.
func (s script) Run(ctx context.Context, st *Stage) error {
	st.Want("junk==0")
	st.breaks(s.breaks())
	st.undisturbed = !slices.ContainsFunc(s.Steps, func(p Step) bool { return p.Do != DeedNone })
	if !st.faulty {
		st.Want("login_failures==0,unsure==0")
	}
	if s.does(DeedTakeover) {
		st.expected = closeReplaced
	}
	switch {
	case !st.faulty:
		st.Want("closed==0,gaps==0")
	case s.Resume:
		st.Want("gaps==0,told==0,away==0")
	default:
		st.Want("away==0")
	}
	if err := st.OpenFeed(ctx, s.Size); err != nil {
		return err
	}
	logins := fanout{s.FanoutOptions}.population(st)
	pages := st.Book.Pages()
	var busy *Page
	if s.does(DeedStuck) && len(pages) > 0 {
		busy = st.busyPage()
	}
	if s.Resume {
		defer fanout{s.FanoutOptions}.comeBack(ctx, st)()
	}
	if err := st.Phase(ctx, phaseLogin, func() error { return st.Login(ctx, logins, nil) }); err != nil {
		return err
	}
	if s.Again {
		crowd := newCrowd(st.Fleet, st.Oracle, st.Pace())
		st.Fleet.crowd.Store(crowd)
		st.crowd = crowd
		inner, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- crowd.Run(inner) }()
		defer func() {
			stop()
			<-ended // nothing fails in it
			c := st.Report.Counts
			c["came_again"], c["again_failures"], c["away"] = crowd.came.Load(), crowd.tries.Load(), crowd.away.Load()
			st.AddLatency("again", &crowd.again)
		}()
	}
	for i, p := range s.Steps {
		c := cast{logins: logins, pages: pages}
		if p.Do == DeedStuck {
			c.busy = busy
		}
		if err := s.step(ctx, st, p, c, fmt.Sprintf("step %d part %d", i, st.Options.Part.Index)); err != nil {
			return fmt.Errorf("step %q: %w", p.Name, err)
		}
	}
	return nil
}

// cast is who takes part in a step, in this process.
type cast struct {
	logins []Login
	pages  []*Page // of them
	busy   *Page   // of stuck readers; nil: there are none
}

// step runs one step in all parts at once. The deed and the events run beside
// each other, so each draws from a source of its own; name tells them apart.
func (s script) step(ctx context.Context, st *Stage, p Step, c cast, name string) error {
	f := fanout{s.FanoutOptions}
	f.Rate, f.Burst, f.Duration = max(p.Rate, 0), p.Burst, p.For
	deed := s.deed(st, p, c, st.Rand(name+" deed"))
	f.During = func(ctx context.Context, _ *Stage) error {
		if deed == nil {
			return nil
		}
		return deed(ctx)
	}
	picks := c.withBusy(p, f.picker(c.pages, st.Rand(name)))
	return st.timed(ctx, p.Name, func() error {
		if err := f.deliver(ctx, st, picks); err != nil {
			return err
		}
		if st.crowd == nil {
			return nil
		}
		return st.crowd.AwaitAll(ctx, againLimit)
	})
}

// againLimit is how long users may take to come again after a step.
const againLimit = 30 * time.Second

// Figures implements figured.
func (s script) Figures(st *Stage) {
	r := st.Report
	for _, p := range s.Steps {
		ph := st.Phases[p.Name]
		if ph == nil {
			continue
		}
		r.Add(p.Name+"_events", float64(ph.Published()), "", "")
		r.Add(p.Name+"_deliveries", float64(ph.Frames()), "", "event frames received")
		if n := ph.Logins(); n > 0 {
			r.Add(p.Name+"_logins", float64(n), "", "that came through")
		}
		if ph.lived() && ph.Frames() > 0 {
			r.Add(p.Name+"_cpu_per_delivery", ph.Server/float64(ph.Frames()), "s", "all pids, all they did")
		}
		r.Add(p.Name+"_open", float64(ph.End.Open), "", "sessions open after it")
		if base, ok := s.baseline(r); ok && !strings.HasPrefix(p.Name, stepBaseline) {
			limit := max(2*base, base+isolation.Seconds())
			r.Add(p.Name+"_excess", r.Latencies[p.Name].P99-limit, "s", fmt.Sprintf("its p99 beyond the larger of twice the baseline's and %v more", isolation))
		}
	}
	if login := st.Phases[phaseLogin]; login != nil {
		if s.breaks() { // logins may fail while pods are broken, but nobody's first
			r.Add("never_in", float64(int64(s.Sessions)-login.Logins()), "", "users whose first login did not come through")
			st.Want("never_in==0")
		}
		var last *Phase
		for _, p := range s.Steps {
			if ph := st.Phases[p.Name]; ph != nil {
				last = ph
			}
		}
		if last != nil {
			r.Add("unsure", float64(last.End.Unsure), "", "events whose storing was not confirmed")
			if len(st.Options.PIDs) > 0 && !st.faulty {
				r.Add("server_rss_growth", float64(growth(login.Usage, last.Usage)), "B", "RSS of all pids, from after the logins to the end")
			}
			st.compare(login.After, last.After, last.End.Frames-login.End.Frames)
		}
	}
	s.comeback(r)
}

// baseline is the p99 that steps are compared with.
func (s script) baseline(r *Report) (p99 float64, ok bool) {
	for _, p := range s.Steps {
		if l, is := r.Latencies[p.Name]; is && strings.HasPrefix(p.Name, stepBaseline) {
			p99, ok = max(p99, l.P99), true
		}
	}
	return p99, ok
}

// isolation is how much later, at least, others may be served while one part
// misbehaves.
const isolation = 5 * time.Millisecond

// comeback adds who ended and came again.
func (s script) comeback(r *Report) {
	if s.Again {
		r.Add("came_again", float64(r.Counts["came_again"]), "", "times a user came again after the server had ended the socket")
		r.Add("again_failures", float64(r.Counts["again_failures"]), "", "tries to do so that failed")
		r.Add("rejoins_most", mostRejoins(r.Samples), "1/s", "logins within one second, at most, once all had been there")
	}
	if s.Resume {
		r.addReturns()
	} else {
		r.Add("away", float64(r.Counts["away"]), "", "users without a socket at the end")
	}
	for _, k := range slices.Sorted(maps.Keys(r.Counts)) {
		if how, ok := strings.CutPrefix(k, "readers_"); ok {
			r.Add(k, float64(r.Counts[k]), "", "sessions that read nothing, ended with "+how)
		}
	}
}

// growth is by how much RSS grew between the ends of two phases.
func growth(a, b Usage) (n int64) {
	for i := range min(len(a.After), len(b.After)) {
		n += b.After[i].RSS - a.After[i].RSS
	}
	return n
}

// mostRejoins is the steepest second of logins after the population stood.
func mostRejoins(rows []Sample) (most float64) {
	full := 0
	for _, r := range rows {
		full = max(full, r.Sessions)
	}
	for i := 1; i < len(rows); i++ {
		if rows[i-1].Logins >= int64(full) {
			most = max(most, float64(rows[i].Logins-rows[i-1].Logins))
		}
	}
	return most
}
