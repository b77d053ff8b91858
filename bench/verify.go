package bench

import (
	"context"
	"fmt"
	"time"
)

// VerifyOptions is the verify scenario: a fixed set of scenarios, each with
// thresholds, that proves in minutes on a cluster what the gateway promises.
type VerifyOptions struct {
	FanoutOptions        // population and rate of all; Duration of each step, default 10 s
	Local         *Local `json:"-"` // with it pods are restarted, killed and stopped too
}

// verifyPart is one run of the set.
type verifyPart struct {
	name string
	run  func(ctx context.Context) (*Report, error)
}

// Verify runs the set, one after the other, all of it even when a promise was
// broken. The report has each run's report among its Parts.
func Verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	orInt(&o.Sessions, 1000)
	orDuration(&o.Duration, 10*time.Second)
	checked, err := o.Options.withDefaults()
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
	var ended error
	for i, p := range o.parts() {
		if ctx.Err() != nil {
			r.Interrupted = true
			break
		}
		part, err := p.run(ctx)
		if part == nil {
			r.fail(fmt.Errorf("%s: %w", p.name, err))
			ended = err
			continue
		}
		r.take(i, p.name, part)
	}
	r.Seconds = time.Since(r.Started).Seconds()
	return r, ended
}

// parts is the set. Latency thresholds are what guarantees ask of a cluster
// that is not overloaded, with room for machines slower than the reference.
func (o VerifyOptions) parts() []verifyPart {
	with := func(thresholds string) FanoutOptions {
		f := o.FanoutOptions
		f.Thresholds = thresholds + "," + f.Thresholds
		return f
	}
	scripted := func(name, thresholds string) verifyPart {
		return verifyPart{name, func(ctx context.Context) (*Report, error) {
			s, _ := NamedScript(name, ScriptOptions{FanoutOptions: with(thresholds), Local: o.Local})
			return Script(ctx, s)
		}}
	}
	list := []verifyPart{
		{"fanout", func(ctx context.Context) (*Report, error) { return Fanout(ctx, with("delivery.p99<100ms")) }},
		{"takeover", func(ctx context.Context) (*Report, error) {
			t := TakeoverOptions{Options: o.Options, Users: min(o.Sessions, 500)}
			t.Thresholds = "takeover.p99<50ms,takeover_same_pod.p99<50ms," + t.Thresholds
			return Takeover(ctx, t)
		}},
		scripted(ScriptBurst, "burst.p99<500ms"),
		scripted(ScriptChurn, ""),
		scripted(ScriptStorm, ""),
	}
	if o.TLS == nil {
		list = append(list, scripted(ScriptSlow, "stuck_excess<=0"))
	}
	if o.Local != nil {
		list = append(list, scripted(ScriptDrain, ""), scripted(ScriptChaos, ""))
	}
	return list
}

// take adds the report of one run of the set.
func (r *Report) take(i int, name string, part *Report) {
	if i == 0 {
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
	r.Interrupted = r.Interrupted || part.Interrupted
	g := &r.Generator
	g.CPU = max(g.CPU, part.Generator.CPU)
	if part.Generator.Bottleneck != "" && g.Bottleneck == "" {
		g.Bottleneck = name + ": " + part.Generator.Bottleneck
	}
	if worse(part.Exit, r.Exit) {
		r.Exit = part.Exit
	}
	r.Result = r.Exit.String()
}

// worse says whether a outranks b, as in judge.
func worse(a, b Exit) bool {
	rank := map[Exit]int{ExitPass: 0, ExitThreshold: 1, ExitGenerator: 2, ExitError: 3, ExitBroken: 4}
	return rank[a] > rank[b]
}
