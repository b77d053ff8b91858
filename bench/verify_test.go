package bench

import (
	"testing"
	"time"
)

func verifying(g *gate) VerifyOptions {
	f := small(g)
	f.Rate, f.Duration = 300, 300*time.Millisecond
	return VerifyOptions{FanoutOptions: f}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	r, err := Verify(t.Context(), verifying(newGate(t, 2, wrongNothing)))
	if err != nil || len(broken(r)) > 0 || len(r.Errors) > 0 || len(r.Parts) != 6 {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	for i, name := range []string{"fanout", "takeover", "burst", "churn", "storm", "slow"} {
		if r.Parts[i].Scenario != name || r.Parts[i].Oracle.Sessions == 0 {
			t.Errorf("part %d is %q", i, r.Parts[i].Scenario)
		}
	}
	if _, ok := r.Figure("storm.storm_logins"); !ok || r.Latencies["fanout.delivery"].Count == 0 {
		t.Errorf("figures of parts are missing:\n%s", tableOf(r))
	}
}

// A promise broken in any part breaks the whole, and the rest still runs.
func TestVerifyFindsFaults(t *testing.T) {
	t.Parallel()
	r, err := Verify(t.Context(), verifying(newGate(t, 2, wrongRepeat)))
	if err != nil || r.Exit != ExitBroken || r.Parts[0].Exit != ExitBroken || broken(r)["repeated"] != 1 || len(r.Parts) != 6 || len(r.Oracle.Findings) != 1 {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
}

func TestVerifyFailure(t *testing.T) {
	t.Parallel()
	o := VerifyOptions{}
	o.Addrs = []string{"nowhere"}
	if _, err := Verify(t.Context(), o); err == nil {
		t.Error("verified nowhere")
	}
	o.Addrs, o.TokenKey, o.NATS = []string{"127.0.0.1:1"}, gateKey, "nats://127.0.0.1:1"
	if r, err := Verify(t.Context(), o); err != nil || r.Exit != ExitError || len(r.Errors) < 6 {
		t.Errorf("without a cluster: %+v, error %v", r, err)
	}
}
