package redisx

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is a clock that goes on while the machine is suspended, which Go's
// own monotonic clock does not: a pod that slept must see that its beat is old.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Duration(time.Now().UnixNano()) // no such clock: wall time goes on, too
	}
	return time.Duration(ts.Nano())
}
