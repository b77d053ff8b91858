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
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Scenario is one way to load a gateway. Its struct holds its options, which
// go into the report, and to workers, as they are. Run is the same in every
// process of a crew: each bears its Part and all meet at the phases.
type Scenario interface {
	Name() string
	Run(ctx context.Context, st *Stage) error
}

// figured is a scenario that adds figures after Run, in the guide (or the only
// process), over the sums of all.
type figured interface {
	Figures(st *Stage)
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
	Redis   *RedisReader
	Phases  map[string]*Phase // that were measured, by name

	crew        meeter
	desk        *desk                        // nil: tokens are minted here
	crowd       *Crowd                       // nil: users whose socket ends stay away
	past        struct{ delivery, raw Hist } // of phases before, which have their own too
	phase       atomic.Pointer[string]       // the one that runs
	watchdog    Watchdog
	follower    follower
	busiest     Usage // the measured window in which this process used most
	thresholds  string
	expected    string // close code by which the scenario wants sockets to end
	faulty      bool   // the caller breaks things meanwhile: a process that ends is no error
	undisturbed bool   // the scenario ends no socket, nor should anybody, so the pods' ledger is judged
	untimed     bool   // nothing is timed, so a slow generator voids nothing
}

// Run runs a scenario and reports. The report is nil only when the options are
// wrong; the error is what kept the run from its end, and is in the report too.
// When ctx ends the run is wound up with what there was.
func Run(ctx context.Context, o Options, s Scenario) (*Report, error) {
	var mark [8]byte
	if _, err := rand.Read(mark[:]); err != nil {
		return nil, fmt.Errorf("draw run mark: %w", err)
	}
	number := binary.LittleEndian.Uint64(mark[:])
	if o.Crew.Workers > 0 {
		return lead(ctx, o, s, number)
	}
	return run(ctx, o, s, number, alone{})
}

// run runs one process's part.
func run(ctx context.Context, o Options, s Scenario, number uint64, crew meeter) (*Report, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	st, err := newStage(o, s, number)
	if err != nil {
		return nil, err
	}
	defer st.Scraper.Close()
	defer st.Redis.Close()
	defer st.desk.close()
	if err := st.Sampler.present(); err != nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	st.crew = crew

	// What the run needs to the very end outlives an interruption.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, inner := errgroup.WithContext(inner)
	group.Go(func() error { return st.watchdog.Run(inner) })
	group.Go(func() error { return st.Sampler.Run(inner) })
	group.Go(func() error { return st.follower.Run(inner) })
	if st.Fleet != nil {
		group.Go(func() error { return st.Fleet.Run(inner) })
	}
	err = s.Run(ctx, st)
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
		st.Report.Interrupted, err = true, nil
	}
	if g, ok := crew.(*guide); ok && (err != nil || st.Report.Interrupted) {
		g.stop("it was cut short")
	}
	st.Report.fail(err)
	st.wind(inner, err != nil || st.Report.Interrupted)
	stop()
	if end := group.Wait(); end != nil && !errors.Is(end, context.Canceled) {
		st.Report.fail(fmt.Errorf("run parts: %w", end))
	}
	st.conclude(s)
	return st.Report, err
}

