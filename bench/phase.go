package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Tally is what one process counted so far; sums of them hold for all.
type Tally struct {
	Open      int64   `json:"open"`      // sockets that were ready and did not end
	Frames    int64   `json:"frames"`    // event frames from the wire
	Published int64   `json:"published"` // events
	Unsure    int64   `json:"unsure"`    // of them
	Logins    int64   `json:"logins"`    // that came through
	Replaced  int64   `json:"replaced"`  // sockets that ended with 4402
	CPU       float64 `json:"cpu"`       // seconds of load generating processes
	RSS       int64   `json:"rss"`       // bytes of theirs
	Processes int64   `json:"processes"` // how many those are
}

func (t Tally) plus(o Tally) Tally {
	return Tally{
		t.Open + o.Open, t.Frames + o.Frames, t.Published + o.Published, t.Unsure + o.Unsure, t.Logins + o.Logins,
		t.Replaced + o.Replaced, t.CPU + o.CPU, t.RSS + o.RSS, t.Processes + o.Processes,
	}
}

// Reading is the server's side at one instant.
type Reading struct {
	At      time.Time
	Kernel  Kernel
	Slabs   map[string]int64
	Metrics Series
	Redis   RedisInfo
}

// Phase is a measured stretch of a run, over all who took part.
type Phase struct {
	Usage
	Begin, End    Tally
	Before, After Reading // the guide's, empty in the others
}

// Frames, Published and Logins are what came about in the phase.
func (p *Phase) Frames() int64    { return p.End.Frames - p.Begin.Frames }
func (p *Phase) Published() int64 { return p.End.Published - p.Begin.Published }
func (p *Phase) Logins() int64    { return p.End.Logins - p.Begin.Logins }

func (st *Stage) tally() (t Tally, err error) {
	own, err := ReadProcess(0)
	if err != nil {
		return t, err
	}
	t.Published, t.Unsure = st.Book.Published(), st.Book.Unsure()
	if f := st.Fleet; f != nil {
		t.Open, t.Frames, t.Logins, t.Replaced = int64(f.Open()), f.Frames(), f.logins.Load(), f.Closes()[closeReplaced]
	}
	if !st.Options.Part.Guide { // it bears no load
		t.CPU, t.RSS, t.Processes = own.CPU, own.RSS, 1
	}
	return t, nil
}

// read reads the server's side; what can't be read is in the report.
func (st *Stage) read(ctx context.Context) (r Reading) {
	r.At, r.Kernel, r.Slabs = time.Now(), ReadKernel(), ReadSlabs()
	var err error
	if r.Metrics, err = st.Scraper.Read(ctx); err != nil && !st.faulty {
		st.Report.fail(err)
	}
	if r.Redis, err = st.Redis.Info(ctx); err != nil && !st.faulty {
		st.Report.fail(err)
	}
	return r
}

// Phase runs do in all parts at once and keeps under name what it cost. The
// result is complete in the guide only; the scenario's Figures get at it by
// st.Phases.
func (st *Stage) Phase(ctx context.Context, name string, do func() error) error {
	p, complete := new(Phase), false
	var end func() (Usage, error)
	begin, err := st.tally()
	if err != nil {
		return err
	}
	_, err = agree(ctx, st, name+" begins", begin, func(all []Tally) (_ int, err error) {
		for _, t := range all {
			p.Begin = p.Begin.plus(t)
		}
		p.Before = st.read(ctx)
		end, err = st.Sampler.Window()
		return 0, err
	})
	if err != nil {
		return err
	}
	own, err := st.Sampler.Window()
	if err != nil {
		return err
	}
	st.phase.Store(&name)
	failed := do()
	u, err := own()
	if err != nil {
		return errors.Join(failed, err)
	}
	st.note(name, u)
	after, err := st.tally()
	if err != nil {
		return errors.Join(failed, err)
	}
	failed = st.finish(ctx, failed, func(ctx context.Context) error {
		_, err := agree(ctx, st, name+" ends", after, func(all []Tally) (_ int, err error) {
			for _, t := range all {
				p.End = p.End.plus(t)
			}
			if p.Usage, err = end(); err != nil {
				return 0, err
			}
			p.After = st.read(ctx)
			complete = true
			return 0, nil
		})
		return err
	})
	if st.guides() && !complete {
		return failed
	}
	if st.guides() {
		p.Own = p.End.CPU - p.Begin.CPU
		st.note(name, p.Usage)
	}
	st.Phases[name] = p
	return failed
}

// Measure is Phase for scenarios that never share their load.
func (st *Stage) Measure(name string, do func() error) (Usage, error) {
	end, err := st.Sampler.Window()
	if err != nil {
		return Usage{}, err
	}
	failed := do()
	u, err := end()
	st.note(name, u)
	return u, errors.Join(failed, err)
}

// timed runs do as a phase whose latency is told by itself too.
func (st *Stage) timed(ctx context.Context, name string, do func() error) error {
	f := st.Fleet
	st.past.delivery.absorb(&f.delivery)
	st.past.raw.absorb(&f.deliveryRaw)
	f.delivery.Reset()
	f.deliveryRaw.Reset()
	err := st.Phase(ctx, name, do)
	st.AddLatency(name, &f.delivery)
	st.AddLatency(name+"_raw", &f.deliveryRaw)
	return err
}

// cutShort is how long the parts of a run that was cut short wait for each
// other.
const cutShort = 5 * time.Second

// finish meets the others at the end of a phase. Of a phase that was cut short,
// here or while the others are waited for, the guide ends the others' too: all
// is then reported as far as it came.
func (st *Stage) finish(ctx context.Context, failed error, meet func(context.Context) error) error {
	if failed == nil {
		err := meet(ctx)
		if err == nil || ctx.Err() == nil {
			return err
		}
		failed = err
	}
	if g, ok := st.crew.(*guide); ok {
		g.stop("it was cut short")
	}
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutShort)
	defer cancel()
	if err := meet(short); err != nil {
		st.Report.fail(err)
	}
	return failed
}

// guides says whether this process reads the server's side: the guide, or the
// only one.
func (st *Stage) guides() bool { return st.Options.Part.Count == 0 || st.Options.Part.Guide }

// note keeps a window in the report and looks whether the server lived.
func (st *Stage) note(name string, u Usage) {
	st.Report.Usage[name] = u
	for i, p := range u.After {
		if p.Gone && !u.Before[i].Gone && !st.faulty {
			st.Report.fail(fmt.Errorf("process %d of the server ended during %q", p.PID, name))
		}
	}
	// Ticks of 10 ms say nothing about shorter windows.
	if u.Seconds > 1 && u.Own/u.Seconds > st.busiest.Own/max(st.busiest.Seconds, 1) {
		st.busiest = u
	}
}

// shared says whether other processes bear the load.
func (st *Stage) shared() bool { return st.Options.Part.Count > 0 }

// pacer is this part's schedule of something that happens rate times a second
// in all parts together: bursts are dealt out in turn.
func (st *Stage) pacer(rate float64, burst int) Pacer {
	part, n := st.Options.Part, max(st.Options.Part.Count, 1)
	ahead := time.Duration(0)
	if rate > 0 {
		ahead = time.Duration(float64(part.Index*max(burst, 1)) / rate * float64(time.Second))
	}
	return Pacer{Start: time.Now().Add(ahead), Rate: rate / float64(n), Burst: burst}
}
