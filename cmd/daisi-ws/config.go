package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/server"
)

// config is every setting of the process, under its environment name. This is
// the only place that knows those names. Tags: option is the field of
// server.Options it sets, mask says that it is a secret, which may also come
// from the file that NAME_FILE names, doc is the README's words.
type config struct {
	PodID   string `env:"DWS_POD_ID" option:"PodID" doc:"name of this pod; empty: the hostname"`
	PodAddr string `env:"DWS_POD_ADDR" option:"PodAddr" doc:"host:port where other pods reach this one; empty: first non-loopback address, else 127.0.0.1, and the port of DWS_RPC_ADDR"`

	HTTPAddr       string   `env:"DWS_HTTP_ADDR" envDefault:":8080" option:"HTTP.Addr" doc:"public port: WebSocket, token and health endpoints"`
	Origins        []string `env:"DWS_HTTP_ORIGINS" option:"HTTP.Origins" doc:"allowed origins, scheme://host[:port] with commas between, or *; empty: the host of the request"`
	TrustedProxies []string `env:"DWS_HTTP_TRUSTED_PROXIES" option:"HTTP.TrustedProxies" doc:"CIDRs with commas between, whose X-Forwarded-For is believed; empty: nobody's"`
	MaxConnsPerIP  int      `env:"DWS_HTTP_MAX_CONNS_PER_IP" envDefault:"0" option:"HTTP.MaxConnsPerIP" doc:"sockets of one address (of IPv6 a /64); 0: no limit"`
	Deflate        bool     `env:"DWS_WS_DEFLATE" envDefault:"false" option:"HTTP.Deflate" doc:"accept permessage-deflate: less traffic for more CPU; each event is compressed once for all"`
	TLSCert        string   `env:"DWS_TLS_CERT_FILE" option:"TLS.CertFile" doc:"PEM chain; with the key: the public port speaks HTTPS and WSS; reloaded when it changes"`
	TLSKey         string   `env:"DWS_TLS_KEY_FILE" option:"TLS.KeyFile" doc:"PEM key of that chain"`
	InternalAddr   string   `env:"DWS_INTERNAL_ADDR" envDefault:"127.0.0.1:9090" option:"Internal.Addr" doc:"port for probes, metrics and the admin API"`

	RPCAddr     string `env:"DWS_RPC_ADDR" envDefault:":50051" option:"RPC.Addr" doc:"port for other pods (gRPC)"`
	RPCCert     string `env:"DWS_RPC_TLS_CERT_FILE" option:"RPC.CertFile" doc:"PEM chain of this pod; the three together: mutual TLS between pods"`
	RPCKey      string `env:"DWS_RPC_TLS_KEY_FILE" option:"RPC.KeyFile" doc:"PEM key of that chain"`
	RPCCA       string `env:"DWS_RPC_TLS_CA_FILE" option:"RPC.CAFile" doc:"PEM certificates that other pods' are checked against; all three files are read for each connection"`
	RPCName     string `env:"DWS_RPC_TLS_NAME" envDefault:"daisi-ws" option:"RPC.Name" doc:"DNS name, or URI such as spiffe://…, that every pod's certificate must have"`
	RPCInsecure bool   `env:"DWS_RPC_INSECURE" envDefault:"false" option:"RPC.Insecure" doc:"pods speak to each other in the clear"`
	RPCLegacy   bool   `env:"DWS_RPC_LEGACY" envDefault:"false" option:"RPC.Legacy" doc:"serve PushEvent"`
	PeerQueue   size   `env:"DWS_PEER_QUEUE" envDefault:"16MiB" option:"RPC.PeerQueue" doc:"bytes that may wait for one other pod"`

	RedisURL     string `env:"DWS_REDIS_URL" mask:"url" option:"Redis.URL" doc:"redis://h:p/0, rediss://…; cluster: redis://h1:p?addr=h2:p, or one host and ?cluster=true; sentinel: redis://s1:p?addr=s2:p&master_name=m; with rediss: ?ca=FILE&cert=FILE&key=FILE; empty: embedded"`
	NATSURL      string `env:"DWS_NATS_URL" mask:"url" option:"NATS.URL" doc:"nats://h:p or tls://h:p, commas between several; ?creds=FILE&nkey=FILE&ca=FILE&cert=FILE&key=FILE behind the last; empty: embedded"`
	NATSStream   string `env:"DWS_NATS_STREAM" envDefault:"wa_stream" option:"NATS.Stream" doc:"the publisher's stream"`
	NATSCreate   bool   `env:"DWS_NATS_CREATE_STREAM" envDefault:"false" option:"NATS.CreateStream" doc:"make the publisher's stream when it is missing; always on when embedded"`
	EventsStream string `env:"DWS_NATS_EVENTS_STREAM" envDefault:"dws_events" option:"NATS.EventsStream" doc:"our own stream, sourced from the publisher's"`
	Partitions   int    `env:"DWS_NATS_PARTITIONS" envDefault:"64" option:"NATS.Partitions" doc:"partitions of our stream when it is made; afterwards the stream's own count holds"`

	APIKey         string `env:"DWS_AUTH_API_KEY" mask:"secret" option:"Auth.APIKey" doc:"key of clients for /ws/…; empty: made at start"`
	MintKey        string `env:"DWS_AUTH_MINT_KEY" mask:"secret" option:"Auth.MintKey" doc:"key for POST /generate-token; empty: off (embedded: made at start)"`
	AdminKey       string `env:"DWS_AUTH_ADMIN_KEY" mask:"secret" option:"Auth.AdminKey" doc:"key for /ws/admin, POST /admin/generate-token, the admin API and pprof; empty: off (embedded: made at start)"`
	TokenKeys      string `env:"DWS_AUTH_TOKEN_KEYS" mask:"secret" option:"Auth.TokenKeys" doc:"kid:hex,kid:hex or one bare hex of 32 bytes; the first mints, all verify; its file is watched, SIGHUP looks at once; empty: made at start"`
	AdminTokenKeys string `env:"DWS_AUTH_ADMIN_TOKEN_KEYS" mask:"secret" option:"Auth.AdminTokenKeys" doc:"the same for admin tokens; empty: none (embedded: made at start)"`
	LegacyTokens   bool   `env:"DWS_AUTH_LEGACY_TOKENS" envDefault:"true" option:"!Auth.RefuseLegacy" doc:"accept tokens without a kid"`
	Refuse         string `env:"DWS_AUTH_REFUSE" envDefault:"auto" option:"Auth.Refuse" doc:"how refusals are told: http (status), close (101, error frame, close code), auto (close for browsers)"`
	TokenCache     string `env:"DWS_AUTH_TOKEN_CACHE" envDefault:"process" option:"Auth.TokenCache" doc:"process, or redis: also the shared token_cache:<sha256>"`

	Failures int `env:"DWS_AUTH_FAILURES" envDefault:"60" option:"Auth.Failures" doc:"wrong keys and tokens an address (of IPv6 a /64) may come with each minute; more: 429"`

	Conflict string        `env:"DWS_SESSION_CONFLICT" envDefault:"takeover" option:"Session.Conflict" doc:"takeover: the newest socket wins; reject: the oldest does"`
	TTL      time.Duration `env:"DWS_SESSION_TTL" envDefault:"5m" option:"Session.TTL" doc:"life of a session lock nobody renews"`
	LeaseTTL time.Duration `env:"DWS_LEASE_TTL" envDefault:"10s" option:"Session.LeaseTTL" doc:"a pod without a beat for so long is taken for dead, and delivers nothing"`

	Takeovers int `env:"DWS_SESSION_TAKEOVERS" envDefault:"10" option:"Session.Takeovers" doc:"how often a minute a session may be taken over, on whichever pods; more: the newcomer is refused (429, 4429)"`

	PingInterval time.Duration `env:"DWS_PING_INTERVAL" envDefault:"30s" option:"Ping.Interval" doc:"between pings to a client"`
	PongTimeout  time.Duration `env:"DWS_PONG_TIMEOUT" envDefault:"90s" option:"Ping.Timeout" doc:"a client without any byte for so long is dead"`

	MaxSessions      int    `env:"DWS_MAX_SESSIONS" envDefault:"0" option:"Limits.MaxSessions" doc:"sessions of this pod; 0: the file limit less a reserve"`
	LoginConcurrency int    `env:"DWS_LOGIN_CONCURRENCY" envDefault:"512" option:"Limits.LoginConcurrency" doc:"logins in work at once"`
	LoginQueue       int    `env:"DWS_LOGIN_QUEUE" envDefault:"8192" option:"Limits.LoginQueue" doc:"logins that may wait for that; more are refused with 503"`
	MaxMessage       size   `env:"DWS_MAX_MESSAGE" envDefault:"32KiB" option:"Limits.MaxMessage" doc:"largest message from a client; larger ones: close 1009"`
	MessageRate      int    `env:"DWS_MESSAGE_RATE" envDefault:"100" option:"Limits.MessageRate" doc:"messages a second from a client, 20 s' worth of them at once; more: close 4429"`
	MaxEvent         size   `env:"DWS_MAX_EVENT" envDefault:"1MiB" option:"Limits.MaxEvent" doc:"largest event; larger ones are poison: skipped and counted"`
	SendBudget       size   `env:"DWS_SEND_BUDGET" envDefault:"1MiB" option:"Limits.SendBudget" doc:"bytes that may wait for one client; passing it: see DWS_SLOW"`
	Slow             string `env:"DWS_SLOW" envDefault:"close" option:"Limits.Slow" doc:"a client over its budget: close it with 4408, or gap: where it understands gap frames it misses events, and is told from which to which"`

	ResumeWindow    time.Duration `env:"DWS_RESUME_WINDOW" envDefault:"5m" option:"Resume.Window" doc:"how far back a client can resume"`
	ResumeMaxEvents int           `env:"DWS_RESUME_MAX_EVENTS" envDefault:"1000" option:"Resume.MaxEvents" doc:"events one resume may replay; more: a gap"`
	ResumeMaxBytes  size          `env:"DWS_RESUME_MAX_BYTES" envDefault:"1MiB" option:"Resume.MaxBytes" doc:"bytes one resume may replay; more: a gap"`

	DrainRate    int           `env:"DWS_DRAIN_RATE" envDefault:"1000" option:"Drain.Rate" doc:"sockets told to go each second while draining; more where there is not the time"`
	DrainTimeout time.Duration `env:"DWS_DRAIN_TIMEOUT" envDefault:"30s" option:"Drain.Timeout" doc:"from SIGTERM to the end of the process, whatever hangs; 1s at least, below 5s in haste"`

	LogLevel        zerolog.Level `env:"DWS_LOG_LEVEL" envDefault:"info" doc:"trace, debug, info, warn, error or disabled"`
	RequireExternal bool          `env:"DWS_REQUIRE_EXTERNAL" envDefault:"false" option:"RequireExternal" doc:"refuse to start with embedded servers or with keys made at start; the container image sets it"`
}

