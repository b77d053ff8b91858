package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// masterName is how the sentinel calls the master it watches.
const masterName = "dws"

// stepKey is written to see that the replica has what was written after it came.
const stepKey = "redistest:step"

// Sentinel is a master and a replica watched by one sentinel.
type Sentinel struct {
	// URL names the sentinel and the master's name, as redisx.Options.URL
	// takes it.
	URL string
	// Servers are master and replica as started; Master says who it is now.
	Servers [2]*Server

	watcher *process
	tb      testing.TB
}

// StartSentinel starts the trio, and returns when the replica is in step and
// the sentinel knows both.
func StartSentinel(tb testing.TB) *Sentinel {
	tb.Helper()
	master := Start(tb, "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
	replica := Start(tb, "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
		"--replicaof", "127.0.0.1 "+strconv.Itoa(master.p.port))
	// The link's status says that the snapshot is there, not that anything follows it: the master keeps what is
	// written until it has seen the process that wrote the snapshot end, up to a second.
	waitFor(tb, "the snapshot to be there", func() bool { return replica.Info("master_link_status") == "up" })
	master.Do("SET", stepKey, "1")
	waitFor(tb, "the replica to be in step", func() bool { return replica.Do("EXISTS", stepKey) == int64(1) })
	master.Do("DEL", stepKey)

	s := &Sentinel{tb: tb, Servers: [2]*Server{master, replica}}
	s.watcher = newProcess(tb)
	conf := filepath.Join(s.watcher.dir, "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor %[1]s 127.0.0.1 %[2]d 1\nsentinel down-after-milliseconds %[1]s 500\n"+
		"sentinel failover-timeout %[1]s 3000\nbind 127.0.0.1\n", masterName, master.p.port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		tb.Fatalf("write the sentinel's configuration: %v", err)
	}
	s.watcher.args = []string{conf, "--sentinel"}
	s.watcher.start()
	s.URL = "redis://" + s.watcher.addr() + "?master_name=" + masterName
	waitFor(tb, "the sentinel to know the replica", func() bool {
		list, _ := s.watcher.must("SENTINEL", "REPLICAS", masterName).([]any)
		return len(list) == 1
	})
	return s
}

// Master is the server that the sentinel calls master now.
func (s *Sentinel) Master() *Server {
	s.tb.Helper()
	pair, _ := s.watcher.must("SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName).([]any)
	for _, server := range s.Servers {
		if len(pair) == 2 && server.Addr == net.JoinHostPort(fmt.Sprint(pair[0]), fmt.Sprint(pair[1])) {
			return server
		}
	}
	s.tb.Fatalf("the sentinel names an unknown master: %v", pair)
	return nil
}

// Failover makes the sentinel promote the replica while the old master still
// lives, and returns when it has: the planned kind, which cuts all clients.
func (s *Sentinel) Failover() {
	s.tb.Helper()
	old := s.Master()
	waitFor(s.tb, "the sentinel to take the order", func() bool {
		_, err := s.watcher.try("SENTINEL", "FAILOVER", masterName)
		return err == nil
	})
	s.awaitPromotion(old)
}

// KillMaster kills the master, and returns when the sentinel has promoted the
// replica: the unplanned kind.
func (s *Sentinel) KillMaster() {
	s.tb.Helper()
	old := s.Master()
	old.Kill()
	s.awaitPromotion(old)
}

func (s *Sentinel) awaitPromotion(old *Server) {
	s.tb.Helper()
	waitFor(s.tb, "the replica to be master", func() bool {
		now := s.Master()
		return now != old && now.Info("role") == "master"
	})
}
