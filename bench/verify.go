package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// VerifyOptions is the verify scenario: a fixed set of scenarios, each with
// thresholds, that proves in minutes on a cluster what the gateway promises.
// What it asks of a cluster is modest, for others may be using it: 500 sessions,
// 100 events a second.
type VerifyOptions struct {
	FanoutOptions        // population and rate of all; Duration of each step. Defaults: 500 sessions, 25 agents, 100 events/s, 10 s
	Local         *Local `json:"-"` // with it pods are restarted, killed and stopped too
}

// VerifyDefaults are the population and the rate of verify.
func VerifyDefaults() FanoutOptions {
	return FanoutOptions{Sessions: 500, Agents: 25, Rate: 100, Duration: 10 * time.Second}
}

// verifyTries is how often a part is run, at most, that missed nothing but
// times, or that the generator could not keep up with: again when all the others
// are through, which tells the load of others on the machine or the cluster from
// the gateway's fault. What is counted, not timed, has one try.
const verifyTries = 3

// verifyPart is one run of the set.
type verifyPart struct {
	name  string
	wants string // thresholds beside the scenario's own
	run   func(ctx context.Context, f FanoutOptions) (*Report, error)

	tried int    // runs of it so far
	why   string // the last one of them is not counted
}

// Verify runs the set, one after the other, all of it even when a promise was
// broken. The report has each run's report among its Parts.
func Verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	def := VerifyDefaults()
	orInt(&o.Sessions, def.Sessions)
	orInt(&o.Agents, def.Agents)
	orFloat(&o.Rate, def.Rate)
	orDuration(&o.Duration, def.Duration)
	parts, err := o.parts()
	if err != nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	unjudged := o.Options
	unjudged.Thresholds = "" // parts checked them
	checked, err := unjudged.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	o.Seed = checked.Seed
	options, err := shown(o)
	if err != nil {
		return nil, fmt.Errorf("show options: %w", err)
	}
	r := &Report{
		Schema: Schema, Scenario: "verify", Started: time.Now(), Seed: o.Seed, Commit: Commit(), Machine: ReadMachine(), Options: options,
		Latencies: map[string]Latency{}, Usage: map[string]Usage{},
	}
	ended := r.runParts(ctx, parts, o.FanoutOptions)
	at := func(r *Report) int {
		return slices.IndexFunc(parts, func(p verifyPart) bool { return p.name == r.Scenario })
	}
	slices.SortStableFunc(r.Parts, func(a, b *Report) int { return at(a) - at(b) })
	r.Seconds = time.Since(r.Started).Seconds()
	if len(r.Errors) > 0 || r.Interrupted {
		r.Exit = r.Exit.Worse(ExitError)
	}
	r.Result = r.Exit.String()
	return r, ended
}

// runParts runs the set; the error is of a part that never began.
func (r *Report) runParts(ctx context.Context, queue []verifyPart, f FanoutOptions) (ended error) {
	for ; len(queue) > 0; queue = queue[1:] {
		if ctx.Err() != nil {
			r.Interrupted = true
			break
		}
		p := queue[0]
		again, err := r.runPart(ctx, &p, f)
		if err != nil {
			ended = err
		}
		if again {
			queue = append(queue, p)
		}
	}
	return ended
}

// runPart runs one run of the set and adds its report, unless it is to be run
// again.
func (r *Report) runPart(ctx context.Context, p *verifyPart, f FanoutOptions) (again bool, err error) {
	f.Thresholds = p.wants
	f.Untimed = p.wants == ""
	part, err := p.run(ctx, f)
	if part == nil {
		err = fmt.Errorf("%s: %w", p.name, err)
		r.fail(err)
		return false, err
	}
	p.tried++
	if p.tried < verifyTries && r.Exit != ExitBroken && part.missedTimes() {
		p.why = part.missed()
		return true, nil
	}
	if p.tried > 1 {
		r.Add(p.name+".repeated", float64(p.tried-1), "", "runs of it that are not counted, the last one for "+p.why)
	}
	r.take(p.name, part)
	return false, nil
}

// missedTimes says whether a run proved nothing but that something was slow.
func (r *Report) missedTimes() bool {
	for _, t := range r.Thresholds {
		if !t.OK && r.Unit(t.Figure) != "s" {
			return r.Exit == ExitGenerator
		}
	}
	return r.Exit == ExitThreshold || r.Exit == ExitGenerator
}

