package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/daisi/daisi-ws/server"
)

// fixed are the names of the design; none may be missing, none more may come
// without being written down here.
var fixed = strings.Fields(`
DWS_POD_ID DWS_POD_ADDR DWS_HTTP_ADDR DWS_INTERNAL_ADDR DWS_RPC_ADDR DWS_RPC_TLS_CERT_FILE DWS_RPC_TLS_KEY_FILE
DWS_RPC_TLS_CA_FILE DWS_RPC_INSECURE DWS_TLS_CERT_FILE DWS_TLS_KEY_FILE DWS_REDIS_URL DWS_NATS_URL DWS_NATS_STREAM
DWS_NATS_CREATE_STREAM DWS_NATS_EVENTS_STREAM DWS_NATS_PARTITIONS DWS_AUTH_API_KEY DWS_AUTH_MINT_KEY
DWS_AUTH_ADMIN_KEY DWS_AUTH_TOKEN_KEYS DWS_AUTH_ADMIN_TOKEN_KEYS DWS_AUTH_LEGACY_TOKENS DWS_AUTH_REFUSE
DWS_AUTH_TOKEN_CACHE DWS_HTTP_ORIGINS DWS_HTTP_TRUSTED_PROXIES DWS_HTTP_MAX_CONNS_PER_IP DWS_LOG_LEVEL
DWS_SESSION_CONFLICT DWS_SESSION_TTL DWS_LEASE_TTL DWS_RPC_LEGACY DWS_PING_INTERVAL DWS_PONG_TIMEOUT
DWS_MAX_SESSIONS DWS_LOGIN_CONCURRENCY DWS_LOGIN_QUEUE DWS_MAX_MESSAGE DWS_MAX_EVENT DWS_SEND_BUDGET DWS_SLOW DWS_PEER_QUEUE
DWS_RESUME_WINDOW DWS_RESUME_MAX_EVENTS DWS_RESUME_MAX_BYTES DWS_DRAIN_RATE DWS_DRAIN_TIMEOUT DWS_REQUIRE_EXTERNAL
DWS_WS_DEFLATE DWS_AUTH_FAILURES DWS_MESSAGE_RATE DWS_SESSION_TAKEOVERS DWS_RPC_TLS_NAME`)

func TestConfigNames(t *testing.T) {
	have := map[string]bool{}
	for _, s := range settings() {
		have[s.name] = true
		if s.doc == "" {
			t.Errorf("%s has no doc", s.name)
		}
	}
	for _, name := range fixed {
		if !have[name] {
			t.Errorf("%s is missing", name)
		}
	}
	if len(have) != len(fixed) {
		t.Errorf("%d settings, want %d", len(have), len(fixed))
	}
}

// Each setting reaches exactly the field that its tag names.
func TestConfigReachesOptions(t *testing.T) {
	other := map[string]string{
		"bool": "true", "int": "77", "size": "77KiB", "Duration": "77s", "string": "seventy-seven", "slice": "https://a.example,*",
	}
	for _, s := range settings() {
		if s.option == "" {
			continue
		}
		f := reflect.TypeFor[config]().FieldByIndex(s.index)
		value := other[f.Type.Name()]
		if f.Type.Kind() == reflect.Slice {
			value = other["slice"]
		}
		if s.standard == "true" {
			value = "false"
		}
		zero, err := parse(nil)
		if err != nil {
			t.Fatal(err)
		}
		set, err := parse(map[string]string{s.name: value})
		if err != nil {
			t.Fatalf("%s=%s: %v", s.name, value, err)
		}
		before, after := zero.options(), set.options()
		path := strings.TrimPrefix(s.option, "!")
		was, is := field(reflect.ValueOf(&before).Elem(), path), field(reflect.ValueOf(&after).Elem(), path)
		if reflect.DeepEqual(was.Interface(), is.Interface()) {
			t.Errorf("%s=%s leaves Options.%s at %v", s.name, value, path, is)
		}
		was.Set(is)
		if !reflect.DeepEqual(before, after) {
			t.Errorf("%s changes more than Options.%s", s.name, path)
		}
	}
}

