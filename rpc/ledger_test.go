package rpc

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// ledgerCases runs each case on a ledger of its own.
func ledgerCases(t *testing.T) func(name string, run func(l *ledger, admit func(at time.Duration, want bool))) {
	return func(name string, run func(l *ledger, admit func(at time.Duration, want bool))) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			l := &ledger{}
			run(l, func(at time.Duration, want bool) {
				t.Helper()
				if got := l.admit(at, time.Second); got != want {
					t.Fatalf("at %v: admit is %v", at, got)
				}
			})
		})
	}
}

func TestLedger(t *testing.T) {
	f := ledgerCases(t)
	f("acked in time", func(l *ledger, admit func(time.Duration, bool)) {
		for at := time.Duration(0); at < 5*time.Second; at += 100 * ms {
			admit(at, true)
			l.add(uint64(at/ms)+1, at)
			if oldest, some := l.ack(uint64(at/ms) + 1); !some || oldest != at {
				t.Fatalf("acked %v %v", oldest, some)
			}
		}
		if len(l.sent) > 1 {
			t.Fatalf("kept %d", len(l.sent))
		}
	})
	f("never acked", func(l *ledger, admit func(time.Duration, bool)) {
		admit(0, true)
		l.add(1, 0)
		admit(1000*ms, true)
		l.add(2, 1000*ms)
		admit(1001*ms, false)
		admit(2000*ms, false)
		admit(2001*ms, true) // the probe
		l.add(3, 2001*ms)
		admit(2002*ms, false)
		admit(3000*ms, false)
		admit(3001*ms, true)
		l.add(4, 3001*ms)
		if len(l.sent) != 1 {
			t.Fatalf("kept %d", len(l.sent))
		}
	})
	f("probe is acked", func(l *ledger, admit func(time.Duration, bool)) {
		admit(0, true)
		l.add(1, 0)
		admit(1500*ms, false)
		admit(2500*ms, true)
		l.add(7, 2500*ms)
		l.ack(9) // a watermark beyond it
		admit(2501*ms, true)
	})
	f("late ack", func(l *ledger, admit func(time.Duration, bool)) {
		l.add(1, 0)
		l.add(2, 10*ms)
		l.add(3, 1900*ms)
		admit(2000*ms, false)
		l.ack(2)
		admit(2001*ms, true)
		admit(2900*ms, true)
		admit(2901*ms, false)
	})
	f("an ack of less than was sent", func(l *ledger, admit func(time.Duration, bool)) {
		l.add(5, 0)
		if _, some := l.ack(4); some {
			t.Fatal("4 acked 5")
		}
		admit(1001*ms, false)
		l.ack(4)
		admit(1002*ms, false)
	})
	f("bounded while the peer lags a little", func(l *ledger, admit func(time.Duration, bool)) {
		for i := range uint64(10_000) {
			at := time.Duration(i) * ms
			admit(at, true)
			l.add(i+1, at)
			if i > 100 {
				l.ack(i - 100)
			}
		}
		if cap(l.sent) > 1024 {
			t.Fatalf("ledger of %d for 100 batches", cap(l.sent))
		}
	})
}
