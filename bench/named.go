package bench

import "time"

// Named scripts: each is a list of steps, which its options stretch.
const (
	ScriptBurst = "burst"
	ScriptChurn = "churn"
	ScriptStorm = "storm"
	ScriptSlow  = "slow"
	ScriptDrain = "drain"
	ScriptChaos = "chaos"
	ScriptSoak  = "soak"
)

// stepBaseline is how the names of steps begin that the others of a script are
// compared with: with the slowest of them.
const stepBaseline = "baseline"

// NamedScript fills in the steps of a named script; false: there is none of
// that name. Options that are zero mean its defaults.
func NamedScript(name string, o ScriptOptions) (ScriptOptions, bool) {
	o.Title = name
	d := orTime(o.Duration, 10*time.Second)
	base := Step{Name: stepBaseline, For: min(d, 10*time.Second)}
	switch name {
	case ScriptBurst:
		burst := o.Burst
		if burst <= 1 {
			burst = 50
		}
		base.Burst = 1
		o.Steps = []Step{base, {Name: "burst", Burst: burst, For: d}}
	case ScriptChurn:
		o.Steps = []Step{base, {Do: DeedChurn, For: d, Pace: 100}}
	case ScriptStorm:
		o.Steps = []Step{base, {Do: DeedStorm, For: d}}
	case ScriptSlow:
		// What else the machine does meanwhile is met by one of the two baselines.
		o.Steps = []Step{base, {Do: DeedStuck, For: d, Share: 0.01}, {Name: stepBaseline + "_after", For: base.For}}
	case ScriptDrain:
		o.Resume = true
		o.Steps = []Step{base, {Do: DeedRestart, For: d, Pause: 2 * time.Second}}
	case ScriptChaos:
		o.Resume = true
		o.Steps = []Step{
			base,
			{Do: DeedKill, For: d, Every: base.For, Pause: time.Second},
			{Do: DeedStop, For: d, Every: base.For, Pause: 2 * time.Second},
		}
	case ScriptSoak:
		o.Steps = []Step{base, {Name: "soak", For: orTime(o.Duration, time.Hour)}, {Name: "end", For: base.For}}
	default:
		return o, false
	}
	return o, true
}

func orTime(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}
