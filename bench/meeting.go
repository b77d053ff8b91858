package bench

import (
	"context"
	"encoding/json"
	"fmt"
)

// Part is a process's share of a run: agents are dealt out by number, so that
// every receiver of an event sits in the process that publishes it. Judging
// then needs no other process, and latency no other clock. Zero: all of it.
type Part struct {
	Index int  `json:"index"`
	Count int  `json:"count"`
	Guide bool `json:"guide,omitempty"` // leads the others, and bears no load
}

// Mine says whether agent number i, from 0, belongs to this part.
func (p Part) Mine(i int) bool { return !p.Guide && i%max(p.Count, 1) == p.Index }

// share is how much of n things, dealt out in turn, are this part's.
func (p Part) share(n int) int {
	if p.Guide {
		return 0
	}
	c := max(p.Count, 1)
	return (n + c - 1 - p.Index) / c
}

// meeter is a way for all parts of a run to meet at a point.
type meeter interface {
	// meet comes to the point and waits for the others. decide runs once, in the
	// guide, over what all brought; everyone gets what it returned.
	meet(ctx context.Context, point string, mine []byte, decide func(all [][]byte) ([]byte, error)) ([]byte, error)
}

// alone is the meeter of a run in one process.
type alone struct{}

func (alone) meet(_ context.Context, _ string, mine []byte, decide func([][]byte) ([]byte, error)) ([]byte, error) {
	return decide([][]byte{mine})
}

// agree meets at a point: decide runs once, over what all parts bring, and all
// are given its result.
func agree[M, R any](ctx context.Context, st *Stage, point string, mine M, decide func(all []M) (R, error)) (result R, err error) {
	b, err := json.Marshal(mine)
	if err != nil {
		return result, fmt.Errorf("meet at %q: %w", point, err)
	}
	b, err = st.crew.meet(ctx, point, b, func(raw [][]byte) ([]byte, error) {
		all := make([]M, len(raw))
		for i := range raw {
			if err := json.Unmarshal(raw[i], &all[i]); err != nil {
				return nil, err
			}
		}
		r, err := decide(all)
		if err != nil {
			return nil, err
		}
		return json.Marshal(r)
	})
	if err != nil {
		return result, fmt.Errorf("meet at %q: %w", point, err)
	}
	if err := json.Unmarshal(b, &result); err != nil {
		return result, fmt.Errorf("meet at %q: %w", point, err)
	}
	return result, nil
}

// Solo runs do in the guide alone (or the only process) while all others wait.
func (st *Stage) Solo(ctx context.Context, point string, do func() error) error {
	_, err := agree(ctx, st, point, 0, func([]int) (int, error) { return 0, do() })
	return err
}
