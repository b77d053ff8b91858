package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// deed is what a step does beside its events; nil: nothing, in this process.
func (s script) deed(st *Stage, p Step, logins []Login, rng *rand.Rand) func(context.Context) error {
	part := st.Options.Part
	switch p.Do {
	case DeedKill, DeedStop, DeedRestart:
		if s.Local == nil {
			return nil // the guide's
		}
		return func(ctx context.Context) error { return s.breakPods(ctx, p, rng) }
	case DeedStuck:
		if part.Guide {
			return nil
		}
		return func(ctx context.Context) error { return s.stuck(ctx, st, p) }
	case DeedChurn, DeedStorm, DeedTakeover:
		if len(logins) == 0 {
			return nil
		}
		list, pace := movedLogins(st, p, logins, rng), st.Pace()
		pace.Rate = p.Pace / float64(max(part.Count, 1))
		return func(ctx context.Context) error {
			if p.Do == DeedStorm {
				st.Fleet.leaveAll()
			}
			stats, err := st.Fleet.Login(ctx, st.Oracle, list, pace, nil)
			st.Report.addLogins(stats)
			return err
		}
	}
	return nil
}

// movedLogins are who comes again, in which order, each at the next door.
func movedLogins(st *Stage, p Step, logins []Login, rng *rand.Rand) []Login {
	n := len(logins)
	switch p.Do {
	case DeedChurn:
		n = int(p.Pace * p.For.Seconds() / float64(max(st.Options.Part.Count, 1)))
	case DeedTakeover:
		n = int(p.Share*float64(n) + 0.5)
	}
	list := make([]Login, n)
	var order []int
	for i := range list {
		if i%len(logins) == 0 {
			order = rng.Perm(len(logins))
		}
		l := &logins[order[i%len(logins)]]
		if p.Do != DeedStorm {
			l.Door = (l.Door + 1) % st.Doors()
		}
		list[i] = *l
		list[i].Leave = p.Do == DeedChurn
		if list[i].Mode == ChatQuery && i%2 == 1 {
			list[i].Mode = ChatRestored // the server remembers it
		}
	}
	return list
}

// stuck opens sessions that read nothing until the step's time is over, then
// looks how each was told.
func (s script) stuck(ctx context.Context, st *Stage, p Step) error {
	pages := st.Book.Pages()
	n := st.Options.Part.share(int(p.Share*float64(s.Sessions) + 0.5))
	if n == 0 || len(pages) == 0 {
		return nil
	}
	readers, err := st.Fleet.stick(ctx, pages, n)
	if err != nil {
		return err
	}
	defer readers.close()
	if err := Wait(ctx, time.Now().Add(p.For)); err != nil {
		return err
	}
	readers.settle(stuckSettle)
	c := st.Report.Counts
	c["stuck"] += int64(n)
	for code, k := range readers.ends {
		c["stuck_"+code] += k
	}
	return nil
}

// stuckSettle is how long what waited for a stuck reader may take to come once
// it reads.
const stuckSettle = 2 * time.Second

// breakPods breaks pods of the run's own cluster until the step's time is over,
// or each has had its turn.
func (s script) breakPods(ctx context.Context, p Step, rng *rand.Rand) error {
	pods := s.Local.Pods()
	if p.Do == DeedRestart {
		for _, pod := range pods {
			pod.Term()
			if err := s.revive(ctx, pod); err != nil {
				return err
			}
			if err := Wait(ctx, time.Now().Add(p.Pause)); err != nil {
				return err
			}
		}
		return nil
	}
	for end := time.Now().Add(p.For); time.Now().Before(end); {
		next := time.Now().Add(p.Every)
		pod := pods[rng.IntN(len(pods))]
		if err := s.fault(ctx, p, pod); err != nil {
			return err
		}
		if err := Wait(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

// fault breaks one pod and mends it.
func (s script) fault(ctx context.Context, p Step, pod *Pod) error {
	if p.Do == DeedStop {
		if err := pod.Stop(); err != nil {
			return err
		}
		err := Wait(ctx, time.Now().Add(p.Pause))
		return errors.Join(err, pod.Cont())
	}
	pod.Kill()
	if err := Wait(ctx, time.Now().Add(p.Pause)); err != nil {
		return err
	}
	return s.revive(ctx, pod)
}

func (s script) revive(ctx context.Context, pod *Pod) error {
	if err := pod.Start(); err != nil {
		return err
	}
	if err := s.Local.AwaitWhole(ctx); err != nil {
		return fmt.Errorf("after the restart of %s: %w", pod.ID, err)
	}
	return nil
}
