package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// group is a real group of processes whose memory the kernel limits.
type group struct{ dir string }

// newGroup makes one below the group that this test is in, of whichever
// version this machine has. The kernel's memory for sockets counts in it.
func newGroup(t *testing.T, limit int) group {
	t.Helper()
	self, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(self)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		kinds, path, _ := strings.Cut(rest, ":")
		var root string
		var files []string
		switch {
		case kinds == "memory":
			root, files = "/sys/fs/cgroup/memory", []string{"memory.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"}
		case id == "0":
			root, files = "/sys/fs/cgroup", []string{"memory.max"}
		default:
			continue
		}
		g := group{filepath.Join(root, path, fmt.Sprintf("daisi-ws-test-%d-%d", os.Getpid(), time.Now().UnixNano()))}
		if os.Mkdir(g.dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			for range 100 { // it can go when its last process is gone
				if os.Remove(g.dir) == nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			t.Errorf("%s is left", g.dir)
		})
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.Itoa(limit)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return g
	}
	t.Fatal("no memory group can be made here: this needs root, and a memory controller at /sys/fs/cgroup")
	return group{}
}

// enter is what a shell does to be in the group.
func (g group) enter() string { return "echo $$ > " + filepath.Join(g.dir, "cgroup.procs") }

// enterBlind is enter for a pod that does not see its group.
func (g group) enterBlind() string {
	return g.enter() + `; exec unshare -m sh -c 'mount -t tmpfs none /sys/fs/cgroup && exec "$0"' "$0"`
}

// number is the first of files that is there, or a field of it.
func (g group) number(field string, files ...string) int {
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join(g.dir, file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
			if !ok {
				name, value = "", name
			}
			if n, err := strconv.Atoi(value); name == field && err == nil {
				return n
			}
		}
	}
	return -1
}

func (g group) kills() int { return g.number("oom_kill", "memory.events", "memory.oom_control") }

func (g group) isKilled(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	c.Eventually(30*time.Second, "the kernel kills it", func() bool { return g.kills() > 0 })
	t.Logf("peak %d MiB, killed %d", g.peak()>>20, g.kills())
}

func (g group) peak() int { return g.number("", "memory.peak", "memory.max_usage_in_bytes") }