func newStage(o Options, s Scenario, run uint64) (*Stage, error) {
	own := ownCompany(run)
	orString(&o.Company, own)
	redis, err := NewRedisReader(o.Redis)
	if err != nil {
		return nil, err
	}
	options, err := shown(s)
	if err != nil {
		return nil, fmt.Errorf("show options: %w", err)
	}
	st := &Stage{
		Options: o, Book: NewBook(run), Scraper: NewScraper(o.Internal), Redis: redis, Phases: make(map[string]*Phase),
		Report: &Report{
			Schema: Schema, Scenario: s.Name(), Started: time.Now(), Run: fmt.Sprintf("%x", run), Seed: o.Seed,
			Commit: Commit(), Machine: ReadMachine(), Options: options,
			Latencies: make(map[string]Latency), Usage: make(map[string]Usage), Counts: make(map[string]int64),
		},
	}
	st.Book.base = uint32(o.Part.Index) << partShift
	if st.follower.scraper = st.Scraper; st.guides() {
		st.follower.every = o.Follow
	}
	st.Oracle = NewOracle(st.Book)
	st.Oracle.secluded = o.Company == own
	st.Sampler = NewSampler(o.PIDs, st.fillSample)
	if len(o.Addrs) > 0 {
		if o.Mint == nil {
			st.desk = newDesk(o)
			o.Mint = st.desk.mint
		}
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

// ownCompany is how the company ids of a run begin that is given none.
func ownCompany(run uint64) string { return fmt.Sprintf("bench-%x", run) }

// sample fills in what is so now, here.
func (st *Stage) sample(s *Sample) {
	s.Published, s.Breaches = st.Book.Published(), st.Oracle.Breached()
	if st.Fleet != nil {
		st.Fleet.sample(s)
	}
}

// fillSample completes a row of the time series, and shows it with what the
// workers told last.
func (st *Stage) fillSample(s *Sample) {
	st.sample(s)
	if p := st.phase.Load(); p != nil {
		s.Phase = *p
	}
	k := readSockets()
	s.Slab, s.TCP, s.Server = k.Slab, k.TCP, st.follower.last.Swap(nil)
	if st.Options.Progress == nil {
		return
	}
	shown := *s
	if g, ok := st.crew.(*guide); ok {
		g.live(&shown)
	}
	st.Options.Progress(shown)
}

// Doors is how many pods there are.
func (st *Stage) Doors() int { return len(st.Options.Addrs) }

// Pace is how the options want logins to go.
func (st *Stage) Pace() LoginPace {
	o := st.Options
	return LoginPace{Rate: o.LoginRate / float64(max(o.Part.Count, 1)), Workers: o.LoginWorkers, Timeout: o.LoginTimeout, Retries: o.LoginRetries}
}

// breaks says, before the first login, whether the run breaks things: then a
// process may end, and gaps have a cause.
func (st *Stage) breaks(yes bool) {
	st.faulty = yes
	if yes {
		st.Oracle.Excuse()
	}
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

// Login opens sockets and adds what came of it to the report.
func (st *Stage) Login(ctx context.Context, list []Login, each func(LoginTime)) error {
	return st.loginAt(ctx, list, st.Pace(), each)
}

// loginAt is Login at a pace of its own.
func (st *Stage) loginAt(ctx context.Context, list []Login, pace LoginPace, each func(LoginTime)) error {
	if err := st.desk.fill(ctx, list, pace.Workers); err != nil {
		return err
	}
	stats, err := st.Fleet.Login(ctx, st.Oracle, list, pace, each)
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
	if l := r.Logins; l != nil && l.Asked > 0 && l.OK == 0 && !r.Interrupted {
		r.fail(fmt.Errorf("none of %d logins came through (%s): look at -addr, the API key and the key for tokens", l.Asked, l.usual()))
	} else if l != nil && l.OK > 0 && st.Fleet.Open() == 0 {
		r.fail(errors.New("no socket was left at the end: did the server end?"))
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r.fail(st.Fleet.CloseAll(ctx))
}

// conclude fills in what is known only at the end, adds what workers found, and
// judges.
func (st *Stage) conclude(s Scenario) {
	r := st.Report
	r.Seconds = time.Since(r.Started).Seconds()
	r.Samples = st.Sampler.Rows()
	hists := map[string]*Hist{"overlap": &st.Oracle.overlaps.late}
	if f := st.Fleet; f != nil {
		f.delivery.absorb(&st.past.delivery)
		f.deliveryRaw.absorb(&st.past.raw)
		hists["login"], hists["login_raw"], hists["delivery"], hists["delivery_raw"] = &f.login, &f.loginRaw, &f.delivery, &f.deliveryRaw
		r.Counts["junk"] = f.junk.Load()
		r.Counts["planted_drops"] = f.plant.done[faultDrop].Load()
		r.Counts["planted_doubles"] = f.plant.done[faultDouble].Load()
	}
	for name, h := range hists {
		st.AddLatency(name, h)
	}
	if g, ok := st.crew.(*guide); ok {
		st.gather(g) // each worker has judged itself; the guide bears no load
	} else {
		lag, err := st.watchdog.lag.Summary()
		r.fail(err)
		r.Generator.Lag = lag
		r.Generator.judge(st.busiest, st.untimed || st.Options.Untimed)
	}
	if !st.guides() {
		return
	}
	if p := st.Phases["deliver"]; p != nil && p.Frames() > 0 {
		r.Generator.CPUPerCopy = p.Own / float64(p.Frames())
	}
	if f, ok := s.(figured); ok {
		f.Figures(st)
	}
	if st.Fleet != nil {
		st.count()
	}
	if v := r.Oracle; v != nil && v.Published > 0 && v.Met == 0 && len(r.Errors) == 0 && !r.Interrupted {
		r.fail(fmt.Errorf("nothing was measured: of %d events (%d unsure) no copy came that was owed to a session", v.Published, v.Unsure))
	}
	list, err := parseThresholds(st.thresholds + "," + st.Options.Thresholds)
	r.fail(err)
	r.judge(list)
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
	r.Add("junk", float64(r.Counts["junk"]), "", "frames that could not be decoded")
	if st.Options.Plant != (Plant{}) {
		r.Add("planted_drops", float64(r.Counts["planted_drops"]), "", "event frames this client threw away")
		r.Add("planted_doubles", float64(r.Counts["planted_doubles"]), "", "event frames this client took twice")
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

// addTwin adds both histograms of a latency.
func (st *Stage) addTwin(name string, t *twin) {
	st.AddLatency(name, &t.due)
	st.AddLatency(name+"_raw", &t.raw)
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
