package bench

import "testing"

func TestRedacted(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if got := Redacted(text); got != want {
			t.Errorf("%s became %s, want %s", text, got, want)
		}
	}
	f("nats://u:p@h:4222", "nats://xxxxx@h:4222")
	f("nats://token@h", "nats://xxxxx@h")
	f("nats://u:p@h1,nats://u:p@q@h2/x", "nats://xxxxx@h1,nats://xxxxx@h2/x")
	f(`{"nats":"tls://u:p@h","mail":"a@b"}`, `{"nats":"tls://xxxxx@h","mail":"a@b"}`)
	f("http://h:9090/a@b is fine", "http://h:9090/a@b is fine")
	f("dial nats://u:p@h: refused", "dial nats://xxxxx@h: refused")
}
