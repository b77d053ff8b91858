package natsx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/natsx/natstest"
	"github.com/daisi/daisi-ws/session"
)

// TestLeastPermissions runs with exactly the permissions that doc.go names.
func TestLeastPermissions(t *testing.T) {
	srv := natstest.StartProcess(t, `authorization { users = [
		{ user: root, password: root },
		{ user: gateway, password: "p@ss", permissions: {
			publish: [ "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.dws_events",
				"$JS.API.STREAM.MSG.GET.dws_events", "$JS.API.DIRECT.GET.dws_events", "$JS.API.CONSUMER.CREATE.dws_events.>",
				"$JS.API.CONSUMER.DELETE.dws_events.*", "$JS.API.CONSUMER.MSG.NEXT.dws_events.*" ]
			subscribe: [ "_GATEWAY.>" ] } } ] }`)
	host := srv.URL[len("nats://"):]
	srv.URL = "nats://root:root@" + host
	c := start(t, Options{URL: "nats://gateway:p%40ss@" + host, InboxPrefix: "_GATEWAY", CreateStream: true, Partitions: 1})
	r := c.Reader(0, 0)
	defer r.Close()
	pub := srv.Publisher(t)
	pub.Publish("websocket.c.a.chats", body(0))
	checkNumbers(t, readUntil(t, r, 1), 0)
	if evs, err := collect(t, c, 0, 1); err != nil || len(evs) != 1 {
		t.Fatalf("Read: got %d events, %v", len(evs), err)
	}
	srv.DeleteStream(t, "wa_stream")
	until(t, "publisher's stream made again", func() bool { return c.m.resourced.Get() == 1 && c.Connected() == nil })
	pub.Publish("websocket.c.a.chats", body(1))
	checkNumbers(t, readUntil(t, r, 1), 1)
}

// TestWrongPassword: a client that is refused goes on trying.
func TestWrongPassword(t *testing.T) {
	srv := natstest.StartProcess(t, `authorization { user: gateway, password: right }`)
	host := srv.URL[len("nats://"):]
	c := run(t, Options{URL: "nats://gateway:wrong@" + host})
	until(t, "connection", func() bool { return c.nc.Load() != nil })
	nc := c.nc.Load()
	time.Sleep(1500 * time.Millisecond) // nats.go gives up at the second refusal unless told not to
	if nc.IsClosed() || c.Connected() == nil {
		t.Fatalf("status %s; want that it goes on trying", nc.Status())
	}
}

// TestTLS connects with a certificate to a server that wants one.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	writeCerts(t, dir)
	srv := natstest.StartProcess(t, fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }",
		filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")))
	f := func(query string) *Client {
		t.Helper()
		return run(t, Options{URL: "tls" + srv.URL[len("nats"):] + query, CreateStream: true})
	}
	ready(t, f(fmt.Sprintf("?ca=%s/ca.pem&cert=%s/cert.pem&key=%s/key.pem", dir, dir, dir)))
	// Without the authority, or without a certificate of its own: never.
	strangers := []*Client{f(""), f(fmt.Sprintf("?ca=%s/ca.pem", dir))}
	time.Sleep(300 * time.Millisecond) // nothing to wait for: a connection must NOT come
	for _, c := range strangers {
		if c.Connected() == nil {
			t.Error("a stranger is connected")
		}
	}
}

func writeCerts(t testing.TB, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "ca.pem": {Type: "CERTIFICATE", Bytes: der},
		"key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPublish(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{InProcess: srv.Embedded, CreateStream: true, Partitions: 1})
	r := c.Reader(0, 0)
	defer r.Close()
	route := session.Route{Company: "c", Agent: "a", Kind: "messages", Chat: "x.y"}
	if seq, err := c.Publish(t.Context(), Subject(route), []byte(body(0))); err != nil || seq != 1 {
		t.Fatalf("got %d, %v; want 1", seq, err)
	}
	if evs := readUntil(t, r, 1); evs[0].Route != route {
		t.Fatalf("got %+v", evs[0])
	}
	for _, s := range []string{"", "websocket.", "other.c.a.chats", "websocket.c.*.chats", "websocket.c.a.>", "websocket.c..chats", "websocket.c.a b.chats", "websocket.c.a.chats\r\n"} {
		if _, err := c.Publish(t.Context(), s, []byte(`{}`)); err == nil {
			t.Errorf("%q: published; want a refusal", s)
		}
	}
}