// The defaults stand in the tags for README's sake; server's own must be equal.
func TestConfigDefaultsAreServers(t *testing.T) {
	need := func(o server.Options) server.Options {
		o.PodID, o.Redis.URL, o.NATS.URL = "p", "redis://r", "nats://n"
		o.Auth.APIKey, o.Auth.TokenKeys = "k", strings.Repeat("00", 32)
		return o
	}
	c, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := need(c.options()).Masked()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := need(server.Options{}).Masked()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(ours, theirs) {
		t.Errorf("defaults differ:\nconfig %v\nserver %v", ours, theirs)
	}
}

func TestConfigRefuses(t *testing.T) {
	f := func(want string, environ ...string) {
		t.Helper()
		_, err := plan(append(environ, "HOME=/", "PATH=/bin"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want …%s…", environ, err, want)
		}
	}
	f("DWS_REDIS_URI: no such setting; did you mean DWS_REDIS_URL?", "DWS_REDIS_URI=redis://x")
	f("did you mean DWS_PING_INTERVAL?", "DWS_PING_INTERVALL=3s")
	f("did you mean DWS_AUTH_API_KEY_FILE?", "DWS_AUTH_APIKEY_FILE=x")
	f("DWS_PING_INTERVAL: ", "DWS_PING_INTERVAL=soon")
	f("write a duration as 30s", "DWS_PING_INTERVAL=30")
	f("DWS_MAX_MESSAGE: ", "DWS_MAX_MESSAGE=32kib")
	f("write a size as", "DWS_MAX_EVENT=1TiB")
	f("write a whole number", "DWS_DRAIN_RATE=fast")
	f("write true or false", "DWS_RPC_LEGACY=maybe")
	f("DWS_LOG_LEVEL: ", "DWS_LOG_LEVEL=loud")
	f("DWS_RESUME_WINDOW=0s: give more than zero, or leave it out for 5m", "DWS_RESUME_WINDOW=0s")
	f("DWS_MAX_EVENT=0: give more than zero", "DWS_MAX_EVENT=0")
	f("DWS_DRAIN_RATE=-1: give more than zero", "DWS_DRAIN_RATE=-1")
	f("DWS_AUTH_REFUSE \"shout\" is not auto, http or close", "DWS_AUTH_REFUSE=shout")
	f("DWS_TLS_CERT_FILE and DWS_TLS_KEY_FILE go together", "DWS_TLS_CERT_FILE=a.pem")
	f("DWS_AUTH_API_KEY and DWS_AUTH_API_KEY_FILE are both set", "DWS_AUTH_API_KEY=x", "DWS_AUTH_API_KEY_FILE=/dev/null")
	f("DWS_AUTH_API_KEY_FILE: open /none", "DWS_AUTH_API_KEY_FILE=/none")
	f("DWS_AUTH_API_KEY_FILE: /dev/null is empty", "DWS_AUTH_API_KEY_FILE=/dev/null")
	f("DWS_REDIS_URL, DWS_NATS_URL, DWS_AUTH_API_KEY, DWS_AUTH_TOKEN_KEYS not set", "DWS_REQUIRE_EXTERNAL=true")
	f("DWS_REQUIRE_EXTERNAL=true, but DWS_NATS_URL not set", "DWS_REQUIRE_EXTERNAL=true", "DWS_REDIS_URL=redis://r",
		"DWS_AUTH_API_KEY=k", "DWS_AUTH_TOKEN_KEYS="+strings.Repeat("00", 32))

	// All that is wrong is said at once.
	_, err := plan([]string{"DWS_NOPE=1", "DWS_PING_INTERVAL=x", "DWS_MAX_EVENT=y"})
	for _, want := range []string{"DWS_NOPE", "DWS_PING_INTERVAL", "DWS_MAX_EVENT"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestConfigAccepts(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("from-file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := plan([]string{
		"DWS_AUTH_API_KEY_FILE=" + key, "DWS_MAX_MESSAGE=64KiB", "DWS_PING_INTERVAL=1m10s", "DWS_HTTP_ORIGINS=https://a.example,https://b.example:8443",
		"DWS_AUTH_LEGACY_TOKENS=false", "DWS_RESUME_WINDOW=", "DWS_MAX_SESSIONS=0",
		"DWS_SERVICE_HOST=10.0.0.1", "DWS_SERVICE_PORT=80", "DWS_SERVICE_PORT_HTTP=80", "DWS_PORT=tcp://10.0.0.1:80",
		"DWS_PORT_80_TCP=tcp://10.0.0.1:80", "DWS_PORT_80_TCP_ADDR=10.0.0.1", "DWS_REDIS_SERVICE_HOST=10.0.0.2", "DWS_REDIS_PORT_6379_TCP_PROTO=tcp",
	})
	if err != nil {
		t.Fatal(err)
	}
	o := p.options
	if o.Auth.APIKey != "from-file" || o.Limits.MaxMessage != 64<<10 || o.Ping.Interval.String() != "1m10s" ||
		len(o.HTTP.Origins) != 2 || !o.Auth.RefuseLegacy || o.Resume.Window.String() != "5m0s" {
		t.Errorf("got %+v", o)
	}
	if len(p.environment.ignored) != 8 {
		t.Errorf("ignored %v", p.environment.ignored)
	}
	if !o.Embedded.On || !o.NATS.CreateStream || o.Auth.MintKey == "" || o.Auth.AdminKey == "" || len(o.Auth.TokenKeys) != 64 || !o.RPC.Insecure {
		t.Errorf("embedded: %+v", o)
	}
}

// On somebody's real servers nothing is switched on by itself.
func TestPlanExternal(t *testing.T) {
	p, err := plan([]string{"DWS_REDIS_URL=redis://r", "DWS_NATS_URL=nats://n"})
	if err != nil {
		t.Fatal(err)
	}
	o := p.options
	if o.Embedded.On || o.NATS.CreateStream || o.RPC.Insecure || o.Auth.MintKey != "" || o.Auth.AdminKey != "" || o.Auth.AdminTokenKeys != "" {
		t.Errorf("got %+v", o)
	}
	if o.Auth.APIKey == "" || o.Auth.TokenKeys == "" || len(p.warnings()) != 1 {
		t.Errorf("keys %q, warnings %v", o.Auth.APIKey, p.warnings())
	}
}

func TestConfigPrintsNoSecret(t *testing.T) {
	secrets := []string{"S3CRET-api", "S3CRET-mint", "S3CRET-admin", "S3CRET-redis", "S3CRET-nats", strings.Repeat("ab", 32)}
	var out, errs strings.Builder
	code := execute(t.Context(), console{out: &out, err: &errs, environ: []string{
		"DWS_AUTH_API_KEY=S3CRET-api", "DWS_AUTH_MINT_KEY=S3CRET-mint", "DWS_AUTH_ADMIN_KEY=S3CRET-admin",
		"DWS_REDIS_URL=redis://u:S3CRET-redis@r:1/0", "DWS_NATS_URL=nats://S3CRET-nats@n:1",
		"DWS_AUTH_TOKEN_KEYS=k1:" + strings.Repeat("ab", 32), "DWS_PING_INTERVAL=20s",
	}}, []string{"config"})
	if code != 0 || errs.Len() > 0 {
		t.Fatalf("code %d, %s", code, &errs)
	}
	for _, s := range secrets {
		if strings.Contains(out.String(), s) {
			t.Errorf("%q is printed", s)
		}
	}
	for _, want := range []string{`DWS_PING_INTERVAL=20s +# environment`, `DWS_PONG_TIMEOUT=1m30s +# default`, `DWS_MAX_MESSAGE=32KiB +# default`, `DWS_AUTH_LEGACY_TOKENS=true +# default`} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no line %q in\n%s", want, &out)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != len(fixed) {
		t.Errorf("%d lines, want %d", n, len(fixed))
	}
}

func TestREADMETable(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), table()) {
		t.Errorf("README.md's table of settings is not what `go run ./cmd/daisi-ws config -markdown` prints: put that between its marks")
	}
}

func TestSize(t *testing.T) {
	f := func(text string, want int) {
		t.Helper()
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil || int(s) != want {
			t.Errorf("%q: %d, %v; want %d", text, s, err, want)
		}
	}
	f("0", 0)
	f("512", 512)
	f("512B", 512)
	f("32KiB", 32<<10)
	f("1 MiB", 1<<20)
	f("2GB", 2e9)
	bad := func(text string) {
		t.Helper()
		var s size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %d", text, s)
		}
	}
	bad("")
	bad("KiB")
	bad("-1")
	bad("1.5MiB")
	bad("9999999999GiB")
	for _, s := range []size{0, 1, 1023, 32 << 10, 3 << 20, 1 << 30} {
		var back size
		if err := back.UnmarshalText([]byte(s.String())); err != nil || back != s {
			t.Errorf("%d is written %s", int(s), s)
		}
	}
}
