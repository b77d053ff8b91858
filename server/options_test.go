package server

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestOptionsDefaults(t *testing.T) {
	o, err := testOptions().withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if o.NATS.Partitions != 64 || o.Ping.Timeout != 90*time.Second || o.Limits.MaxMessage != 32<<10 || o.Resume.Window != 5*time.Minute ||
		o.Auth.Refuse != RefuseAuto || o.Session.Conflict != ConflictTakeover || !strings.HasSuffix(o.PodAddr, ":50051") || o.Metrics == nil {
		t.Fatalf("defaults %+v", o)
	}
	again, err := o.withDefaults()
	if err != nil || !reflect.DeepEqual(fmt.Sprint(o.Masked()), fmt.Sprint(again.Masked())) {
		t.Fatalf("defaults of defaults differ, %v", err)
	}
}

func TestOptionsFailure(t *testing.T) {
	f := func(want string, change func(*Options)) {
		t.Helper()
		o := testOptions()
		change(&o)
		if _, err := o.withDefaults(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	f("Redis.URL", func(o *Options) { o.Redis.URL = "" })
	f("NATS.URL", func(o *Options) { o.NATS.URL = "" })
	f("Auth.APIKey", func(o *Options) { o.Auth.APIKey = "" })
	f("Auth.TokenKeys", func(o *Options) { o.Auth.TokenKeys = "" })
	f("PodID", func(o *Options) { o.PodID = "a@b" })
	f("RequireExternal", func(o *Options) { o.RequireExternal, o.Embedded.On = true, true })
	f("TLS.CertFile", func(o *Options) { o.TLS.KeyFile = "x" })
	f("RPC.CertFile", func(o *Options) { o.RPC.CAFile = "x" })
	f("RPC.Insecure", func(o *Options) { o.RPC.Insecure, o.RPC.CertFile, o.RPC.KeyFile, o.RPC.CAFile = true, "x", "x", "x" })
	f("Auth.Refuse", func(o *Options) { o.Auth.Refuse = "never" })
	f("Auth.TokenCache", func(o *Options) { o.Auth.TokenCache = "disk" })
	f("Session.Conflict", func(o *Options) { o.Session.Conflict = "both" })
	f("Session.TTL", func(o *Options) { o.Session.TTL = 199 * time.Second })
	f("Session.LeaseTTL", func(o *Options) { o.Session.LeaseTTL = time.Second })
	f("Drain.Timeout", func(o *Options) { o.Drain.Timeout = time.Second - 1 })
	f("Ping.Timeout", func(o *Options) { o.Ping.Timeout = time.Second })
	f("NATS.Partitions", func(o *Options) { o.NATS.Partitions = -1 })
	f("Limits.MaxMessage", func(o *Options) { o.Limits.MaxMessage = 1 })
	f("Limits.MaxEvent", func(o *Options) { o.Limits.MaxEvent = 1 << 30 })
	f("Limits.MaxSessions", func(o *Options) { o.Limits.MaxSessions = -1 })
	f("HTTP.Origins", func(o *Options) { o.HTTP.Origins = []string{"example.com"} })
	f("HTTP.TrustedProxies", func(o *Options) { o.HTTP.TrustedProxies = []string{"10.0.0.0/99"} })
}

// Every field that is a secret is masked, those of later days too.
func TestMaskHidesSecrets(t *testing.T) {
	const secret = "s3cr3t"
	o := testOptions()
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		for i := range v.NumField() {
			name, field := v.Type().Field(i).Name, v.Field(i)
			switch {
			case v.Type().Field(i).Tag.Get("mask") == "-":
			case field.Kind() == reflect.Struct:
				fill(field)
			case field.Kind() != reflect.String || strings.HasSuffix(name, "File") || name == "TokenCache":
			case name == "URL":
				field.SetString("redis://user:" + secret + "@host:1/0?password=" + secret + "&addr=b:2")
			case strings.Contains(name, "Key") || strings.Contains(name, "Seed") || strings.Contains(name, "Secret"):
				field.SetString(secret)
			}
		}
	}
	fill(reflect.ValueOf(&o).Elem())
	m, err := o.Masked()
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprint(m)
	if strings.Contains(all, secret) {
		t.Fatalf("a secret is told: %s", all)
	}
	if n := strings.Count(all, masked); n < 6 {
		t.Fatalf("only %d masks: %s", n, all)
	}
}

func TestMaskURL(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"redis://h:1/0":                 "redis://h:1/0",
		"redis://u:p@h:1/0":             "redis://%2A%2A%2A@h:1/0",
		"nats://token@h:1":              "nats://%2A%2A%2A@h:1",
		"nats://a:1,nats://u:p@b:2":     "nats://a:1,nats://%2A%2A%2A@b:2",
		"redis://h?sentinel_password=x": "redis://h?sentinel_password=%2A%2A%2A",
		"redis://h?auth=x":              "redis://h?auth=%2A%2A%2A",
		"redis://h?addr=g&ca=/f":        "redis://h?addr=g&ca=%2Ff",
		"redis://u:1#p@h:1/0":           masked,
		"redis://u:1/p@h:1/0":           masked,
		"redis://u:1?p@h:1/0":           masked,
		"nats://a:1,nats://u:1#p@b:2":   "nats://a:1," + masked,
		"u:p@h:1":                       masked,
		"redis://:12,34@h:1/0":          "redis://%2A%2A%2A@h:1/0",
		"redis://u:12,x#y@h:1/0":        masked,
		"redis://u:12,3/x@h:1":          masked,
		"nats://a:1,nats://u:12,x@b:2":  masked,
		"nats://a,b:1":                  "nats://a," + masked,
		"://":                           masked,
	} {
		if got := maskURL(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestOrigins(t *testing.T) {
	f := func(list []string, host, origin string, want bool) {
		t.Helper()
		o, err := newOrigins(list)
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{Host: host, Header: http.Header{}}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if got := o.allow(r); got != want {
			t.Errorf("%v: %q at %q: %v", list, origin, host, got)
		}
	}
	f(nil, "a.example", "", true)
	f(nil, "a.example", "https://a.example", true)
	f(nil, "A.example:443", "https://a.EXAMPLE", true)
	f(nil, "a.example:8080", "http://a.example:8080", true)
	f(nil, "a.example:8080", "http://a.example", false)
	f(nil, "a.example", "https://b.example", false)
	f(nil, "a.example", "https://a.example.evil", false)
	f(nil, "a.example", "null", false)
	f(nil, "a.example", "https://a.example/path", false)
	f(nil, "a.example", "https://x@a.example", false)
	f(nil, "[::1]:8080", "http://[::1]:8080", true)
	list := []string{"https://app.example", "http://localhost:3000"}
	f(list, "a.example", "https://app.example", true)
	f(list, "a.example", "https://app.example:443", true)
	f(list, "a.example", "http://app.example", false)
	f(list, "a.example", "http://localhost:3000", true)
	f(list, "a.example", "http://localhost:3001", false)
	f(list, "a.example", "https://a.example", false)
	f(list, "a.example", "https://sub.app.example", false)
	f([]string{"*"}, "a.example", "https://anything", true)
}

func TestAPIKey(t *testing.T) {
	if k := newAPIKey("x"); !k.equal("x") || k.equal("") || k.equal("xx") {
		t.Error("key x")
	}
	if k := newAPIKey(""); k.equal("") || k.equal("x") {
		t.Error("a key that is not set lets in")
	}
}
