package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writeCertificate makes one for 127.0.0.1, named so that a test can tell.
func writeCertificate(t *testing.T, o TLSOptions, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{o.CertFile: {Type: "CERTIFICATE", Bytes: der}, o.KeyFile: {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// secure makes the house speak TLS.
func secure(t *testing.T) func(*Options) {
	dir := t.TempDir()
	return func(o *Options) {
		o.TLS = TLSOptions{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), Check: 20 * time.Millisecond}
		writeCertificate(t, o.TLS, "first")
	}
}

// shake connects, and says which certificate was shown and whether the session
// was resumed.
func (h *house) shake(config *tls.Config) (name string, resumed bool) {
	h.t.Helper()
	nc, err := tls.Dial("tcp", h.public.Addr().String(), config)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	// The ticket comes with the first bytes behind the handshake.
	if _, err := nc.Write([]byte("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); err != nil {
		h.t.Fatal(err)
	}
	_, _ = nc.Read(make([]byte, 1024))
	s := nc.ConnectionState()
	if s.NegotiatedProtocol != "http/1.1" {
		h.t.Fatalf("protocol %q", s.NegotiatedProtocol)
	}
	return s.PeerCertificates[0].Subject.CommonName, s.DidResume
}

func TestSecureLogin(t *testing.T) {
	h := newHouse(t, secure(t))
	s := h.login("ag1", "u1", "", nil)
	for range 3 {
		s.send(`{"type":"select_chat","payload":{"chat_id":"c","ack":true}}`)
		s.expect("selected", nil)
	}
	if err := h.probeOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "handshake slots are free", func() bool { return len(h.gate.handshakes) == 0 })
}

func TestSecureRefusalTold(t *testing.T) {
	h := newHouse(t, secure(t))
	s, _ := h.dial("/ws/acme/ag1?token=x", map[string]string{"X-API-Key": testAPIKey, "Origin": "https://" + h.public.Addr().String()}, nil)
	s.expect("error", map[string]any{"code": "InvalidToken"})
	s.expectClose(4403, "invalid-token")
}

func TestCertificateReload(t *testing.T) {
	h := newHouse(t, secure(t))
	name := func() string {
		n, _ := h.shake(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		return n
	}
	if got := name(); got != "first" {
		t.Fatalf("certificate %s", got)
	}
	if err := os.WriteFile(h.opts.TLS.CertFile, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broken one is noticed", func() bool { return h.m.reloadErrors.Get() > 0 })
	if got := name(); got != "first" {
		t.Fatalf("certificate %s after a broken file", got)
	}
	writeCertificate(t, h.opts.TLS, "second")
	eventually(t, "the second one is shown", func() bool { return name() == "second" })
}

// A ticket of one pod is good at another with the same seed, and at no other.
func TestTicketsAreShared(t *testing.T) {
	seeded := func(seed string) func(*Options) {
		s := secure(t)
		return func(o *Options) { s(o); o.TLS.TicketSeed = seed }
	}
	one, two, other := newHouse(t, seeded("a")), newHouse(t, seeded("a")), newHouse(t, seeded("b"))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{
			InsecureSkipVerify: true, ServerName: "pod", MaxVersion: version,
			ClientSessionCache: tls.NewLRUClientSessionCache(4), NextProtos: []string{"http/1.1"},
		}
		f := func(h *house, want bool) {
			t.Helper()
			if _, resumed := h.shake(config); resumed != want {
				t.Fatalf("version %x: resumed %v, want %v", version, resumed, want)
			}
		}
		f(one, false)
		f(one, true)
		f(two, true)
		f(other, false)
	}
}

func TestTicketKeysTurn(t *testing.T) {
	a, err := ticketKey("seed", 1)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := ticketKey("seed", 2)
	c, _ := ticketKey("other", 1)
	if a == b || a == c {
		t.Fatal("keys repeat")
	}
	if _, err := ticketKey("", 1); err == nil {
		t.Fatal("keys of no seed")
	}
}

func TestCertificateMissing(t *testing.T) {
	o := TLSOptions{CertFile: filepath.Join(t.TempDir(), "none"), KeyFile: "none"}
	if _, err := newCerts(o, 1, nil, testOptions().Log, nil); err == nil {
		t.Fatal("no certificate, no error")
	}
}
