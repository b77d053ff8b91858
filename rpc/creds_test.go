package rpc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = sign(t, nil, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue makes a certificate for name, and for 127.0.0.1 when it is empty.
func (a *authority) issue(t *testing.T, name string, life time.Duration) *tls.Certificate {
	t.Helper()
	tpl := &x509.Certificate{
		NotAfter:    time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if u, err := url.Parse(name); name == "" {
		tpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	} else if err == nil && u.Scheme != "" {
		tpl.URIs = []*url.URL{u}
	} else {
		tpl.DNSNames = []string{name}
	}
	cert, key := sign(t, a, tpl)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func sign(t *testing.T, a *authority, tpl *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl.SerialNumber = big.NewInt(time.Now().UnixNano())
	tpl.Subject = pkix.Name{CommonName: "test"}
	tpl.NotBefore = time.Now().Add(-time.Hour)
	if tpl.NotAfter.IsZero() {
		tpl.NotAfter = time.Now().Add(time.Hour)
	}
	parent, by := tpl, key
	if a != nil {
		parent, by = a.cert, a.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, tpl, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// creds are those of a pod with this certificate that trusts these.
func creds(cert *tls.Certificate, name string, trusted ...*authority) Creds {
	pool := x509.NewCertPool()
	for _, a := range trusted {
		pool.AddCert(a.cert)
	}
	return Creds{
		Certificate: func() (*tls.Certificate, error) { return cert, nil },
		Roots:       func() (*x509.CertPool, error) { return pool, nil },
		ServerName:  name,
	}
}

// meet says whether a pod with these creds gets a stream to one with those; if
// not, what it complains about.
func meet(t *testing.T, calling, called Creds) (bool, string) {
	t.Helper()
	o := testOptions("b@1", &testSink{})
	o.Creds = called
	_, pod, stopServe := serve(t, o)
	defer stopServe()
	o = testOptions("a@1", &testSink{})
	o.Creds = calling
	s := newService(t, o)
	s.pace.hello = 2 * time.Second
	s.SetPeers([]session.Pod{pod})
	stop := start(t, s.Run)
	p := (*s.peers.Load())["b@1"]
	until(t, "it works or not", func() bool { return s.Stream("b@1") != 0 || p.breaker.State() != 0 })
	open := s.Stream("b@1") != 0
	stop()
	return open, p.said
}

func TestMutualTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	good := creds(ours.issue(t, "dws-peer", time.Hour), "dws-peer", ours)
	byAddress := creds(ours.issue(t, "", time.Hour), "", ours)
	// Whoever is refused by the pod it calls may see the alert or only the end
	// of the connection, for in TLS 1.3 the caller is checked last.
	const refusedThere = "connect to peer"
	f := func(name string, calling, called Creds, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			open, said := meet(t, calling, called)
			if open != (want == "") || !strings.Contains(said, want) {
				t.Errorf("open %v, said %q, want %q", open, said, want)
			}
		})
	}
	f("by name", good, good, "")
	f("by address", byAddress, byAddress, "")
	const id = "spiffe://example.org/daisi-ws"
	uri := creds(ours.issue(t, id, time.Hour), id, ours)
	f("by URI", uri, uri, "")
	f("called has a wrong URI", uri, creds(ours.issue(t, id+"x", time.Hour), id, ours), "not spiffe")
	f("caller has a wrong URI", creds(ours.issue(t, id+"x", time.Hour), id, ours), uri, refusedThere)
	f("called has a name instead of a URI", uri, creds(ours.issue(t, "daisi-ws", time.Hour), id, ours), "not spiffe")
	f("called with the URI is signed by others", uri, creds(theirs.issue(t, id, time.Hour), id, ours), "unknown authority")
	f("called with the URI has expired", uri, creds(ours.issue(t, id, -time.Minute), id, ours), "expired")
	f("called has the address, not the name", good, byAddress, "wanted to match dws-peer")
	f("caller has the address, not the name", byAddress, good, refusedThere)
	f("called has a wrong name", good, creds(ours.issue(t, "other", time.Hour), "dws-peer", ours), "not dws-peer")
	f("caller has a wrong name", creds(ours.issue(t, "other", time.Hour), "dws-peer", ours), good, refusedThere)
	f("called is signed by others", good, creds(theirs.issue(t, "dws-peer", time.Hour), "dws-peer", ours), "unknown authority")
	f("caller is signed by others", creds(theirs.issue(t, "dws-peer", time.Hour), "dws-peer", ours), good, refusedThere)
	f("called has expired", good, creds(ours.issue(t, "dws-peer", -time.Minute), "dws-peer", ours), "expired")
	f("plain text to TLS", Creds{Insecure: true}, good, refusedThere)
	f("TLS to plain text", good, Creds{Insecure: true}, refusedThere)
}

// Certificates and roots are asked for at each handshake, so that a rotation
// needs no restart.
func TestMutualTLSReloads(t *testing.T) {
	ours, next := newAuthority(t), newAuthority(t)
	var current atomic.Pointer[Creds]
	now := creds(ours.issue(t, "dws-peer", time.Hour), "dws-peer", ours)
	current.Store(&now)
	rotating := Creds{
		Certificate: func() (*tls.Certificate, error) { return current.Load().Certificate() },
		Roots:       func() (*x509.CertPool, error) { return current.Load().Roots() },
		ServerName:  "dws-peer",
	}
	old := creds(ours.issue(t, "dws-peer", time.Hour), "dws-peer", ours)
	if open, said := meet(t, old, rotating); !open {
		t.Fatalf("before: %s", said)
	}
	after := creds(next.issue(t, "dws-peer", time.Hour), "dws-peer", next)
	current.Store(&after)
	if open, _ := meet(t, old, rotating); open {
		t.Error("a peer of the former authority is still let in")
	}
	if open, said := meet(t, after, rotating); !open {
		t.Errorf("after: %s", said)
	}
}

// A stream that is open says nothing about today's certificates: so it ends, the
// caller's own doing, and comes again with what holds then; and where the caller
// does not end it, the called pod does.
func TestStreamsEndOfAge(t *testing.T) {
	ours, next := newAuthority(t), newAuthority(t)
	var now atomic.Pointer[Creds]
	old := creds(ours.issue(t, "dws-peer", time.Hour), "dws-peer", ours)
	now.Store(&old)
	rotating := Creds{
		Certificate: func() (*tls.Certificate, error) { return now.Load().Certificate() },
		Roots:       func() (*x509.CertPool, error) { return now.Load().Roots() },
		ServerName:  "dws-peer",
	}
	sink := &testSink{ack: true}
	o := testOptions("b@1", sink)
	o.Creds, o.StreamAge = rotating, time.Second
	_, pod, stopServe := serve(t, o)
	defer stopServe()
	caller := func(name session.Owner, c Creds, age time.Duration) *Service {
		o := testOptions(name, &testSink{})
		o.Creds, o.StreamAge = c, age
		s, stop := forward(t, o, pod)
		t.Cleanup(stop)
		until(t, string(name)+" has a stream", func() bool { return s.Stream("b@1") != 0 })
		return s
	}
	count := func(what string) (n int) {
		for _, s := range sink.told() {
			if s == what {
				n++
			}
		}
		return n
	}
	caller("good@1", rotating, time.Second)
	stubborn := caller("stubborn@1", old, time.Hour)
	until(t, "the good one came again, twice", func() bool { return count("+good@1") >= 3 })

	after := creds(next.issue(t, "dws-peer", time.Hour), "dws-peer", next)
	now.Store(&after)
	until(t, "the one with the former certificate is out", func() bool { return stubborn.Stream("b@1") == 0 && count("-stubborn@1") == count("+stubborn@1") })
	in, before := count("+stubborn@1"), count("+good@1")
	until(t, "the good one comes and goes", func() bool { return count("+good@1") >= before+2 })
	if count("+stubborn@1") != in {
		t.Error("the one with the former certificate is in again")
	}
}

// In the clear there is nothing to be shown again, and no stream ends.
func TestStreamsInTheClearStay(t *testing.T) {
	s := newService(t, testOptions("a@1", &testSink{}))
	if at, _ := s.age(); at != nil || s.connections().MaxConnectionAge != 0 {
		t.Error("streams in the clear end of age")
	}
}

func TestCredsAreExplicit(t *testing.T) {
	a := newAuthority(t)
	both := creds(a.issue(t, "", time.Hour), "", a)
	f := func(c Creds, ok bool) {
		t.Helper()
		if err := c.check(); (err == nil) != ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
	f(both, true)
	f(Creds{Insecure: true}, true)
	f(Creds{}, false)
	f(Creds{Certificate: both.Certificate}, false)
	f(Creds{Roots: both.Roots}, false)
	f(Creds{Insecure: true, Roots: both.Roots}, false)
	both.Insecure = true
	f(both, false)
}
