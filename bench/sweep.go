package bench

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"time"
)

// SweepOptions is the latency scenario: the rate of events is doubled until the
// latency leaves its limit, then the knee is closed in on by halves.
type SweepOptions struct {
	FanoutOptions               // Rate is the first one, Duration that of each probe (default 5 s)
	Limit         time.Duration `json:"limit"`  // of the corrected p99, default 5 ms
	Most          float64       `json:"most"`   // events a second that are not passed, default 200,000
	Halves        int           `json:"halves"` // between the last rate that kept the limit and the first that did not, default 3
}

// Sweep runs the latency scenario.
func Sweep(ctx context.Context, o SweepOptions) (*Report, error) {
	orDuration(&o.Duration, 5*time.Second)
	orDuration(&o.Limit, 5*time.Millisecond)
	orFloat(&o.Most, 200000)
	orInt(&o.Halves, 3)
	o.FanoutOptions = o.FanoutOptions.withDefaults()
	if err := eventful(o.Rate, o.Duration); err != nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	return Run(ctx, o.Options, sweep{o})
}

type sweep struct{ SweepOptions }

// Name implements Scenario.
func (sweep) Name() string { return "latency" }

// probe is what one part found at one rate.
type probe struct {
	Latency Latency `json:"latency"`
	Lag     float64 `json:"lag"`  // p99 of this process's own scheduling
	Feed    float64 `json:"feed"` // p99 by which it published late, NATS not holding it
	CPU     float64 `json:"cpu"`  // share of GOMAXPROCS that it used
}

// slow says why the part itself may have been what missed the limit; empty: it
// was not.
func (p probe) slow(limit time.Duration) string {
	switch {
	case p.Feed > limit.Seconds():
		return "own feed p99 " + secondsText(p.Feed) + " behind schedule"
	case p.Lag > limit.Seconds():
		return "own scheduling lag p99 " + secondsText(p.Lag)
	case p.CPU > maxOwnCPU:
		return fmt.Sprintf("own CPU %.0f %% of GOMAXPROCS", p.CPU*100)
	}
	return ""
}

// found is what all parts agree on after a probe.
type found struct {
	Kept bool    `json:"kept"`
	P99  float64 `json:"p99"`
	Slow string  `json:"slow"` // why a part of the generator may have missed it
	Next float64 `json:"next"` // rate; 0: the knee is known
	Low  float64 `json:"low"`  // highest rate that kept the limit
	High float64 `json:"high"` // lowest that did not
	Done int     `json:"done"` // halves
}

// Run implements Scenario.
func (s sweep) Run(ctx context.Context, st *Stage) error {
	st.untimed = true // beyond the knee everything is late; each probe is judged below
	st.Want("junk==0,login_failures==0,closed==0,gaps==0,unsure==0,knee>0")
	if err := st.OpenFeed(ctx, s.Size); err != nil {
		return err
	}
	f := fanout{s.FanoutOptions}
	logins := f.population(st)
	if err := st.Phase(ctx, phaseLogin, func() error { return st.Login(ctx, logins, nil) }); err != nil {
		return err
	}
	now := found{Next: s.Rate}
	for now.Next > 0 {
		var err error
		if now, err = s.probe(ctx, st, f, now); err != nil {
			return err
		}
	}
	return nil
}

// rateName is how a probe's phase and latency are called.
func rateName(rate float64) string { return "rate_" + strconv.FormatFloat(rate, 'f', 0, 64) }

func (s sweep) probe(ctx context.Context, st *Stage, f fanout, last found) (found, error) {
	rate := last.Next
	f.Rate = rate
	st.watchdog.lag.Reset()
	st.Feed.lag.Reset()
	picks := f.picker(st.Book.Pages(), st.Rand(fmt.Sprintf("%s part %d", rateName(rate), st.Options.Part.Index)))
	if err := st.timed(ctx, rateName(rate), func() error { return f.deliver(ctx, st, picks) }); err != nil {
		return found{}, err
	}
	mine, err := st.probed(rateName(rate))
	if err != nil {
		return found{}, err
	}
	now, err := agree(ctx, st, rateName(rate)+" judged", mine, func(all []probe) (found, error) { return s.judge(last, all) })
	if err != nil {
		return found{}, err
	}
	if st.guides() && !now.Kept {
		// Only the lowest rate that missed it counts: higher ones no longer matter.
		if st.Report.Generator.Bottleneck = ""; now.Slow != "" {
			st.Report.Generator.Bottleneck = fmt.Sprintf("%s at %.0f events/s: the limit was missed here, not there", now.Slow, rate)
		}
	}
	if st.guides() {
		st.Report.Counts["knee"], st.Report.Counts["knee_missed"] = int64(now.Low), int64(now.High)
	}
	return now, nil
}

// probed is what this part found in a phase that has just ended.
func (st *Stage) probed(phase string) (p probe, err error) {
	if st.Options.Part.Guide {
		return p, nil // it bears no load
	}
	if p.Latency, err = st.Fleet.delivery.Summary(); err != nil {
		return p, err
	}
	lag, err := st.watchdog.lag.Summary()
	if err != nil {
		return p, err
	}
	feed, err := st.Feed.lag.Summary()
	if err != nil {
		return p, err
	}
	p.Lag, p.Feed = lag.P99, feed.P99
	if u := st.Report.Usage[phase]; u.Seconds > 0 {
		p.CPU = u.Own / u.Seconds / float64(runtime.GOMAXPROCS(0))
	}
	return p, nil
}

// judge decides how to go on.
func (s sweep) judge(last found, all []probe) (found, error) {
	now := last
	now.Slow = ""
	var sum Latency
	var err error
	for _, p := range all {
		if sum, err = sum.plus(p.Latency); err != nil {
			return now, err
		}
		if why := p.slow(s.Limit); why != "" {
			now.Slow = why
		}
	}
	now.P99 = sum.P99
	now.Kept = sum.Count > 0 && sum.P99 <= s.Limit.Seconds()
	if now.Kept {
		now.Low = last.Next
	} else {
		now.High = last.Next
	}
	switch {
	case now.High == 0 && now.Low*2 <= s.Most:
		now.Next = now.Low * 2
	case now.High == 0 || now.Done >= s.Halves || now.High-now.Low < 1:
		now.Next = 0
	default:
		now.Done++
		now.Next = float64(int((now.Low + now.High) / 2))
	}
	return now, nil
}

// Figures implements figured.
func (s sweep) Figures(st *Stage) {
	r, knee := st.Report, float64(st.Report.Counts["knee"])
	r.Add("knee", knee, "1/s", fmt.Sprintf("highest rate of events with p99 <= %v; 0: none", s.Limit))
	r.Add("knee_missed", float64(r.Counts["knee_missed"]), "1/s", "lowest rate that missed it; 0: none did up to -most, so the knee lies beyond")
	r.Add("unsure", float64(r.Oracle.Unsure), "", "events whose storing was not confirmed")
	p := st.Phases[rateName(knee)]
	if p == nil {
		return
	}
	r.Add("knee_deliveries", float64(p.Frames())/s.Duration.Seconds(), "1/s", "there, over the nominal duration")
	r.Add("knee_p99", r.Latencies[rateName(knee)].P99, "s", "there, corrected")
	if p.lived() {
		r.Add("knee_cpu", p.Server/p.Seconds, "", "cores, all pids, there")
		r.Add("knee_cpu_per_delivery", p.Server/float64(max(p.Frames(), 1)), "s", "all pids, there")
	}
}
