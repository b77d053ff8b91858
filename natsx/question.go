package natsx

import (
	"context"
	"sync"
)

// questions joins calls of the same question. An answer is never older than the
// call it is given to: whoever comes while a question is out shares the next.
type questions struct {
	out chan struct{} // capacity 1: holds a token while a question is out

	mu   sync.Mutex
	next *question // not asked yet; nil: nobody waits
}

// question is asked once for all who wait for its answer.
type question struct {
	answered chan struct{} // closed when the following are set
	info     *streamInfo
	err      error
}

func newQuestions() questions { return questions{out: make(chan struct{}, 1)} }

// ask has f answer, for this call or for all that wait with it. When the one of
// them who asks is called off, the others get its error, and ask again.
func (q *questions) ask(ctx context.Context, f func(context.Context) (*streamInfo, error)) (*streamInfo, error) {
	q.mu.Lock()
	mine := q.next
	asks := mine == nil
	if asks {
		mine = &question{answered: make(chan struct{})}
		q.next = mine
	}
	q.mu.Unlock()
	if !asks {
		select {
		case <-mine.answered:
			return mine.info, mine.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer close(mine.answered)
	select {
	case q.out <- struct{}{}:
		defer func() { <-q.out }()
	case <-ctx.Done():
		mine.err = ctx.Err()
	}
	q.mu.Lock()
	q.next = nil // who comes from here on is not answered by this
	q.mu.Unlock()
	if mine.err == nil {
		mine.info, mine.err = f(ctx)
	}
	return mine.info, mine.err
}