// parse reads the settings from a prepared environment (environ.go). The
// error names every setting that is wrong.
func parse(vars map[string]string) (config, error) {
	var c config
	err := env.ParseWithOptions(&c, env.Options{Environment: vars})
	errs := []error{explain(err)}
	for _, s := range settings() {
		// Zero would silently become the default inside server.
		if v := reflect.ValueOf(c).FieldByIndex(s.index); vars[s.name] != "" && v.CanInt() && v.Int() <= 0 && !s.zeroFine() {
			errs = append(errs, fmt.Errorf("%s=%s: give more than zero, or leave it out for %s", s.name, vars[s.name], s.standard))
		}
	}
	return c, errors.Join(errs...)
}

// explain gives the errors of the parser the environment's names.
func explain(err error) error {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return err
	}
	out := make([]error, len(all.Errors))
	for i, e := range all.Errors {
		out[i] = e
		var p env.ParseError
		if !errors.As(e, &p) {
			continue
		}
		if f, ok := reflect.TypeFor[config]().FieldByName(p.Name); ok {
			out[i] = fmt.Errorf("%s: %w; %s", f.Tag.Get("env"), p.Err, howTo(f.Type))
		}
	}
	return errors.Join(out...)
}

func howTo(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "write a duration as 30s, 5m or 1h30m"
	case reflect.TypeFor[size]():
		return "write a size as 512, 32KiB or 1MiB"
	case reflect.TypeFor[bool]():
		return "write true or false"
	case reflect.TypeFor[zerolog.Level]():
		return "write trace, debug, info, warn, error or disabled"
	}
	return "write a whole number"
}

