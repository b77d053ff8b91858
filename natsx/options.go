package natsx

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// Bounds of Options.
const (
	minMaxAge     = time.Minute
	minMaxBytes   = 16 << 20
	maxMaxEvent   = 32 << 20
	maxPartitions = 4096
)

// Options of a Client. The zero value connects to a local server.
type Options struct {
	// URL of the servers, comma separated; default nats://127.0.0.1:4222.
	// User and password, or a token, as user part; tls:// asks for TLS. Files
	// as query of the last one: ?creds=FILE&nkey=FILE&ca=FILE&cert=FILE&key=FILE.
	URL string
	// InProcess, when set, is the server instead of URL.
	InProcess nats.InProcessConnProvider
	// Name shown by the server for this connection; default daisi-ws.
	Name string
	// InboxPrefix for replies, without a final dot; default _INBOX.
	InboxPrefix string

	// Stream is the publisher's; default wa_stream.
	Stream string
	// CreateStream makes the publisher's stream when it is missing.
	CreateStream bool
	// EventsStream is ours; default dws_events.
	EventsStream string
	// Partitions, 1..4096, of an events stream that is made; default 64. An
	// existing one keeps its own: see Stream.Partitions.
	Partitions int
	// Replicas, 0..5, of an events stream that is made; 0: as many as the
	// publisher's stream has.
	Replicas int
	// MaxAge of events, at least 1 min; default 6 min.
	MaxAge time.Duration
	// MaxBytes of our stream, at least 16 MiB; default 1 GiB.
	MaxBytes int64
	// MaxEvent in bytes of one body, 1..32 MiB; default 1 MiB.
	MaxEvent int

	// Metrics to register in; default a set of its own.
	Metrics *metrics.Set
	Log     zerolog.Logger
}

func (o Options) withDefaults() (Options, error) {
	setDefault(&o.URL, nats.DefaultURL)
	setDefault(&o.Name, "daisi-ws")
	setDefault(&o.InboxPrefix, "_INBOX")
	setDefault(&o.Stream, "wa_stream")
	setDefault(&o.EventsStream, "dws_events")
	setDefault(&o.Partitions, 64)
	setDefault(&o.MaxAge, 6*time.Minute)
	setDefault(&o.MaxBytes, 1<<30)
	setDefault(&o.MaxEvent, 1<<20)
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	for _, name := range []string{o.Stream, o.EventsStream} {
		if !validStreamName(name) {
			return o, fmt.Errorf("stream name %q must not hold spaces, control characters or any of . * > / \\", name)
		}
	}
	switch {
	case o.Stream == o.EventsStream:
		return o, fmt.Errorf("events stream must differ from the publisher's stream %q", o.Stream)
	case o.Partitions < 1 || o.Partitions > maxPartitions:
		return o, fmt.Errorf("partitions %d must be 1 to %d", o.Partitions, maxPartitions)
	case o.Replicas < 0 || o.Replicas > 5:
		return o, fmt.Errorf("replicas %d must be 0 to 5", o.Replicas)
	case o.MaxAge < minMaxAge:
		return o, fmt.Errorf("max age %s must be at least %s", o.MaxAge, minMaxAge)
	case o.MaxBytes < minMaxBytes:
		return o, fmt.Errorf("max bytes %d must be at least %d", o.MaxBytes, minMaxBytes)
	case o.MaxEvent < 1 || o.MaxEvent > maxMaxEvent:
		return o, fmt.Errorf("max event %d must be 1 to %d bytes", o.MaxEvent, maxMaxEvent)
	}
	return o, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

func validStreamName(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsAny(s, " .*>/\\") &&
		strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) < 0
}

// dialOptions turns o into what nats.Connect takes. Errors never show the
// user part of the URL.
func (o Options) dialOptions() (servers string, opts []nats.Option, err error) {
	servers, query, _ := strings.Cut(o.URL, "?")
	q, err := url.ParseQuery(query)
	if err != nil || strings.ContainsAny(query, "@#") {
		return "", nil, fmt.Errorf("the query of the NATS URL can't be parsed; %s", howToEscape)
	}
	if err := checkServers(servers); err != nil {
		return "", nil, err
	}
	opts = []nats.Option{
		nats.Name(o.Name),
		nats.CustomInboxPrefix(o.InboxPrefix),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		// Credentials may be put right on either side meanwhile.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 250*time.Millisecond),
		// A request that waited for a reconnect would be answered too late.
		nats.ReconnectBufSize(-1),
		nats.Timeout(2 * time.Second),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
	}
	if o.InProcess != nil {
		return "", append(opts, nats.InProcessServer(o.InProcess)), nil
	}
	for name := range q {
		switch name {
		case "creds", "nkey", "ca", "cert", "key":
		default:
			return "", nil, fmt.Errorf("unknown %q in the NATS URL's query: creds, nkey, ca, cert and key are known", name)
		}
	}
	files, err := fileOptions(q)
	return servers, append(opts, files...), err
}

const howToEscape = "in a password / is written %2F, ? %3F, # %23, @ %40, a comma %2C, % itself %25"

// checkServers wants URLs that the library can parse: its errors would show
// their passwords.
func checkServers(servers string) error {
	for i, s := range strings.Split(servers, ",") {
		if s = strings.TrimSpace(s); !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Fragment != "" || strings.Contains(u.Path, "@") {
			return fmt.Errorf("server %d of the NATS URL can't be parsed; %s", i+1, howToEscape)
		}
	}
	return nil
}

func fileOptions(q url.Values) ([]nats.Option, error) {
	var opts []nats.Option
	if f := q.Get("creds"); f != "" {
		opts = append(opts, nats.UserCredentials(f))
	}
	if f := q.Get("nkey"); f != "" {
		o, err := nats.NkeyOptionFromSeed(f)
		if err != nil {
			return nil, fmt.Errorf("read nkey seed %s: %w", f, err)
		}
		opts = append(opts, o)
	}
	if f := q.Get("ca"); f != "" {
		opts = append(opts, nats.RootCAs(f))
	}
	cert, key := q.Get("cert"), q.Get("key")
	if (cert == "") != (key == "") {
		return nil, fmt.Errorf("cert and key in the NATS URL's query go together")
	}
	if cert != "" {
		opts = append(opts, nats.ClientCert(cert, key))
	}
	return opts, nil
}
