package server_test

import (
	"errors"
	"strconv"
	"testing"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// Two clients of one user that reconnect without end, each on a pod of its own,
// take the session from each other ten times a minute and no more; then the
// newcomer is told when to come back, and the one that is in stays in. Others
// are not concerned.
func TestTakeoversAreLimitedOverPods(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	key := user("acme", "ag1", "both")
	var in *clustertest.Client
	for i := range 11 {
		k, err := c.TryDial(c.Pods[i%2], key)
		if err != nil {
			t.Fatalf("login %d: %v", i+1, err)
		}
		if in != nil {
			if end, ok := in.AwaitClose(arrival); !ok || end.Code != 4402 {
				t.Fatalf("login %d: the former socket ended with %+v", i+1, end)
			}
		}
		in = k
	}
	for i := range 6 {
		_, err := c.TryDial(c.Pods[i%2], key)
		var refused *clustertest.Refused
		if !errors.As(err, &refused) || refused.Status != 429 {
			t.Fatalf("takeover 11 on pod %d: %v", i%2, err)
		}
		if n, err := strconv.Atoi(refused.Header.Get("Retry-After")); err != nil || n < 1 || n > 66 {
			t.Errorf("Retry-After %q", refused.Header.Get("Retry-After"))
		}
	}
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("still"))
	wantEvents(t, "the one that is in", in, "still")
	if in.Closed() != nil {
		t.Errorf("it was closed: %+v", in.Closed())
	}
	c.Dial(c.Pods[0], user("acme", "ag1", "another"))
	// A browser is told by a close code.
	browser, err := c.DialURL(c.Pods[0].URL("ws")+"/ws/acme/ag1?x-api-key="+clustertest.APIKey+"&token="+c.Token(key), map[string][]string{"Origin": {c.Pods[0].URL("http")}})
	if err != nil {
		t.Fatal(err)
	}
	if end, ok := browser.AwaitClose(arrival); !ok || end.Code != 4429 {
		t.Errorf("a browser's socket ended with %+v", end)
	}
	for _, p := range c.Pods {
		p.Check()
	}
}
