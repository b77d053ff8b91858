package redisx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"golang.org/x/sys/unix"
)

// Settings of connections, where the URL doesn't say otherwise. Timeouts are
// short because a call is repeated until its own deadline.
const (
	ioTimeout    = time.Second
	poolSize     = 16 // plain calls, and pipelines beyond pipelinePool
	pipelinePool = 8
	ioBuffer     = 64 << 10
)

// connect builds the client that the URL asks for. It dials nothing.
func connect(rawURL string, onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("the Redis URL can't be parsed") // the error itself would show the password
	}
	if u.Fragment != "" || strings.Contains(u.Path+u.RawQuery, "@") { // what follows would be shown in errors
		return nil, errors.New("the Redis URL has a # or @ behind its host: in a password / is written %2F, ? %3F, # %23, @ %40")
	}
	if strings.Contains(u.Host, ",") {
		return nil, errors.New("the Redis URL has several hosts: write the first, and the others as ?addr=host:port&addr=host:port")
	}
	files, err := takeTLSFiles(u)
	if err != nil {
		return nil, fmt.Errorf("read the Redis URL: %w", err)
	}
	o, err := readURL(u)
	if err != nil {
		return nil, fmt.Errorf("read the Redis URL: %w", err)
	}
	setDefault(&o.DialTimeout, ioTimeout)
	setDefault(&o.ReadTimeout, ioTimeout)
	setDefault(&o.WriteTimeout, ioTimeout)
	setDefault(&o.PoolTimeout, ioTimeout)
	setDefault(&o.PoolSize, poolSize)
	setDefault(&o.PipelinePoolSize, pipelinePool)
	setDefault(&o.PipelineReadBufferSize, ioBuffer)
	setDefault(&o.PipelineWriteBufferSize, ioBuffer)
	// The library's own retries repeat a pipeline as a whole and out of order.
	o.MaxRetries, o.DialerRetries = -1, 1
	o.Protocol = 2 // nothing of 3 is used, and pushes would have to be looked for
	o.ContextTimeoutEnabled = true
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.OnConnect = onConnect
	o.Dialer = dialer(o.DialTimeout, o.TLSConfig != nil, files)
	if o.IsClusterMode {
		cluster := o.Cluster()
		cluster.ClusterStateReloadInterval = 10 * time.Second
		return redis.NewClusterClient(cluster), nil
	}
	return redis.NewUniversalClient(o), nil
}

// readURL takes from the library's three URL readers what can be configured.
func readURL(u *url.URL) (*redis.UniversalOptions, error) {
	q := u.Query()
	cluster := q.Has("addr") || q.Get("cluster") == "true" || q.Get("cluster") == "1"
	q.Del("cluster")
	u.RawQuery = q.Encode()
	switch {
	case u.Scheme != "redis" && u.Scheme != "rediss":
		return nil, fmt.Errorf("scheme %q: must be redis or rediss", u.Scheme)
	case q.Has("master_name"):
		f, err := redis.ParseFailoverURL(u.String())
		if err != nil {
			return nil, err
		}
		return &redis.UniversalOptions{
			Addrs: f.SentinelAddrs, MasterName: f.MasterName, DB: f.DB, Username: f.Username, Password: f.Password,
			SentinelUsername: f.SentinelUsername, SentinelPassword: f.SentinelPassword, TLSConfig: f.TLSConfig,
			DialTimeout: f.DialTimeout, ReadTimeout: f.ReadTimeout, WriteTimeout: f.WriteTimeout,
			PoolTimeout: f.PoolTimeout, PoolSize: f.PoolSize,
		}, nil
	case cluster:
		if db := strings.Trim(u.Path, "/"); db != "" && db != "0" {
			return nil, fmt.Errorf("database %q: a cluster has only 0", db)
		}
		c, err := redis.ParseClusterURL(u.String())
		if err != nil {
			return nil, err
		}
		return &redis.UniversalOptions{
			Addrs: c.Addrs, IsClusterMode: true, Username: c.Username, Password: c.Password, TLSConfig: c.TLSConfig,
			DialTimeout: c.DialTimeout, ReadTimeout: c.ReadTimeout, WriteTimeout: c.WriteTimeout,
			PoolTimeout: c.PoolTimeout, PoolSize: c.PoolSize, PipelinePoolSize: c.PipelinePoolSize,
		}, nil
	}
	s, err := redis.ParseURL(u.String())
	if err != nil {
		return nil, err
	}
	return &redis.UniversalOptions{
		Addrs: []string{s.Addr}, DB: s.DB, Username: s.Username, Password: s.Password, TLSConfig: s.TLSConfig,
		DialTimeout: s.DialTimeout, ReadTimeout: s.ReadTimeout, WriteTimeout: s.WriteTimeout,
		PoolTimeout: s.PoolTimeout, PoolSize: s.PoolSize, PipelinePoolSize: s.PipelinePoolSize,
	}, nil
}

// dialer makes connections whose close drops what was not sent yet: a call that
// is given up shall not arrive minutes later, after its repetition and what
// came then.
func dialer(timeout time.Duration, secure bool, files tlsFiles) func(context.Context, string, string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: timeout, KeepAlive: 15 * time.Second, Control: dropUnsent}
	if !secure {
		return plain.DialContext
	}
	return files.secured(plain)
}

func dropUnsent(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	})
	return errors.Join(err, failed)
}
