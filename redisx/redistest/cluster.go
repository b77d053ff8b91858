package redistest

import (
	"strconv"
	"strings"
	"testing"
)

// slots is how many hash slots a Redis cluster has.
const slots = 16384

// Cluster is a Redis cluster of masters without replicas.
type Cluster struct {
	// URL names all nodes, as redisx.Options.URL takes it.
	URL string
	// Nodes are the masters; node i serves the i-th of n equal slot ranges.
	Nodes []*Server

	tb testing.TB
}

// StartCluster starts n masters that share the slots evenly, and returns when
// each of them says the cluster is whole.
func StartCluster(tb testing.TB, n int) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb}
	for range n {
		bus := strconv.Itoa(FreePort(tb))
		c.Nodes = append(c.Nodes, Start(tb, "--cluster-enabled", "yes", "--cluster-port", bus,
			"--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"))
	}
	for i, node := range c.Nodes {
		from, to := i*slots/n, (i+1)*slots/n-1
		node.Do("CLUSTER", "ADDSLOTSRANGE", from, to)
		node.Do("CLUSTER", "SET-CONFIG-EPOCH", i+1)
		if i > 0 {
			first := c.Nodes[0]
			node.Do("CLUSTER", "MEET", "127.0.0.1", first.p.port, busPort(first))
		}
	}
	waitFor(tb, "the cluster to be whole", func() bool {
		for _, node := range c.Nodes {
			info := node.Do("CLUSTER", "INFO")
			if field(info, "cluster_state") != "ok" || field(info, "cluster_slots_ok") != strconv.Itoa(slots) ||
				field(info, "cluster_known_nodes") != strconv.Itoa(n) {
				return false
			}
		}
		return true
	})
	c.URL = "redis://" + c.Nodes[0].Addr + "?cluster=true"
	for _, node := range c.Nodes[1:] {
		c.URL += "&addr=" + node.Addr
	}
	return c
}

// ID is a node's name within the cluster, for CLUSTER SETSLOT.
func (c *Cluster) ID(node *Server) string {
	c.tb.Helper()
	id, _ := node.Do("CLUSTER", "MYID").(string)
	return id
}

// Owner is the node that serves the slot of key.
func (c *Cluster) Owner(key string) *Server {
	c.tb.Helper()
	slot, _ := c.Nodes[0].Do("CLUSTER", "KEYSLOT", key).(int64)
	for _, node := range c.Nodes {
		ranges, _ := node.Do("CLUSTER", "NODES").(string)
		for line := range lines(ranges) {
			if strings.Contains(line, "myself") && serves(line, int(slot)) {
				return node
			}
		}
	}
	c.tb.Fatalf("no node serves slot %d of %q", slot, key)
	return nil
}

// BeginMove opens the slot of key for migration to another node, as a
// resharding does: from here on keys are on either side (ASK, TRYAGAIN).
func (c *Cluster) BeginMove(key string, to *Server) {
	c.tb.Helper()
	from := c.Owner(key)
	slot := from.Do("CLUSTER", "KEYSLOT", key)
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", c.ID(from))
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", c.ID(to))
}

// MoveKeys moves up to limit keys of key's slot, between BeginMove and EndMove,
// and says how many it moved.
func (c *Cluster) MoveKeys(key string, from, to *Server, limit int) int {
	c.tb.Helper()
	slot := from.Do("CLUSTER", "KEYSLOT", key)
	keys, _ := from.Do("CLUSTER", "GETKEYSINSLOT", slot, limit).([]any)
	if len(keys) == 0 {
		return 0
	}
	args := []any{"MIGRATE", "127.0.0.1", to.p.port, "", 0, 5000, "KEYS"}
	from.Do(append(args, keys...)...)
	return len(keys)
}

// EndMove gives the slot of key to its new node.
func (c *Cluster) EndMove(key string, to *Server) {
	c.tb.Helper()
	slot := to.Do("CLUSTER", "KEYSLOT", key)
	id := c.ID(to)
	to.Do("CLUSTER", "SETSLOT", slot, "NODE", id)
	for _, node := range c.Nodes {
		node.Do("CLUSTER", "SETSLOT", slot, "NODE", id)
	}
}

// busPort reads the cluster bus port a node was started with.
func busPort(s *Server) string {
	for i, arg := range s.p.args {
		if arg == "--cluster-port" {
			return s.p.args[i+1]
		}
	}
	return ""
}

// serves reads the slot ranges of one line of CLUSTER NODES.
func serves(line string, slot int) bool {
	fields := strings.Fields(line)
	for _, r := range fields[min(8, len(fields)):] {
		lo, hi, ok := strings.Cut(r, "-")
		if !ok {
			hi = lo
		}
		from, err1 := strconv.Atoi(lo)
		to, err2 := strconv.Atoi(hi)
		if err1 == nil && err2 == nil && from <= slot && slot <= to {
			return true
		}
	}
	return false
}
