package natsx

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A hundred calls while one is out are one question more, and no answer is
// older than its call.
func TestQuestionsAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuestions()
		var asked atomic.Uint64
		ask := func() uint64 {
			i, err := q.ask(t.Context(), func(context.Context) (*streamInfo, error) {
				var i streamInfo
				i.State.LastSeq = asked.Add(1)
				time.Sleep(time.Second)
				return &i, nil
			})
			if err != nil {
				t.Error(err)
				return 0
			}
			return i.State.LastSeq
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if n := ask(); n != 1 {
				t.Errorf("first answer %d", n)
			}
		})
		synctest.Wait()
		for range 100 {
			wg.Go(func() {
				if n := ask(); n != 2 {
					t.Errorf("answer %d to a call that came during question 1", n)
				}
			})
		}
		wg.Wait()
		if n := asked.Load(); n != 2 {
			t.Errorf("%d questions", n)
		}
		if n := ask(); n != 3 {
			t.Errorf("a later call was given answer %d", n)
		}
	})
}

// One that is called off does not hold up those that come after.
func TestQuestionCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuestions()
		slow := func(ctx context.Context) (*streamInfo, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Minute):
				return new(streamInfo), nil
			}
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := q.ask(ctx, slow); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if _, err := q.ask(t.Context(), slow); err != nil {
			t.Error(err)
		}
	})
}
