package server_test

import (
	"net"
	"net/http"
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
