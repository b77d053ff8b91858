package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// CrewOptions says who shares the load of a run.
type CrewOptions struct {
	Workers int           `json:"workers"` // how many processes are wanted; 0: this one bears all
	Name    string        `json:"name"`    // of the crew, a NATS token; default "bench"
	URL     string        `json:"-"`       // NATS where it meets; default that of the events
	Wait    time.Duration `json:"wait"`    // for so many workers, default 30 s
	Lost    time.Duration `json:"lost"`    // without a word for so long a worker, or the guide, is given up; default 20 s
}

// guide leads a crew. Made by hire; its methods are called by the run.
type guide struct {
	// Static after hire.
	nc       *nats.Conn
	prefix   string // of the job's subjects
	job      string
	subs     []*nats.Subscription
	offers   []crewOffer
	workers  []Worker
	patience time.Duration

	mu      sync.Mutex
	wake    chan struct{} // closed and replaced when something below changed
	seen    []time.Time   // when each worker was last heard of
	phase   []string      // where it was then
	points  map[string]map[int]*nats.Msg
	mine    map[string]map[int]json.RawMessage
	rows    []map[int]Sample // by worker, by second
	newest  []Sample
	pieces  []map[int][]byte
	total   []int // pieces of its report, 0: unknown
	gone    []bool
	reports []*Report
}

// Run says each second that the guide lives, and notes who does not, until ctx
// ends.
func (g *guide) Run(ctx context.Context) error {
	t := time.NewTicker(crewBeat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			// Workers that hear nothing give up by themselves.
			_ = g.nc.Publish(g.prefix+".beat", nil)
			g.missed()
		}
	}
}

// missed marks those that have not been heard of for too long.
func (g *guide) missed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, at := range g.seen {
		if !g.gone[i] && g.total[i] == 0 && time.Since(at) > g.patience {
			g.gone[i] = true
			g.workers[i].Lost = g.phase[i]
			g.changed()
		}
	}
}

// lost says who is, for the report.
func (g *guide) lost() (list []error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, w := range g.workers {
		if w.Lost != "" {
			list = append(list, fmt.Errorf("worker %d (%s, process %d) was lost in %q: its sessions are in no figure", i, w.Host, w.PID, w.Lost))
		}
	}
	return list
}

// stop tells all workers that the run is over.
func (g *guide) stop(why string) {
	_ = g.nc.Publish(g.prefix+".beat", []byte(why))
	_ = g.nc.FlushTimeout(time.Second)
}

func (g *guide) close() {
	for _, s := range g.subs {
		_ = s.Unsubscribe()
	}
	g.nc.Close()
}

// changed wakes whoever waits; mu is held.
func (g *guide) changed() {
	close(g.wake)
	g.wake = make(chan struct{})
}

// await waits until ok, which is called with mu held.
func (g *guide) await(ctx context.Context, ok func() bool) error {
	for {
		g.mu.Lock()
		done, wake := ok(), g.wake
		g.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *guide) hears(worker int) bool { return worker >= 0 && worker < len(g.seen) }

func (g *guide) hearRow(m *nats.Msg) {
	var r crewRow
	if json.Unmarshal(m.Data, &r) != nil || !g.hears(r.Worker) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen[r.Worker], g.phase[r.Worker] = time.Now(), r.Phase
	g.rows[r.Worker][int(r.Sample.At)], g.newest[r.Worker] = r.Sample, r.Sample
}

func (g *guide) hearPoint(m *nats.Msg) {
	var p crewPoint
	if json.Unmarshal(m.Data, &p) != nil || !g.hears(p.Worker) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen[p.Worker] = time.Now()
	if g.points[p.Point] == nil {
		g.points[p.Point], g.mine[p.Point] = map[int]*nats.Msg{}, map[int]json.RawMessage{}
	}
	g.points[p.Point][p.Worker], g.mine[p.Point][p.Worker] = m, p.Mine
	g.changed()
}

func (g *guide) hearPiece(m *nats.Msg) {
	var p crewPiece
	if json.Unmarshal(m.Data, &p) != nil || !g.hears(p.Worker) || p.Of <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen[p.Worker] = time.Now()
	i := p.Worker
	g.pieces[i][p.N], g.total[i] = p.Bytes, p.Of
	if len(g.pieces[i]) < p.Of || g.reports[i] != nil {
		return
	}
	var whole strings.Builder
	for n := range p.Of {
		whole.Write(g.pieces[i][n])
	}
	r := new(Report)
	if err := json.Unmarshal([]byte(whole.String()), r); err != nil {
		r.Errors = []string{fmt.Sprintf("decode its report: %v", err)}
	}
	g.reports[i] = r
	g.changed()
}

// errCrewEnded says that a worker's run ended before the others'.
var errCrewEnded = errors.New("a worker's run has ended")

// meet implements meeter.
func (g *guide) meet(ctx context.Context, point string, mine []byte, decide func([][]byte) ([]byte, error)) ([]byte, error) {
	ended := -1
	err := g.await(ctx, func() bool {
		for i := range g.workers {
			if g.gone[i] {
				continue
			}
			if g.points[point][i] == nil {
				if g.total[i] > 0 {
					ended = i
					return true
				}
				return false
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	if ended >= 0 {
		return nil, fmt.Errorf("%w: worker %d on %s", errCrewEnded, ended, g.workers[ended].Host)
	}
	g.mu.Lock()
	all, answers := [][]byte{mine}, g.points[point]
	for i := range g.workers {
		if b, ok := g.mine[point][i]; ok && !g.gone[i] {
			all = append(all, b)
		}
	}
	delete(g.points, point)
	delete(g.mine, point)
	g.mu.Unlock()
	result, err := decide(all)
	start := crewGo{Result: result}
	if err != nil {
		start = crewGo{Error: err.Error()}
	}
	return result, errors.Join(err, g.release(answers, start))
}

// release lets all go on at one instant.
func (g *guide) release(answers map[int]*nats.Msg, start crewGo) error {
	at := time.Now().Add(100 * time.Millisecond)
	for i, m := range answers {
		start.At = at.Add(g.workers[i].Offset).UnixNano()
		b, err := json.Marshal(start)
		if err != nil {
			return err
		}
		if err := m.Respond(b); err != nil {
			return fmt.Errorf("let worker %d go on: %w", i, err)
		}
	}
	return Wait(context.Background(), at)
}

// collect waits for the reports of all that are not lost.
func (g *guide) collect(ctx context.Context) ([]*Report, error) {
	err := g.await(ctx, func() bool {
		for i := range g.workers {
			if g.reports[i] == nil && !g.gone[i] {
				return false
			}
		}
		return true
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		for i := range g.workers {
			if g.reports[i] == nil && !g.gone[i] {
				g.gone[i], g.workers[i].Lost = true, g.phase[i]
			}
		}
		err = fmt.Errorf("collect the workers' reports: %w", err)
	}
	return g.reports, err
}

// live sums the newest samples of all workers.
func (g *guide) live(into *Sample) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, rows := range g.rows {
		if n := g.newest[i]; !g.gone[i] && len(rows) > 0 {
			into.add(n)
		}
	}
}
