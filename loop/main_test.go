package loop

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain doubles as the far end of benchmarks: `test drain-plain PORT N`
// (or drain-tls) connects N sockets and throws away what comes, in a process of
// its own, so that the CPU time of this one is the server's.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && strings.HasPrefix(os.Args[1], "drain-") {
		if err := drain(os.Args[1] == "drain-tls", os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "drain:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	SetProcessDefaults()
	goleak.VerifyTestMain(m)
}

// drain reads until the last socket is closed. Over TLS it shakes hands, and
// then reads records without opening them.
func drain(secure bool, port, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	ep, err := unix.EpollCreate1(0)
	if err != nil {
		return err
	}
	var files []*os.File // kept from being collected
	for range n {
		f, err := connect(secure, port)
		if err != nil {
			return err
		}
		files = append(files, f)
		fd := int(f.Fd())
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			return err
		}
	}
	buf := make([]byte, 1<<20)
	events := make([]unix.EpollEvent, 512)
	for n > 0 {
		k, err := unix.EpollWait(ep, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for i := range max(k, 0) {
			fd := int(events[i].Fd)
			if got, err := unix.Read(fd, buf); got <= 0 && !errors.Is(err, unix.EAGAIN) {
				_ = unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, fd, nil)
				n--
			}
		}
	}
	runtime.KeepAlive(files)
	return nil
}

func connect(secure bool, port string) (*os.File, error) {
	c, err := net.Dial("tcp4", "127.0.0.1:"+port)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if secure {
		if err := tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake(); err != nil {
			return nil, err
		}
	}
	return c.(*net.TCPConn).File()
}
