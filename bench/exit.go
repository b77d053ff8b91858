package bench

// Exit is the exit code of a run.
type Exit int

// Exit codes.
const (
	ExitPass      Exit = 0
	ExitError     Exit = 1 // something kept the run from its end, an interruption too
	ExitThreshold Exit = 2 // a threshold was missed
	ExitBroken    Exit = 3 // a promise was broken
	ExitGenerator Exit = 4 // the generator was the bottleneck: the result is void
)

// severity orders what can be said of one run, the gravest first. A broken
// promise is never hidden by a crash that follows from it. An error comes before
// the generator: what did not come to its end was not slow, it failed. A
// threshold missed by a generator that could not keep up says nothing.
var severity = [...]Exit{ExitBroken, ExitError, ExitGenerator, ExitThreshold, ExitPass}

// Worse is the graver of two exit codes: what several runs, or several findings
// of one, come to.
func (e Exit) Worse(o Exit) Exit {
	for _, s := range severity {
		if e == s || o == s {
			return s
		}
	}
	return ExitError // codes that nobody knows
}

func (e Exit) String() string {
	switch e {
	case ExitPass:
		return "pass"
	case ExitThreshold:
		return "threshold missed"
	case ExitBroken:
		return "PROMISE BROKEN"
	case ExitGenerator:
		return "void: the generator was the bottleneck"
	default:
		return "error"
	}
}

// verdict is the exit code of a report whose thresholds were checked.
func (r *Report) verdict() Exit {
	e := ExitPass
	for _, t := range r.Thresholds {
		if !t.OK {
			e = e.Worse(ExitThreshold)
		}
	}
	if r.Generator.Bottleneck != "" {
		e = e.Worse(ExitGenerator)
	}
	if len(r.Errors) > 0 || r.Interrupted {
		e = e.Worse(ExitError)
	}
	if r.Oracle != nil && r.Oracle.Broken() {
		e = e.Worse(ExitBroken)
	}
	return e
}
