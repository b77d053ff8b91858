package bench

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	mrand "math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Scenario is one way to load a gateway. Its struct holds its options, which
// go into the report as they are. Run uses what the Stage has and adds figures
// to its Report; an error is kept in the report beside what there is.
type Scenario interface {
	Name() string
	Run(ctx context.Context, st *Stage) error
}

// Stage is what a scenario works with. Made by Run for one run.
type Stage struct {
	Options Options
	Report  *Report
	Book    *Book
	Oracle  *Oracle
	Fleet   *Fleet // nil without Options.Addrs
	Sampler *Sampler
	Scraper *Scraper
	Feed    *Feed // nil before OpenFeed

	watchdog   Watchdog
	busiest    Usage // the measured window in which this process used most
	thresholds string
	expected   string // close code by which the scenario wants sockets to end
	faulty     bool   // the caller breaks things meanwhile: a process that ends is no error
}

// Run runs a scenario and reports. The report is nil only when the options are
// wrong; the error is what kept the run from its end, and is in the report too.
// When ctx ends the run is wound up with what there was.
func Run(ctx context.Context, o Options, s Scenario) (*Report, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	st, err := newStage(o, s)
	if err != nil {
		return nil, err
	}
	defer st.Scraper.Close()

	// What the run needs to the very end outlives an interruption.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, inner := errgroup.WithContext(inner)
	group.Go(func() error { return st.watchdog.Run(inner) })
	group.Go(func() error { return st.Sampler.Run(inner) })
	if st.Fleet != nil {
		group.Go(func() error { return st.Fleet.Run(inner) })
	}
	err = s.Run(ctx, st)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		st.Report.Interrupted, err = true, nil
	}
	st.Report.fail(err)
	st.wind(inner, err != nil || st.Report.Interrupted)
	stop()
	if end := group.Wait(); end != nil && !errors.Is(end, context.Canceled) {
		st.Report.fail(fmt.Errorf("run parts: %w", end))
	}
	st.conclude()
	return st.Report, err
}

func newStage(o Options, s Scenario) (*Stage, error) {
	var mark [8]byte
	if _, err := rand.Read(mark[:]); err != nil {
		return nil, fmt.Errorf("draw run mark: %w", err)
	}
	run := binary.LittleEndian.Uint64(mark[:])
	orString(&o.Company, fmt.Sprintf("bench-%x", run))
	st := &Stage{
		Options: o, Book: NewBook(run), Scraper: NewScraper(o.Internal),
		Report: &Report{
			Schema: Schema, Scenario: s.Name(), Started: time.Now(), Run: fmt.Sprintf("%x", run), Seed: o.Seed,
			Commit: Commit(), Machine: ReadMachine(), Options: s,
			Latencies: make(map[string]Latency), Usage: make(map[string]Usage),
		},
	}
	st.Oracle = NewOracle(st.Book)
	st.Sampler = NewSampler(o.PIDs, st.fillSample)
	if len(o.Addrs) > 0 {
		fleet, err := NewFleet(FleetOptions{
			Doors: o.Addrs, TLS: o.TLS, APIKey: o.APIKey, Mint: o.Mint, Sources: o.Sources,
			Pollers: o.Pollers, Plant: o.Plant, Seed: o.Seed, Log: o.Log,
		})
		if err != nil {
			return nil, err
		}
		st.Fleet = fleet
	}
	return st, nil
}

func (st *Stage) fillSample(s *Sample) {
	s.Published, s.Breaches = st.Book.Published(), st.Oracle.Breached()
	if st.Fleet != nil {
		s.Sessions, s.Received = st.Fleet.Open(), st.Fleet.Frames()
	}
	if st.Options.Progress != nil {
		st.Options.Progress(*s)
	}
}

// Doors is how many pods there are.
func (st *Stage) Doors() int { return len(st.Options.Addrs) }

// Pace is how the options want logins to go.
func (st *Stage) Pace() LoginPace {
	o := st.Options
	return LoginPace{Rate: o.LoginRate, Workers: o.LoginWorkers, Timeout: o.LoginTimeout, Retries: o.LoginRetries}
}

// Want adds thresholds that the scenario itself asks for.
func (st *Stage) Want(thresholds string) {
	st.thresholds = strings.Trim(st.thresholds+","+thresholds, ",")
}

// Rand gives the random source of this name, the same for the same seed.
func (st *Stage) Rand(name string) *mrand.Rand { return newRand(st.Options.Seed, name) }

func newRand(seed uint64, name string) *mrand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return mrand.New(mrand.NewPCG(seed, h.Sum64()))
}

// OpenFeed connects the Feed; the run closes it. size is the bytes of a body,
// 0: default.
func (st *Stage) OpenFeed(ctx context.Context, size int) (err error) {
	o := st.Options
	st.Feed, err = OpenFeed(ctx, st.Book, FeedOptions{URL: o.NATS, Stream: o.Stream, Prefix: o.Prefix, Create: o.Create, Size: size})
	return err
}

// Measure runs do and keeps under name what it cost.
func (st *Stage) Measure(name string, do func() error) (Usage, error) {
	end, err := st.Sampler.Window()
	if err != nil {
		return Usage{}, err
	}
	failed := do()
	u, err := end()
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
	return u, errors.Join(failed, err)
}

