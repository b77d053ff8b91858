package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// lead runs a scenario with a crew: the guide's own part is empty, but it goes
// through the same phases and reads the server's side.
func lead(ctx context.Context, o Options, s Scenario, number uint64) (*Report, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode scenario: %w", err)
	}
	checked, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	say := func(text string) { o.Log.Info().Msg(text) }
	g, err := hire(ctx, checked.Crew, say)
	if err != nil {
		return nil, err
	}
	defer g.close()
	o.Company, o.Seed = checked.Company, checked.Seed
	orString(&o.Company, ownCompany(number))
	job := crewJob{
		ID: fmt.Sprintf("%x", number), Scenario: kindOf(s), Options: raw, Run: number, Seed: o.Seed, Company: o.Company,
	}
	if err := g.begin(ctx, job); err != nil {
		return nil, err
	}
	defer g.stop("the guide ended")
	beat, rest := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- g.Run(beat) }()
	o.Part = Part{Count: len(g.offers), Guide: true}
	r, err := run(ctx, o, s, number, g)
	rest()
	return r, errors.Join(err, <-ended)
}

// collectWithin is how long a crew's reports are waited for: they await what
// is outstanding first.
const collectWithin = 60 * time.Second

// gather adds the workers' reports to the guide's.
func (st *Stage) gather(g *guide) {
	r := st.Report
	ctx, cancel := context.WithTimeout(context.Background(), collectWithin)
	defer cancel()
	reports, err := g.collect(ctx)
	r.fail(err)
	for _, err := range g.lost() {
		r.fail(err)
	}
	for i, o := range reports {
		if o == nil {
			continue
		}
		r.fail(r.merge(i, o))
		g.workers[i].CPU, g.workers[i].Lag = o.Generator.CPU, o.Generator.Lag.P99
		ahead := o.Started.Add(-g.workers[i].Offset).Sub(r.Started).Seconds()
		addRows(r.Samples, g.rows[i], ahead)
	}
	r.Workers = g.workers
}
