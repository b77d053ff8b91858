package rpc

import (
	"bytes"
	"strings"
	"testing"

	"github.com/daisi/daisi-ws/session"
)

func TestSeriesFollowTheLiveList(t *testing.T) {
	s := newService(t, testOptions("a@1", &testSink{}))
	series := func() (all string, ofPeers int) {
		var b bytes.Buffer
		s.opts.Metrics.WritePrometheus(&b)
		return b.String(), strings.Count(b.String(), "{peer=")
	}
	before := len(s.opts.Metrics.ListMetricNames())
	s.SetPeers([]session.Pod{{Owner: "dws-1@x", Addr: "h:1"}, {Owner: "dws-2@y", Addr: "h:2"}})
	all, n := series()
	if n != 2*len(peerGauges) {
		t.Errorf("%d series for 2 peers:\n%s", n, all)
	}
	for _, want := range []string{`dws_forward_queue_bytes{peer="dws-1"} 0`, `dws_forward_breaker_state{peer="dws-2"} 0`, `dws_forward_stream_open{peer="dws-2"} 0`} {
		if !strings.Contains(all, want+"\n") {
			t.Errorf("no %s in\n%s", want, all)
		}
	}
	// A restart seen as two owners of one pod for a while is no new series.
	s.SetPeers([]session.Pod{{Owner: "dws-1@x", Addr: "h:1"}, {Owner: "dws-1@z", Addr: "h:1"}})
	if all, n = series(); n != len(peerGauges) {
		t.Errorf("%d series for 1 pod:\n%s", n, all)
	}
	s.SetPeers(nil)
	if after := len(s.opts.Metrics.ListMetricNames()); after != before {
		t.Errorf("%d series are left of %d", after, before)
	}
	// Whatever a pod calls itself is a label value.
	s.SetPeers([]session.Pod{{Owner: "a\"b\\\n{}é@1", Addr: "h:1"}, {Owner: session.Owner(strings.Repeat("x", 500)), Addr: "h:1"}})
	if all, n = series(); n != 2*len(peerGauges) {
		t.Errorf("%d series:\n%s", n, all)
	}
}
