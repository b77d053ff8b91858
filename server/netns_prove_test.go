//go:build prove

package server_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/natsx/natstest"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// link is a worker's way to the cluster: a pair of interfaces, the far one moved
// into the network namespace of its process, where it is eth0. It takes root. Both
// ends go with the namespace, which goes with the process.
type link struct{ name, near, far string }

var links = []link{{"dws-a", "10.213.7.1", "10.213.7.2"}, {"dws-b", "10.213.8.1", "10.213.8.2"}}

// awaitLink is a worker's first command: it waits for its interface.
const awaitLink = `ip link set lo up; until ip -o -4 addr show dev eth0 2>/dev/null | grep -q inet; do sleep 0.05; done; exec "$0" "$@"`

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// lay makes the near end.
func (l link) lay(t *testing.T) {
	t.Helper()
	ip(t, "link", "add", l.name, "type", "veth", "peer", "name", l.name+"-far")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", l.name).Run() }) // it is gone when its namespace is
	ip(t, "addr", "add", l.near+"/30", "dev", l.name)
	ip(t, "link", "set", l.name, "up")
}

// reach gives the far end to a process, with all routes over it.
func (l link) reach(t *testing.T, pid int) {
	t.Helper()
	ip(t, "link", "set", l.name+"-far", "netns", strconv.Itoa(pid), "name", "eth0")
	inside := fmt.Sprintf("ip link set eth0 up && ip addr add %s/30 dev eth0 && ip route add default via %s", l.far, l.near)
	if out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-n", "sh", "-c", inside).CombinedOutput(); err != nil {
		t.Fatalf("set up the namespace of %d: %v: %s", pid, err, out)
	}
}

// Two workers, each in a network namespace of its own, bear one run: what they
// found is one report. Then one of them is killed in the middle: the run says so,
// and the other's part is whole.
func TestProveWorkersInNamespaces(t *testing.T) {
	for _, l := range links {
		l.lay(t)
	}
	l, err := bench.StartLocal(t.Context(), bench.LocalOptions{
		Pods: 2, Host: links[0].near, Gateway: clustertest.Binary(t), NATSServer: natstest.Binary(t), Dir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	o := localFanout(l)
	o.Crew = bench.CrewOptions{Workers: len(links), Name: "namespaces", Lost: 4 * time.Second}
	command := []string{"unshare", "-n", "sh", "-c", awaitLink, clustertest.Bench(t), "worker", "-crew", o.Crew.Name, "-nats", l.NATS}
	s, err := bench.Spawn(len(links), command, append(os.Environ(), "DAISI_BENCH_API_KEY="+l.APIKey, "DAISI_BENCH_TOKEN_KEY="+l.TokenKey))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for i, pid := range s.PIDs() {
		awaitNamespace(t, pid)
		links[i].reach(t, pid)
	}

	r, err := bench.Fanout(context.Background(), o)
	passed(t, r, err)
	if v := r.Oracle; len(r.Workers) != 2 || v.Sessions != proofSessions || v.Met != v.Expected || v.Met == 0 {
		t.Errorf("workers %+v, %d sessions, %d of %d copies", r.Workers, v.Sessions, v.Met, v.Expected)
	}
	for _, w := range r.Workers {
		t.Logf("worker %d: clock off by %v of a round trip of %v", w.PID, w.Offset, w.Way)
	}

	pid := s.PIDs()[1] // the address of the pods is of the other link, and goes with it
	progress, finish := once(delivering, func() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	})
	o.Progress = progress
	r, err = bench.Fanout(context.Background(), o)
	finish()
	show(t, r, err)
	if r.Exit != bench.ExitError || len(r.Errors) != 1 || !strings.Contains(r.Errors[0], "was lost") || r.Oracle.Broken() || r.Oracle.Met == 0 {
		t.Errorf("exit %v, errors %v, breaches %v, %d copies", r.Exit, r.Errors, r.Oracle.Breaches, r.Oracle.Met)
	}
	for _, w := range r.Workers {
		if (w.PID == pid) != (w.Lost != "") {
			t.Errorf("worker %+v, killed was %d", w, pid)
		}
	}
}

// awaitNamespace waits until a process has left ours.
func awaitNamespace(t *testing.T, pid int) {
	t.Helper()
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && theirs != ours {
			return
		}
	}
	t.Fatalf("process %d stays in our network namespace: unshare -n takes root", pid)
}
