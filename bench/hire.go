package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// hire finds enough free workers, measures their clocks, and gives each its
// share.
func hire(ctx context.Context, o CrewOptions, log func(string)) (*guide, error) {
	nc, err := crewConnect(o.URL)
	if err != nil {
		return nil, err
	}
	g := &guide{nc: nc, patience: o.Lost, wake: make(chan struct{}), points: map[string]map[int]*nats.Msg{}, mine: map[string]map[int]json.RawMessage{}}
	if err := g.find(ctx, o, log); err != nil {
		nc.Close()
		return nil, err
	}
	return g, nil
}

func crewConnect(url string) (*nats.Conn, error) {
	nc, err := nats.Connect(url, nats.Name("daisi-bench crew"), nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("connect to NATS %s: %w", Redacted(url), err)
	}
	return nc, nil
}

// find asks until as many are free as are wanted.
func (g *guide) find(ctx context.Context, o CrewOptions, log func(string)) error {
	base := crewSubject + o.Name
	answers := make(chan crewOffer, 1024)
	inbox := nats.NewInbox()
	sub, err := g.nc.Subscribe(inbox, func(m *nats.Msg) {
		var offer crewOffer
		if json.Unmarshal(m.Data, &offer) == nil && offer.Version == crewVersion {
			select {
			case answers <- offer:
			default: // more than anybody wants
			}
		}
	})
	if err != nil {
		return fmt.Errorf("hire workers: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	known := map[string]bool{}
	ctx, cancel := context.WithTimeout(ctx, o.Wait)
	defer cancel()
	ask := time.NewTicker(200 * time.Millisecond)
	defer ask.Stop()
	for len(g.offers) < o.Workers {
		select {
		case <-ctx.Done():
			return fmt.Errorf("hire workers of crew %q: %d of %d came within %v: %w", o.Name, len(g.offers), o.Workers, o.Wait, context.Cause(ctx))
		case <-ask.C:
			if err := g.nc.PublishRequest(base+".hire", inbox, nil); err != nil {
				return fmt.Errorf("hire workers: %w", err)
			}
		case offer := <-answers:
			if !known[offer.ID] {
				known[offer.ID] = true
				g.offers = append(g.offers, offer)
			}
		}
	}
	g.prefix = base
	log(fmt.Sprintf("%d workers are here", len(g.offers)))
	return g.clocks(ctx, base)
}

// clocks measures how far the workers' clocks are off ours.
func (g *guide) clocks(ctx context.Context, base string) error {
	n := len(g.offers)
	g.workers = make([]Worker, n)
	for i, offer := range g.offers {
		w := Worker{Host: offer.Host, PID: offer.PID, Cores: offer.Cores, Way: time.Hour}
		for range clockProbes {
			sent := time.Now()
			answer, err := g.ask(ctx, base, offer.ID, crewRequest{Clock: true})
			if err != nil {
				return fmt.Errorf("ask worker %d the time: %w", i, err)
			}
			if way := time.Since(sent); way < w.Way {
				w.Way = way
				w.Offset = time.Duration(answer.Now - sent.Add(way/2).UnixNano())
			}
		}
		g.workers[i] = w
	}
	return nil
}

func (g *guide) ask(ctx context.Context, base, id string, r crewRequest) (a crewAnswer, err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	m, err := g.nc.RequestWithContext(ctx, base+".w."+id, b)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// begin gives out the shares.
func (g *guide) begin(ctx context.Context, job crewJob) error {
	base, n := g.prefix, len(g.offers)
	g.job, g.prefix = job.ID, base+".j."+job.ID
	g.seen, g.phase, g.rows = make([]time.Time, n), make([]string, n), make([]map[int]Sample, n)
	g.newest = make([]Sample, n)
	g.pieces, g.total, g.gone, g.reports = make([]map[int][]byte, n), make([]int, n), make([]bool, n), make([]*Report, n)
	for i := range g.seen {
		g.seen[i], g.phase[i], g.rows[i], g.pieces[i] = time.Now(), "start", map[int]Sample{}, map[int][]byte{}
	}
	for subject, hear := range map[string]nats.MsgHandler{".meet": g.hearPoint, ".row": g.hearRow, ".end": g.hearPiece} {
		sub, err := g.nc.Subscribe(g.prefix+subject, hear)
		if err != nil {
			return fmt.Errorf("begin job: %w", err)
		}
		if err := sub.SetPendingLimits(-1, -1); err != nil {
			return fmt.Errorf("begin job: %w", err)
		}
		g.subs = append(g.subs, sub)
	}
	for i, offer := range g.offers {
		mine := job
		mine.Part = Part{Index: i, Count: n}
		mine.Offset, mine.Lost = int64(g.workers[i].Offset), g.patience
		if _, err := g.ask(ctx, base, offer.ID, crewRequest{Job: &mine}); err != nil {
			return fmt.Errorf("give worker %d on %s its share: %w", i, offer.Host, err)
		}
	}
	return nil
}