// options fills server.Options as the option tags say.
func (c config) options() server.Options {
	var o server.Options
	for _, s := range settings() {
		if s.option == "" {
			continue
		}
		from, to := reflect.ValueOf(c).FieldByIndex(s.index), field(reflect.ValueOf(&o).Elem(), strings.TrimPrefix(s.option, "!"))
		if strings.HasPrefix(s.option, "!") {
			to.SetBool(!from.Bool())
			continue
		}
		to.Set(from.Convert(to.Type()))
	}
	return o
}

// field finds "A.B" in a struct; it panics when there is none, which a test
// over all tags excludes.
func field(v reflect.Value, path string) reflect.Value {
	for name := range strings.SplitSeq(path, ".") {
		v = v.FieldByName(name)
	}
	return v
}

// setting is one row of config.
type setting struct {
	name, option, mask, doc string
	standard                string // default, as one would write it; "" for none
	index                   []int
}

func settings() []setting {
	var out []setting
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config]()) {
		out = append(out, setting{
			name: f.Tag.Get("env"), option: f.Tag.Get("option"), mask: f.Tag.Get("mask"), doc: f.Tag.Get("doc"),
			standard: f.Tag.Get("envDefault"), index: f.Index,
		})
	}
	return out
}

// zeroFine says whether zero is a setting, not the absence of one.
func (s setting) zeroFine() bool { return s.standard == "0" || s.option == "" }

// inWords puts the environment's names where an error of server has the names
// of its fields.
func inWords(err error) error {
	if err == nil {
		return nil
	}
	var pairs []string
	for _, s := range settings() {
		if strings.Contains(s.option, ".") {
			pairs = append(pairs, s.option, s.name)
		}
	}
	if text := strings.NewReplacer(pairs...).Replace(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}