// hogs are sessions of an agent each that read nothing; together they are owed
// more than the group may hold, and none of them more than its budget.
func hogs(t *testing.T, c *clustertest.Cluster, n int) {
	t.Helper()
	work := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range work {
				if err := hog(t, c, i); err != nil {
					t.Errorf("hog %d: %v", i, err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
}

func hog(t *testing.T, c *clustertest.Cluster, i int) error {
	nc, err := net.Dial("tcp", c.Pods[0].Addr())
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.(*net.TCPConn).SetReadBuffer(16 << 10) // the client's kernel is not what is measured
	if _, err := nc.Write(upgradeRequest(c, fmt.Sprintf("hog%d", i), "u")); err != nil {
		return err
	}
	_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	answer, err := http.ReadResponse(bufio.NewReaderSize(nc, 512), nil)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("login: %s", answer.Status)
	}
	return nil
}

// overfeed publishes for the hogs until each is owed hogShare, or until stop says
// so: some 100 MB a second. What comes at once the gate can't see coming.
func overfeed(t *testing.T, conn *nats.Conn, stop func() bool) {
	t.Helper()
	const piece, hogShare = 60 << 10, 960 << 10
	body := []byte(`{"pad":"` + strings.Repeat("x", piece) + `"}`)
	for range hogShare / piece {
		for i := range proofHogs {
			if err := conn.Publish(clustertest.Subject("acme", fmt.Sprintf("hog%d", i), "chats", ""), body); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		if stop() {
			return
		}
		time.Sleep(time.Duration(proofHogs*piece) * 10 * time.Nanosecond)
	}
}

// A pod in a real group of 512 MiB, 10,000 sessions in it, and a flood of
// everything: sessions that read nothing and are owed more than the group holds,
// connections with headers that never end, logins without end. The kernel kills
// nobody, the gate refuses while it must, those who hold the most are ended, and
// those who behave stay and get everything.
func TestProveMemoryLimit(t *testing.T) { // not beside others: a small group fills faster than a pod that gets no processor can see
	g := newGroup(t, proofGroupMiB<<20)
	c := clustertest.Start(t, clustertest.Options{Processes: true, Before: g.enter()})
	pid := c.Pods[0].PID()
	k := newCrowd(t, c, proofGroup, proofGroup/10)
	k.measure(t, 100, proofMeasure)
	before := g.number("", "memory.current", "memory.usage_in_bytes")

	hogs(t, c, proofHogs)
	conn := c.NATS.Conn(t)
	defer conn.Close()
	done := make(chan struct{})
	var flood sync.WaitGroup
	flood.Go(func() { logins(c, done) })
	flood.Go(func() { bigHeaders(c, done) })
	overfeed(t, conn, func() bool { return false })
	k.measure(t, 100, proofMeasure)
	close(done)
	flood.Wait()

	m := c.Pods[0].Metrics()
	refused, shed := m[`dws_admission_refused_total{gate="memory"}`], m["dws_sessions_shed_total"]
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	t.Logf("group of %d MiB: %d sessions in %d MiB, peak %d MiB, killed %d; process at most %s; refused for memory %.0f, ended for memory %.0f, slow %.0f, evicted %.0f",
		proofGroupMiB, proofGroup, before>>20, g.peak()>>20, g.kills(), field(string(status), "VmHWM"), refused, shed,
		m[`dws_session_ends_total{reason="slow"}`], m["dws_connections_evicted_total"])
	if g.kills() != 0 || len(status) == 0 {
		t.Fatalf("the kernel killed %d processes of the group", g.kills())
	}
	if refused == 0 || shed == 0 {
		t.Error("the gate was not needed: this was no flood")
	}
	c.Eventually(30*time.Second, "it is through", func() bool { return c.Pods[0].Metrics()["dws_memory_pressure"] < 850 })
	k.measure(t, 100, proofMeasure)
	c.Dial(c.Pods[0], user("acme", "late", "u")).Close()
	k.stays(t)
	c.Pods[0].Check()
}

// What the gate is worth: a pod that does not see its group, in the same flood,
// is killed.
func TestProveMemoryLimitControl(t *testing.T) { // not beside others: a small group fills faster than a pod that gets no processor can see
	g := newGroup(t, proofGroupMiB<<20)
	c := clustertest.Start(t, clustertest.Options{Processes: true, Before: g.enterBlind()})
	hogs(t, c, proofHogs)
	conn := c.NATS.Conn(t)
	defer conn.Close()
	overfeed(t, conn, func() bool { return g.kills() > 0 })
	g.isKilled(t, c)
}

// held are the newest of an attacker's connections: this process has descriptors
// for so many beside its other sessions.
type held []net.Conn

func (h *held) add(nc net.Conn) {
	if len(*h) == proofFlood { // the oldest goes
		_ = (*h)[0].Close()
		*h = (*h)[1:]
	}
	*h = append(*h, nc)
}

func (h *held) close() {
	for _, nc := range *h {
		_ = nc.Close()
	}
}

// logins come until done, and stay where they are let in.
func logins(c *clustertest.Cluster, done <-chan struct{}) {
	var all held
	defer all.close()
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		case <-pace.C:
		}
		if nc, err := net.Dial("tcp", c.Pods[0].Addr()); err == nil {
			_, _ = nc.Write(upgradeRequest(c, "flood", fmt.Sprintf("f%d", i)))
			all.add(nc)
		}
	}
}

// bigHeaders come until done, and never end.
func bigHeaders(c *clustertest.Cluster, done <-chan struct{}) {
	request := "GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + strings.Repeat("x", 15<<10)
	var all held
	defer all.close()
	for i := range proofHalfOpen {
		d := net.Dialer{LocalAddr: source(i), Timeout: 10 * time.Second}
		if nc, err := d.Dial("tcp", c.Pods[0].Addr()); err == nil {
			_, _ = io.WriteString(nc, request) // may be refused by now
			all.add(nc)
		}
	}
	<-done
}

// field is one of /proc/PID/status.
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "0"
}