// Login opens sockets and adds what came of it to the report.
func (st *Stage) Login(ctx context.Context, list []Login, each func(i int, took time.Duration)) error {
	stats, err := st.Fleet.Login(ctx, st.Oracle, list, st.Pace(), each)
	st.Report.addLogins(stats)
	return err
}

// Drain waits until nothing is outstanding, or nothing of it came for
// Options.DrainTime; then Options.Quiet for what should not come. The time it
// took is returned without the latter.
func (st *Stage) Drain(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	last, since := int64(-1), began
	for time.Since(since) < st.Options.DrainTime {
		n := st.Oracle.Outstanding()
		if n == 0 {
			break
		}
		if n != last {
			last, since = n, time.Now()
		}
		if err := Wait(ctx, time.Now().Add(20*time.Millisecond)); err != nil {
			return time.Since(began), err
		}
	}
	took := time.Since(began)
	return took, Wait(ctx, time.Now().Add(st.Options.Quiet))
}

// wind takes the verdict while the sockets are still open, then closes them. Of
// a run that was cut short it first awaits what is under way, or that would be
// taken for lost.
func (st *Stage) wind(ctx context.Context, short bool) {
	r := st.Report
	if st.Feed != nil {
		if short {
			r.fail(st.Feed.Flush(ctx))
			_, err := st.Drain(ctx)
			r.fail(err)
		}
		stats, err := st.Feed.Stats()
		r.fail(err)
		r.Generator.Feed = &stats
		st.Feed.Close()
	}
	if st.Fleet == nil {
		return
	}
	v := st.Oracle.Verdict()
	r.Oracle, r.Closes, r.ErrorFrames = &v, st.Fleet.Closes(), st.Fleet.ErrorFrames()
	if r.Logins != nil && r.Logins.OK > 0 && st.Fleet.Open() == 0 {
		r.fail(errors.New("no socket was left at the end: did the server end?"))
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r.fail(st.Fleet.CloseAll(ctx))
}

// conclude fills in what is known only at the end, and judges.
func (st *Stage) conclude() {
	r := st.Report
	r.Seconds = time.Since(r.Started).Seconds()
	r.Samples = st.Sampler.Rows()
	hists := map[string]*Hist{"overlap": &st.Oracle.overlap}
	if f := st.Fleet; f != nil {
		hists["login"], hists["login_raw"], hists["delivery"], hists["delivery_raw"] = &f.login, &f.loginRaw, &f.delivery, &f.deliveryRaw
		st.count()
	}
	for name, h := range hists {
		st.AddLatency(name, h)
	}
	lag, err := st.watchdog.lag.Summary()
	r.fail(err)
	r.Generator.Lag = lag
	if n := float64(st.fleetFrames()); n > 0 {
		r.Generator.CPUPerCopy = r.Usage["deliver"].Own / n
	}
	r.Generator.judge(st.busiest)
	list, err := parseThresholds(st.thresholds + "," + st.Options.Thresholds)
	r.fail(err)
	r.judge(list)
}

func (st *Stage) fleetFrames() int64 {
	if st.Fleet == nil {
		return 0
	}
	return st.Fleet.Frames()
}

// count adds the figures that every scenario with sockets has.
func (st *Stage) count() {
	r := st.Report
	var closed int64
	for code, n := range r.Closes {
		if code != st.expected {
			closed += n
		}
	}
	r.Add("closed", float64(closed), "", "sockets ended by the server or lost")
	r.Add("junk", float64(st.Fleet.junk.Load()), "", "frames that could not be decoded")
	if st.Options.Plant != (Plant{}) {
		r.Add("planted_drops", float64(st.Fleet.plant.done[faultDrop].Load()), "", "event frames this client threw away")
		r.Add("planted_doubles", float64(st.Fleet.plant.done[faultDouble].Load()), "", "event frames this client took twice")
	}
	if r.Oracle != nil {
		r.Add("gaps", float64(r.Oracle.Gaps), "", "gap frames")
		r.Add("told", float64(r.Oracle.Told), "", "copies replaced by a gap or a close")
	}
	if r.Logins != nil {
		r.Add("login_failures", float64(r.Logins.Asked-r.Logins.OK), "", "logins that did not come through")
	}
}

// AddLatency adds a histogram to the report, unless it is empty.
func (st *Stage) AddLatency(name string, h *Hist) {
	l, err := h.Summary()
	st.Report.fail(err)
	if l.Count > 0 {
		st.Report.Latencies[name] = l
	}
}

// addLogins adds one more round of logins.
func (r *Report) addLogins(s LoginStats) {
	if r.Logins == nil {
		r.Logins = &LoginStats{Refused: make(map[string]int64), Failed: make(map[string]int64)}
	}
	l := r.Logins
	l.Asked, l.OK, l.Retries, l.Seconds = l.Asked+s.Asked, l.OK+s.OK, l.Retries+s.Retries, l.Seconds+s.Seconds
	for k, n := range s.Refused {
		l.Refused[k] += n
	}
	for k, n := range s.Failed {
		l.Failed[k] += n
	}
}
