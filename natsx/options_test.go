package natsx

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestOptionsFailure(t *testing.T) {
	f := func(says string, o Options) {
		t.Helper()
		_, err := New(o)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: got %v; want an error about %q", o, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "s3c") {
			t.Errorf("the error shows the password: %s", err)
		}
	}
	f("stream name", Options{Stream: "a.b"})
	f("stream name", Options{EventsStream: "a b"})
	f("stream name", Options{EventsStream: "a\x00"})
	f("must differ", Options{EventsStream: "x", Stream: "x"})
	f("partitions", Options{Partitions: -1})
	f("partitions", Options{Partitions: 5000})
	f("replicas", Options{Replicas: 6})
	f("max age", Options{MaxAge: time.Second})
	f("max bytes", Options{MaxBytes: 1})
	f("max event", Options{MaxEvent: -1})
	f(`unknown "cred"`, Options{URL: "nats://u:s3cret@h?cred=x"})
	f("query", Options{URL: "nats://u:s3cret@h?%zz"})
	// Passwords whose odd characters nobody escaped.
	for _, odd := range []string{"s3cret%re", "s3c ret", "1#s3cret", "1/s3cret", "1?s3cret", "s3cret\x01"} {
		f("of the NATS URL can't be parsed", Options{URL: "nats://h0:1,nats://u:" + odd + "@h:1"})
	}
	f("of the NATS URL can't be parsed", Options{URL: "s3cret@h:bad"})
	f("go together", Options{URL: "nats://u:s3cret@h?cert=x"})
	f("nkey", Options{URL: "nats://u:s3cret@h?nkey=/does/not/exist"})
}

func TestOptionsDefaults(t *testing.T) {
	o, err := Options{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if o.Stream != "wa_stream" || o.EventsStream != "dws_events" || o.Partitions != 64 || o.MaxEvent != 1<<20 ||
		o.MaxAge != 6*time.Minute || o.MaxBytes != 1<<30 || o.URL != nats.DefaultURL || o.Metrics == nil {
		t.Fatalf("unexpected defaults %+v", o)
	}
	servers, opts, err := Options{URL: "tls://a:1,tls://b:2?creds=/c&ca=/a&cert=/x&key=/y", InboxPrefix: "_I"}.dialOptions()
	if err != nil || servers != "tls://a:1,tls://b:2" {
		t.Fatalf("got %q, %v", servers, err)
	}
	if len(opts) < 12 {
		t.Fatalf("only %d options", len(opts))
	}
}
