package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"
)

// WorkerOptions configures Work.
type WorkerOptions struct {
	Options        // secrets, TLS, Log; all else comes with the job
	Crew    string // default "bench"
	URL     string // NATS where the crew meets; required
	Once    bool   // end after one job
}

// Work bears shares of runs that a guide leads, one after the other, until ctx
// ends. It runs on any machine that reaches the doors and NATS.
func Work(ctx context.Context, o WorkerOptions) error {
	orString(&o.Crew, defaultCrew)
	nc, err := crewConnect(o.URL)
	if err != nil {
		return err
	}
	defer nc.Close()
	w := &worker{opts: o, nc: nc, base: crewSubject + o.Crew, offer: offerOf(), jobs: make(chan crewJob, 1)}
	hire, err := nc.Subscribe(w.base+".hire", w.hire)
	if err != nil {
		return fmt.Errorf("wait for work: %w", err)
	}
	defer func() { _ = hire.Unsubscribe() }()
	asked, err := nc.Subscribe(w.base+".w."+w.offer.ID, w.asked)
	if err != nil {
		return fmt.Errorf("wait for work: %w", err)
	}
	defer func() { _ = asked.Unsubscribe() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case job := <-w.jobs:
			err := w.do(ctx, job)
			w.busy.Store(false)
			if o.Once || ctx.Err() != nil {
				return err
			}
		}
	}
}

const defaultCrew = "bench"

// worker is a process that bears a share.
type worker struct {
	// Static after Work.
	opts  WorkerOptions
	nc    *nats.Conn
	base  string
	offer crewOffer
	jobs  chan crewJob

	busy atomic.Bool
}

func offerOf() crewOffer {
	host, _ := os.Hostname() // a worker without a name is known by its number
	var files unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &files) // 0: unknown
	return crewOffer{
		Version: crewVersion, ID: nats.NewInbox()[len("_INBOX."):], Host: host, PID: os.Getpid(), Cores: runtime.GOMAXPROCS(0),
		Files: files.Cur, Commit: Commit(),
	}
}

func (w *worker) hire(m *nats.Msg) {
	if w.busy.Load() {
		return
	}
	if b, err := json.Marshal(w.offer); err == nil {
		_ = m.Respond(b) // the guide asks again
	}
}

func (w *worker) asked(m *nats.Msg) {
	a := crewAnswer{Now: time.Now().UnixNano()}
	var r crewRequest
	if err := json.Unmarshal(m.Data, &r); err != nil {
		a.Error = err.Error()
	} else if r.Job != nil {
		if w.busy.CompareAndSwap(false, true) {
			w.jobs <- *r.Job
		} else {
			a.Error = "has work already"
		}
	}
	if b, err := json.Marshal(a); err == nil {
		_ = m.Respond(b)
	}
}

// do bears one share and reports.
func (w *worker) do(ctx context.Context, job crewJob) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := &member{nc: w.nc, prefix: w.base + ".j." + job.ID, job: job, heard: make(chan struct{}, 1)}
	beat, err := w.nc.Subscribe(m.prefix+".beat", func(msg *nats.Msg) {
		if len(msg.Data) > 0 {
			cancel(fmt.Errorf("%w: %s", errDismissed, msg.Data))
		}
		select {
		case m.heard <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("hear the guide: %w", err)
	}
	defer func() { _ = beat.Unsubscribe() }()
	go m.watch(ctx, cancel) // ends with ctx
	r, err := w.share(ctx, job, m)
	if r == nil {
		r = &Report{Schema: Schema, Scenario: job.Scenario, Errors: []string{err.Error()}}
	}
	return m.report(r)
}

var errDismissed = errors.New("the run is over")

func (w *worker) share(ctx context.Context, job crewJob, m *member) (*Report, error) {
	s, err := newScenario(job.Scenario, job.Options)
	if err != nil {
		return nil, err
	}
	var o Options
	if err := json.Unmarshal(job.Options, &o); err != nil {
		return nil, fmt.Errorf("read options: %w", err)
	}
	own := w.opts.Options
	o.TLS, o.APIKey, o.TokenKey, o.MintKey, o.Mint, o.Log = own.TLS, own.APIKey, own.TokenKey, own.MintKey, own.Mint, own.Log
	if len(own.Sources) > 0 {
		o.Sources = own.Sources
	}
	o.PIDs, o.Internal, o.Redis = nil, nil, "" // the guide's to read
	o.Part, o.Seed, o.Company, o.Thresholds = job.Part, job.Seed, job.Company, ""
	o.Progress = m.row
	return run(ctx, o, s, job.Run, m)
}

// member is the meeter of a worker.
type member struct {
	nc     *nats.Conn
	prefix string
	job    crewJob
	heard  chan struct{} // the guide lives
	phase  atomic.Pointer[string]
}

// watch gives up when the guide is not heard of any more.
func (m *member) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	t := time.NewTimer(m.job.Lost)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.heard:
			t.Reset(m.job.Lost)
		case <-t.C:
			cancel(fmt.Errorf("%w: the guide was not heard of for %v", errDismissed, m.job.Lost))
			return
		}
	}
}

// row is called each second with how the share goes.
func (m *member) row(s Sample) {
	r := crewRow{Worker: m.job.Part.Index, Sample: s}
	if p := m.phase.Load(); p != nil {
		r.Phase = *p
	}
	m.say("row", r)
}

func (m *member) say(what string, v any) {
	if b, err := json.Marshal(v); err == nil {
		_ = m.nc.Publish(m.prefix+"."+what, b) // the next one comes in a second
	}
}

// meet implements meeter.
func (m *member) meet(ctx context.Context, point string, mine []byte, _ func([][]byte) ([]byte, error)) ([]byte, error) {
	m.phase.Store(&point)
	b, err := json.Marshal(crewPoint{Worker: m.job.Part.Index, Point: point, Mine: mine})
	if err != nil {
		return nil, err
	}
	answer, err := m.nc.RequestWithContext(ctx, m.prefix+".meet", b)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	var g crewGo
	if err := json.Unmarshal(answer.Data, &g); err != nil {
		return nil, err
	}
	if g.Error != "" {
		return nil, errors.New("the guide: " + g.Error)
	}
	return g.Result, Wait(ctx, time.Unix(0, g.At))
}

// report sends r in pieces.
func (m *member) report(r *Report) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("send report: %w", err)
	}
	pieces := (len(b) + pieceSize - 1) / pieceSize
	for n := range pieces {
		piece := b[n*pieceSize : min(len(b), (n+1)*pieceSize)]
		m.say("end", crewPiece{Worker: m.job.Part.Index, N: n, Of: pieces, Bytes: piece})
	}
	if err := m.nc.FlushTimeout(10 * time.Second); err != nil {
		return fmt.Errorf("send report of worker %s: %w", strconv.Itoa(m.job.Part.Index), err)
	}
	return nil
}
