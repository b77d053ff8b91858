package loop

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const benchFrame = 260 // bytes on the wire

// far starts the far end of n sockets in another process and gives each to f
// when it is accepted.
func far(b testing.TB, n int, how string, f func(*net.TCPConn)) {
	b.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	cmd := exec.Command(os.Args[0], "drain-"+how, strconv.Itoa(ln.Addr().(*net.TCPAddr).Port), strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range n {
		c, err := ln.AcceptTCP()
		if err != nil {
			b.Fatal(err)
		}
		f(c)
	}
}

// cpu is what this process used so far.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perFrame reports CPU and wall time of frames delivered since start.
func perFrame(b *testing.B, frames int, start time.Duration) {
	b.ReportMetric(float64(cpu()-start)/float64(frames), "cpu-ns/frame")
	b.ReportMetric(float64(b.Elapsed())/float64(frames), "ns/frame")
}

// BenchmarkFloor is what the kernel asks: one bare send() of a frame, or of ten
// joined, on each socket in turn, by one thread.
func BenchmarkFloor(b *testing.B) {
	for _, joined := range []int{1, 10} {
		b.Run(fmt.Sprintf("joined=%d", joined), func(b *testing.B) {
			const sockets = 1000
			var fds []int
			var files []*os.File
			far(b, sockets, "plain", func(c *net.TCPConn) {
				f, err := c.File()
				if err != nil {
					b.Fatal(err)
				}
				_ = c.Close()
				files = append(files, f)
				fds = append(fds, int(f.Fd()))
			})
			defer func() {
				for _, f := range files {
					_ = f.Close()
				}
			}()
			buf := bytes.Repeat([]byte{'x'}, benchFrame*joined)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			b.ResetTimer()
			start := cpu()
			for range b.N {
				for _, fd := range fds {
					if _, err := syscall.Write(fd, buf); err != nil {
						b.Fatal(err)
					}
				}
			}
			perFrame(b, b.N*sockets*joined, start)
		})
	}
}

// BenchmarkFanout queues each event on all sockets and waits until the kernel
// has all of them.
func BenchmarkFanout(b *testing.B) {
	for _, secure := range []bool{false, true} {
		for _, burst := range []int{1, 10} {
			b.Run(fmt.Sprintf("tls=%v/burst=%d", secure, burst), func(b *testing.B) {
				benchFanout(b, secure, burst)
			})
		}
	}
}

func benchFanout(b *testing.B, secure bool, burst int) {
	const sockets = 1000
	e := startEngine(b, Options{})
	conns := adoptFar(b, e, sockets, secure)
	payload := bytes.Repeat([]byte{'x'}, benchFrame-4)
	var frames []*Frame
	for range burst {
		frames = append(frames, NewEvent(payload, time.Now().UnixNano(), 0))
	}
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	for i := range b.N {
		for _, f := range frames {
			for _, c := range conns {
				if err := c.Queue(f); err != nil {
					b.Fatal(err)
				}
			}
		}
		awaitWritten(e, uint64((i+1)*sockets*burst))
	}
	perFrame(b, b.N*sockets*burst, start)
	b.StopTimer()
	joined, writes := flushes(e)
	b.ReportMetric(float64(joined)/float64(writes), "frames/write")
}

// awaitWritten sleeps so that waiting costs no CPU of the measured process.
func awaitWritten(e *Engine, want uint64) {
	for {
		if _, written, _, _ := e.Ledger(); written >= want {
			return
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// adoptFar adopts n sockets whose far ends drain them in another process;
// records are not opened there.
func adoptFar(b testing.TB, e *Engine, n int, secure bool) []*Conn {
	b.Helper()
	how := "plain"
	server, _ := tlsConfigs(b)
	if secure {
		how = "tls"
	}
	var conns []*Conn
	far(b, n, how, func(tcp *net.TCPConn) {
		var nc net.Conn = tcp
		if secure {
			t := tls.Server(newWire(tcp, time.Time{}, nil), server)
			if err := t.Handshake(); err != nil {
				b.Fatal(err)
			}
			nc = t
		}
		c := e.NewConn(quietHandler{})
		if err := e.Adopt(c, nc, nil, nil); err != nil {
			b.Fatal(err)
		}
		conns = append(conns, c)
	})
	return conns
}

// BenchmarkRoundTrip sends a message and waits for its echo: poller, handler,
// worker, and a blocking client in the same process.
func BenchmarkRoundTrip(b *testing.B) {
	for _, secure := range []bool{false, true} {
		b.Run(fmt.Sprintf("tls=%v", secure), func(b *testing.B) {
			h := startHouse(b, houseOptions{tls: secure})
			p := h.raw(b, nil)
			h.next(b)
			_ = p.SetDeadline(time.Time{})
			frame := masked(0x81, "there and back")
			answer := make([]byte, 2+len("there and back"))
			b.ReportAllocs()
			for b.Loop() {
				p.send(b, frame)
				if _, err := io.ReadFull(p.br, answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLogin accepts, upgrades and adopts, and dials, in one process.
func BenchmarkLogin(b *testing.B) {
	for _, secure := range []bool{false, true} {
		b.Run(fmt.Sprintf("tls=%v", secure), func(b *testing.B) {
			h := startHouse(b, houseOptions{tls: secure})
			e := startEngine(b, Options{Client: true})
			<-e.started
			b.ReportAllocs()
			start := cpu()
			for b.Loop() {
				far := h.dial(b, e, quietHandler{})
				h.next(b)
				far.Close(1000, "")
			}
			b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/login")
		})
	}
}