// missed is why a run did not pass, in words.
func (r *Report) missed() string {
	if r.Generator.Bottleneck != "" {
		return r.Generator.Bottleneck
	}
	var list []string
	for _, t := range r.Thresholds {
		if !t.OK {
			list = append(list, fmt.Sprintf("%s, which was %s", t.Text, Quantity(t.Value, r.Unit(t.Figure))))
		}
	}
	return strings.Join(list, "; ")
}

// parts is the set. Its thresholds of time are the guarantees' (S3, I1), each
// held against the same run without what is to be proved, or so wide that only
// what hangs misses them: a slow machine proves nothing about the gateway.
func (o VerifyOptions) parts() (list []verifyPart, err error) {
	scripted := func(name, wants string) verifyPart {
		return verifyPart{name: name, wants: wants, run: func(ctx context.Context, f FanoutOptions) (*Report, error) {
			s, _ := NamedScript(name, ScriptOptions{FanoutOptions: f, Local: o.Local})
			return Script(ctx, s)
		}}
	}
	list = []verifyPart{
		{name: "fanout", wants: "delivery.p99<1s", run: Fanout},
		{name: "takeover", wants: "takeover_excess<=0,takeover_same_pod_excess<=0", run: func(ctx context.Context, f FanoutOptions) (*Report, error) {
			return Takeover(ctx, TakeoverOptions{Options: f.Options, Users: min(f.Sessions, 500), Rate: f.Rate})
		}},
		scripted(ScriptBurst, "burst.p99<2s"),
		scripted(ScriptChurn, ""),
		scripted(ScriptStorm, ""),
		scripted(ScriptSlow, "stuck_excess<=0"),
	}
	if o.Local != nil {
		list = append(list, scripted(ScriptDrain, ""), scripted(ScriptChaos, ""))
	}
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.name
	}
	for i := range list {
		p := &list[i]
		if run := p.run; o.Local != nil {
			p.run = func(ctx context.Context, f FanoutOptions) (*Report, error) {
				f.PIDs = o.Local.PIDs() // other ones after a part that ended pods
				return run(ctx, f)
			}
		}
		p.wants = strings.Trim(p.wants+","+ofPart(o.Thresholds, p.name, names), ",")
		if _, err := parseThresholds(p.wants); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// ofPart picks from a user's thresholds those that name a part,
// "storm.delivery.p99<1s" or "storm.p99<1s", and those that name none.
func ofPart(thresholds, name string, names []string) string {
	var list []string
	for _, text := range strings.Split(thresholds, ",") {
		text = strings.TrimSpace(text)
		part, rest, _ := strings.Cut(text, ".")
		switch {
		case !slices.Contains(names, part):
			list = append(list, text)
		case part != name:
		case isPoint(strings.TrimSpace(rest[:max(strings.IndexAny(rest, "=!<>"), 0)])):
			list = append(list, text) // the latency of that name
		default:
			list = append(list, rest)
		}
	}
	return strings.Join(list, ",")
}

// take adds the report of one run of the set.
func (r *Report) take(name string, part *Report) {
	if r.Run == "" {
		r.Run = part.Run
	}
	r.Parts = append(r.Parts, part)
	for l, v := range part.Latencies {
		v.HDR = "" // it is in the part
		r.Latencies[name+"."+l] = v
	}
	for _, f := range part.Figures {
		f.Name = name + "." + f.Name
		r.Figures = append(r.Figures, f)
	}
	for _, t := range part.Thresholds {
		t.Figure = name + "." + t.Figure
		t.Text = name + "." + t.Text
		r.Thresholds = append(r.Thresholds, t)
	}
	for _, e := range part.Errors {
		r.Errors = append(r.Errors, name+": "+e)
	}
	if part.Oracle != nil {
		if r.Oracle == nil {
			r.Oracle = &Verdict{Breaches: map[string]int64{}}
		}
		r.Oracle.merge(part.Oracle)
	}
	for phase, u := range part.Usage {
		r.Usage[name+"."+phase] = u
	}
	for _, s := range part.Samples {
		s.At += part.Started.Sub(r.Started).Seconds()
		s.Phase = strings.TrimRight(name+" "+s.Phase, " ")
		r.Samples = append(r.Samples, s)
	}
	r.Interrupted = r.Interrupted || part.Interrupted
	r.fail(r.Generator.merge(name, &part.Generator))
	r.Exit = r.Exit.Worse(part.Exit)
}
