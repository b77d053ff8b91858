package redisx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
)

// tlsFiles are the PEM files of a rediss URL: ?ca=FILE&cert=FILE&key=FILE. They
// are read for each connection, so that certificates can change while we run.
type tlsFiles struct {
	ca, cert, key string // empty: the system's authorities; no certificate of ours
}

// takeTLSFiles takes them out of the query, where the library would not know
// them.
func takeTLSFiles(u *url.URL) (tlsFiles, error) {
	q := u.Query()
	f := tlsFiles{q.Get("ca"), q.Get("cert"), q.Get("key")}
	for _, name := range []string{"ca", "cert", "key"} {
		q.Del(name)
	}
	u.RawQuery = q.Encode()
	switch {
	case f != tlsFiles{} && u.Scheme != "rediss":
		return f, errors.New("ca, cert and key are for rediss://")
	case (f.cert == "") != (f.key == ""):
		return f, errors.New("cert and key go together")
	case u.Scheme == "rediss":
		_, err := f.config() // a wrong file is said at the start
		return f, err
	}
	return f, nil
}

// config is that of one connection.
func (f tlsFiles) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", f.ca)
		}
	}
	if f.cert != "" {
		own, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("load certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}

// secured puts TLS over dial. Each node must have the host it is dialled by in
// its certificate.
func (f tlsFiles) secured(dial *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		config, err := f.config()
		if err != nil {
			return nil, err
		}
		d := tls.Dialer{NetDialer: dial, Config: config}
		return d.DialContext(ctx, network, addr)
	}
}
