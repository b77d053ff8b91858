package server_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// resumedAgents are those of who resumes at once: live sessions of the same
// agents, and so of the same partitions, are who might starve.
const resumedAgents = 10

// starving is a p99 of live events that replays must not cause. Measured on two
// cores, both busy with the replays, is a quarter of it, which is more than I2
// gives an attack.
const starving = 100 * time.Millisecond

// Many sessions come back at once, and each is owed a long history of its agent:
// they get all of it, and live sessions of the same agents notice little.
func TestProveResumesBesideLiveSessions(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Processes: true, Env: func(int) []string {
		return []string{"DWS_RESUME_MAX_EVENTS=10000", "DWS_RESUME_MAX_BYTES=16MiB"}
	}})
	history(t, c)
	k := newCrowd(t, c, proofCrowd, resumedAgents)
	k.measure(t, 100, proofMeasure)
	stream, _ := place(c.Dial(c.Pods[0], user("acme", "nobody", "u"), "resume="))
	var quiet, attack []measured
	for range proofPairs {
		quiet = append(quiet, k.measure(t, 100, proofMeasure))
		var wg sync.WaitGroup
		var out stormed
		wg.Go(func() {
			out = resumeStorm(t, c, stream)
		})
		attack = append(attack, k.measure(t, 100, proofMeasure))
		wg.Wait()
		t.Logf("%d resumes: ready after %.2f s, %d old events after %.2f s; refused %v; others: %v before, %v meanwhile",
			out.Accepted, out.Seconds, out.Old, out.Replayed, out.Refused, quiet[len(quiet)-1], attack[len(attack)-1])
		if out.Accepted != proofResumes || out.Old != proofResumes*proofHistory {
			t.Errorf("%d of %d came back, and got %d old events, want %d each", out.Accepted, proofResumes, out.Old, proofHistory)
		}
	}
	base, under, limit := slowed(quiet, attack)
	t.Logf("%d resumes at once: p99 %v without, %v with it (medians of %d pairs; by I2's measure it would be %v)", proofResumes, base, under, proofPairs, limit)
	if under > starving && !shortForm || under > 2*time.Second {
		t.Errorf("live sessions starve beside %d resumes: p99 %v", proofResumes, under)
	}
	k.stays(t)
	if n := c.Pods[0].Metrics()[`dws_resumes_total{result="gap"}`]; n != 0 {
		t.Errorf("%v resumes were answered by a gap", n)
	}
	c.Pods[0].Check()
}

// history stores what is owed to those who resume: events of 1 KB.
func history(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	p := c.NATS.Publisher(t)
	pad := strings.Repeat("x", 1000)
	for n := range proofHistory {
		for a := range resumedAgents {
			p.Send(clustertest.Subject("acme", fmt.Sprint("crowd", a), "chats", ""), fmt.Appendf(nil, `{"old":%d,"pad":%q}`, n, pad))
		}
	}
	p.Flush()
}

// resumeStorm has all of them log in at the same instant.
func resumeStorm(t *testing.T, c *clustertest.Cluster, stream string) stormed {
	return storm(t, c, proofResumes, 1e6, "-storm-stream", stream, "-storm-agents", fmt.Sprint(resumedAgents), "-storm-owed", fmt.Sprint(proofHistory))
}
