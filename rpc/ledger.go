package rpc

import (
	"time"

	"github.com/daisi/daisi-ws/session"
)

// ledger remembers what one partition sent to one peer and when, until it is
// acked. The peer's lock guards it.
type ledger struct {
	sent    []due
	head    int           // those before it are acked
	stalled bool          // the oldest waited too long
	probed  time.Duration // when stalled: the last time that one was let through
}

type due struct {
	upto uint64
	at   time.Duration
}

// admit says whether another batch may go out: yes unless the oldest waits for
// its ack longer than timeout. A stalled one lets a probe through each timeout,
// since a peer that is sent nothing has nothing to ack.
func (l *ledger) admit(now, timeout time.Duration) bool {
	if !l.stalled {
		if l.head == len(l.sent) || now-l.sent[l.head].at <= timeout {
			return true
		}
		l.stalled, l.probed = true, now
		return false
	}
	if now-l.probed < timeout {
		return false
	}
	l.probed = now
	l.clear() // what is forgotten here bounds the ledger
	return true
}

// isSign says that b holds nothing to take: its sender is there, no more. Such
// a sign has no ack: an idle cluster sends little else.
func isSign(b *session.Batch) bool {
	return b.From == b.Upto && len(b.Events) == 0 && len(b.Fences) == 0
}

// add notes a batch that was queued.
func (l *ledger) add(upto uint64, now time.Duration) {
	if l.head > 64 && l.head > len(l.sent)/2 {
		l.sent, l.head = append(l.sent[:0], l.sent[l.head:]...), 0
	}
	l.sent = append(l.sent, due{upto, now})
}

// ack takes all up to upto off, and gives the time of the oldest of them.
func (l *ledger) ack(upto uint64) (oldest time.Duration, some bool) {
	for l.head < len(l.sent) && l.sent[l.head].upto <= upto {
		if !some {
			oldest, some = l.sent[l.head].at, true
		}
		l.head++
	}
	if l.head == len(l.sent) {
		l.clear()
	}
	// An ack that was late: the peer is slow, not silent. If it stays slow, the
	// next batch finds it stalled again.
	l.stalled = l.stalled && !some
	return oldest, some
}

func (l *ledger) clear() { l.sent, l.head = l.sent[:0], 0 }
