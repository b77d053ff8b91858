package server_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// The public port takes all the descriptors it may: metrics and health still
// answer, those who are in stay, and others come in again when there is room.
func TestProveFileLimit(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Processes: true, Before: "ulimit -n 300"})
	k := newCrowd(t, c, 20, 2)
	var all []net.Conn
	for range 500 {
		nc, err := net.Dial("tcp", c.Pods[0].Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		all = append(all, nc)
	}
	c.Eventually(10*time.Second, "connections are refused", func() bool { return c.Pods[0].Metrics()[`dws_admission_refused_total{gate="files"}`] > 0 })
	for _, path := range []string{"/metrics", "/livez", "/admin/pods"} {
		if a, err := c.Do("GET", c.Pods[0].InternalURL()+path, "", "X-API-Key: "+clustertest.AdminKey); err != nil || a.Status != http.StatusOK {
			t.Errorf("%s: %d %v", path, a.Status, err)
		}
	}
	m := c.Pods[0].Metrics()
	t.Logf("%.0f of %.0f descriptors open, %.0f connections refused", m["process_open_fds"], m["process_max_fds"], m[`dws_admission_refused_total{gate="files"}`])
	k.measure(t, 50, 300*time.Millisecond)
	for _, nc := range all {
		_ = nc.Close()
	}
	c.Eventually(20*time.Second, "there is room again", func() bool { return c.Pods[0].Metrics()["dws_pending_connections"] == 0 })
	c.Dial(c.Pods[0], user("acme", "late", "u")).Close()
	k.stays(t)
}

// memoryGroup makes a group of so much memory, of whichever version this
// machine has; "" where it may make none.
func memoryGroup(t *testing.T, limit int) (dir string) {
	t.Helper()
	self, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(self)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		kinds, path, _ := strings.Cut(rest, ":")
		file := ""
		switch {
		case kinds == "memory":
			dir, file = filepath.Join("/sys/fs/cgroup/memory", path), "memory.limit_in_bytes"
		case id == "0":
			dir, file = filepath.Join("/sys/fs/cgroup", path), "memory.max"
		default:
			continue
		}
		dir = filepath.Join(dir, fmt.Sprintf("daisi-ws-test-%d", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0o600) != nil {
			_ = os.Remove(dir)
			continue
		}
		t.Cleanup(func() { c := dir; _ = os.Remove(c) })
		return dir
	}
	return ""
}

func groupNumber(dir string, names ...string) string {
	for _, name := range names {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return strings.Join(strings.Fields(string(b)), " ")
		}
	}
	return "?"
}

// A pod in a group of 512 MiB with a flood of everything: sessions that read
// nothing, connections with headers that never end, logins without end. Nobody
// is killed, and those who are in and behave stay. Where no group can be made,
// Go's own limit stands for it, and the process may not grow beyond 512 MiB.
func TestProveMemoryLimit(t *testing.T) {
	const limit = 512 << 20
	dir := memoryGroup(t, limit)
	o := clustertest.Options{Processes: true}
	if dir != "" {
		o.Before = "echo $$ > " + filepath.Join(dir, "cgroup.procs")
	} else {
		o.Env = func(int) []string { return []string{"GOMEMLIMIT=" + strconv.Itoa(limit*9/10)} }
	}
	c := clustertest.Start(t, o)
	pid := c.Pods[0].PID()
	k := newCrowd(t, c, proofGroup, proofGroup/10)
	k.measure(t, 100, proofMeasure)

	var stuck []*prankster
	for i := range proofStuck {
		stuck = append(stuck, intrude(t, c, fmt.Sprintf("stuck%d", i)))
	}
	h := openHalves(t, c, stage{name: "big headers", open: func(_ *clustertest.Cluster, nc net.Conn, _ int) error {
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: x\r\nX-Big: "+strings.Repeat("x", 15<<10)) // may be refused by now
		return nil
	}})
	conn := c.NATS.Conn(t)
	defer conn.Close()
	b := []byte(`{"pad":"` + strings.Repeat("x", 60<<10) + `"}`)
	for range 100 {
		for i := range proofStuck {
			_ = conn.Publish(clustertest.Subject("acme", fmt.Sprintf("stuck%d", i), "chats", ""), b)
		}
		_ = conn.Flush()
	}
	for i := range proofFlood {
		if nc, err := net.Dial("tcp", c.Pods[0].Addr()); err == nil {
			_, _ = nc.Write(upgradeRequest(c, "flood", fmt.Sprintf("f%d", i)))
			defer nc.Close()
		}
	}
	k.measure(t, 100, proofMeasure)
	m := c.Pods[0].Metrics()
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	t.Logf("group %q: peak %s, oom %s; process %s; memory refused %.0f, pressure %.0f, slow %.0f, evicted %.0f", dir,
		groupNumber(dir, "memory.max_usage_in_bytes", "memory.peak"), groupNumber(dir, "memory.oom_control", "memory.events"),
		field(string(status), "VmHWM"), m[`dws_admission_refused_total{gate="memory"}`], m["dws_memory_pressure"],
		m[`dws_session_ends_total{reason="slow"}`], m["dws_connections_evicted_total"])
	if c.Pods[0].PID() != pid || len(status) == 0 {
		t.Fatal("the process was killed")
	}
	if kb, _ := strconv.Atoi(strings.Fields(field(string(status), "VmHWM"))[0]); kb > limit>>10 {
		t.Errorf("%d KiB at most", kb)
	}
	for _, p := range stuck {
		_ = p.nc.Close()
	}
	h.drop()
	k.measure(t, 100, proofMeasure)
	k.stays(t)
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
