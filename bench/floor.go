package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FloorOptions is the floor scenario: what the kernel alone asks for one frame
// to each of many sockets, read by another process on this machine.
type FloorOptions struct {
	Options
	Sockets int   `json:"sockets"` // default 5000
	Sizes   []int `json:"sizes"`   // bytes of a frame, default 260 and 420
	Repeats int   `json:"repeats"` // the best of so many counts, default 4

	// Reader is the command, without its last two arguments (port, sockets),
	// that runs FloorReader in a process of its own; required.
	Reader []string `json:"-"`
}

// Floor runs the floor scenario.
func Floor(ctx context.Context, o FloorOptions) (*Report, error) {
	orInt(&o.Sockets, 5000)
	orInt(&o.Repeats, 4)
	if len(o.Sizes) == 0 {
		o.Sizes = []int{260, 420}
	}
	o.Addrs = nil // no gateway is needed
	return Run(ctx, o.Options, floor{o})
}

type floor struct{ FloorOptions }

// floorJoined are how many frames one send() carries.
var floorJoined = [...]int{1, 10}

const floorRounds = 4

// Name implements Scenario.
func (floor) Name() string { return "floor" }

// Run implements Scenario.
func (s floor) Run(ctx context.Context, st *Stage) error {
	if len(s.Reader) == 0 {
		return errors.New("run floor: no command for the reader's process")
	}
	listener, port, err := floorListen()
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	reader := exec.CommandContext(ctx, s.Reader[0], append(s.Reader[1:], strconv.Itoa(port), strconv.Itoa(s.Sockets))...)
	reader.Stderr = os.Stderr
	if err := reader.Start(); err != nil {
		return fmt.Errorf("start reader: %w", err)
	}
	defer func() {
		// It has nothing to say but that it was killed.
		_ = reader.Process.Kill()
		_ = reader.Wait()
	}()
	fds, err := floorAccept(ctx, listener, s.Sockets)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	if err != nil {
		return err
	}
	for _, size := range s.Sizes {
		for _, joined := range floorJoined {
			cost, err := s.measure(ctx, fds, size, joined)
			if err != nil {
				return err
			}
			name := fmt.Sprintf("send_%dB_joined_%d", size, joined)
			st.Report.Add(name, cost.Seconds(), "s", fmt.Sprintf("CPU a frame, %d sockets, best of %d", s.Sockets, s.Repeats))
		}
	}
	return nil
}

// measure gives the CPU time of this thread a frame.
func (s floor) measure(ctx context.Context, fds []int, size, joined int) (best time.Duration, err error) {
	buf := make([]byte, size*joined)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range s.Repeats {
		before, err := threadCPU()
		if err != nil {
			return 0, err
		}
		taken := 0
		for range floorRounds {
			for _, fd := range fds {
				switch err := rawSend(fd, buf); err {
				case nil:
					taken++
				case unix.EAGAIN: // a full socket takes nothing, and counts for nothing
				default:
					return 0, fmt.Errorf("send: %w", err)
				}
			}
		}
		if taken == 0 {
			return 0, errors.New("send: the reader reads nothing")
		}
		after, err := threadCPU()
		if err != nil {
			return 0, err
		}
		if d := (after - before) / time.Duration(taken*joined); best == 0 || d < best {
			best = d
		}
		// The reader must be idle again, or its work counts as ours.
		if err := Wait(ctx, time.Now().Add(300*time.Millisecond)); err != nil {
			return 0, err
		}
	}
	return best, nil
}

// rawSend is send() without the runtime's bookkeeping, as the floor should be.
func rawSend(fd int, b []byte) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// threadCPU is exact to the instant, unlike getrusage, which is to a tick.
func threadCPU() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

func floorListen() (fd, port int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("make listener: %w", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		err = unix.Listen(fd, 4096)
	}
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return 0, 0, fmt.Errorf("listen on loopback: %w", err)
	}
	return fd, name.(*unix.SockaddrInet4).Port, nil
}

// floorAccept takes n connections; it gives up when none comes for 10 s.
func floorAccept(ctx context.Context, listener, n int) (fds []int, err error) {
	for len(fds) < n {
		p := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		for quiet := 0; ; quiet++ {
			k, err := unix.Poll(p, 100)
			if err != nil && err != unix.EINTR {
				return fds, fmt.Errorf("await reader: %w", err)
			}
			if k > 0 {
				break
			}
			if ctx.Err() != nil || quiet > 100 {
				return fds, fmt.Errorf("await reader: %d of %d sockets: %w", len(fds), n, orErr(ctx.Err(), os.ErrDeadlineExceeded))
			}
		}
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return fds, fmt.Errorf("accept: %w", err)
		}
		fds = append(fds, fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return fds, fmt.Errorf("set no delay: %w", err)
		}
	}
	return fds, nil
}

// FloorReader is the other process of the floor scenario: it opens n sockets to
// a loopback port and reads them until one ends, or it is killed.
func FloorReader(port, n int) error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make epoll: %w", err)
	}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("make socket: %w", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return fmt.Errorf("connect to sender: %w", err)
		}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return fmt.Errorf("add socket: %w", err)
		}
	}
	buf, events := make([]byte, 1<<16), make([]unix.EpollEvent, 256)
	for {
		k, err := unix.EpollWait(ep, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for bytes: %w", err)
		}
		for i := 0; i < max(k, 0); i++ {
			if n, err := unix.Read(int(events[i].Fd), buf); n <= 0 && err != unix.EINTR {
				return nil
			}
		}
	}
}
