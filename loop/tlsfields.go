package loop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"reflect"
	"time"
	"unsafe"
)

// tlsFields reaches what an idle tls.Conn keeps and does not need: its input
// buffers (3.5 KB after a browser's hello, more after a long message), and the
// secrets for exports and for a client's tickets (0.2 KB).
// They are private: their place is looked up and tried at start, and when
// anything is not as expected there is no tlsFields (nil) and memory is not
// saved. Only the goroutine that reads may use it.
type tlsFields struct {
	raw, hand, input uintptr // offsets in tls.Conn
	export, resume   uintptr
}

// lendSize holds any record, and what bytes.Buffer wants to spare.
const lendSize = 32 << 10

func (f *tlsFields) rawInput(c *tls.Conn) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), f.raw))
}

// handshake holds what came of a message of TLS's own: a key update, or what a
// peer that means harm says is one of 256 KiB.
func (f *tlsFields) handshake(c *tls.Conn) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), f.hand))
}

// holds says whether c has a part of a record, or of a message of TLS's own.
func (f *tlsFields) holds(c *tls.Conn) bool {
	return f != nil && (f.rawInput(c).Len() > 0 || f.handshake(c).Len() > 0)
}

// size is the memory that c takes for those; what was lent to it is not its own.
func (f *tlsFields) size(c *tls.Conn) int {
	if f == nil {
		return 0
	}
	return f.rawInput(c).Len() + f.handshake(c).Cap()
}

// lend gives c a pooled input buffer, with what it holds of a record.
func (f *tlsFields) lend(c *tls.Conn, alloc *Allocator) *[]byte {
	if f == nil {
		return nil
	}
	raw := f.rawInput(c)
	if raw.Len() > lendSize/2 {
		return nil // several records: read by http, once
	}
	lent := alloc.Malloc(lendSize)
	*raw = *bytes.NewBuffer(append((*lent)[:0], raw.Bytes()...))
	return lent
}

// takeBack takes drained buffers away from c; of a record in pieces it leaves
// just these.
func (f *tlsFields) takeBack(c *tls.Conn, alloc *Allocator, lent *[]byte) {
	if f == nil {
		return
	}
	input := (*bytes.Reader)(unsafe.Add(unsafe.Pointer(c), f.input))
	if input.Len() != 0 {
		return // plaintext nobody wants any more still points into the buffer
	}
	input.Reset(nil)
	raw := f.rawInput(c)
	if raw.Len() == 0 {
		*raw = bytes.Buffer{}
	} else {
		*raw = *bytes.NewBuffer(bytes.Clone(raw.Bytes()))
	}
	if lent != nil {
		alloc.Free(lent)
	}
	if hand := f.handshake(c); hand.Len() == 0 {
		*hand = bytes.Buffer{}
	}
}

// exporter is the type of tls.Conn's closure for ExportKeyingMaterial.
type exporter = func(label string, context []byte, length int) ([]byte, error)

// forget drops the secrets that a server's connection has no use for after the
// handshake: its tickets are sent, and nobody exports keying material.
func (f *tlsFields) forget(c *tls.Conn) {
	if f == nil {
		return
	}
	*(*exporter)(unsafe.Add(unsafe.Pointer(c), f.export)) = nil
	*(*[]byte)(unsafe.Add(unsafe.Pointer(c), f.resume)) = nil
}

// findTLSFields looks the fields up and tries them; nil: don't.
func findTLSFields() *tlsFields {
	t, found := reflect.TypeFor[tls.Conn](), true
	offset := func(name string, want reflect.Type) uintptr {
		field, ok := t.FieldByName(name)
		found = found && ok && field.Type == want
		return field.Offset
	}
	buffer := reflect.TypeFor[bytes.Buffer]()
	f := &tlsFields{
		raw: offset("rawInput", buffer), hand: offset("hand", buffer), input: offset("input", reflect.TypeFor[bytes.Reader]()),
		export: offset("ekm", reflect.TypeFor[exporter]()), resume: offset("resumptionSecret", reflect.TypeFor[[]byte]()),
	}
	if !found || f.try() != nil {
		return nil
	}
	return f
}

// try runs a conversation over TLS in which the server's buffers are lent and
// taken away between messages.
func (f *tlsFields) try() error {
	cert, err := throwawayCert()
	if err != nil {
		return err
	}
	left, right := net.Pipe()
	_ = left.SetDeadline(time.Now().Add(10 * time.Second))
	_ = right.SetDeadline(time.Now().Add(10 * time.Second))
	client := tls.Client(left, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // to ourselves, over a pipe
	server := tls.Server(right, &tls.Config{Certificates: []tls.Certificate{cert}})
	said := bytes.Repeat([]byte("0123456789abcdef"), 1<<8)
	sent := make(chan error, 1)
	go func() {
		err := client.Handshake()
		for i := 0; i < 8 && err == nil; i++ {
			_, err = client.Write(said[:len(said)>>i])
		}
		_, _ = io.Copy(io.Discard, client) // tickets, alerts: until the pipe is closed
		sent <- err
	}()
	err = server.Handshake()
	f.forget(server)
	alloc := NewAllocator()
	for i := 0; i < 8 && err == nil; i++ {
		want := said[:len(said)>>i]
		got := make([]byte, len(want))
		lent := f.lend(server, alloc)
		if _, err = io.ReadFull(server, got); err == nil && !bytes.Equal(got, want) {
			err = errors.New("bytes changed")
		}
		if i == 0 && (*lent)[0] == 0 {
			err = errors.Join(err, errors.New("lent buffer was not used"))
		}
		f.takeBack(server, alloc, lent)
		if raw := f.rawInput(server); err == nil && (raw.Len() != 0 || raw.Cap() != 0) {
			err = errors.New("buffer stayed")
		}
	}
	_ = left.Close()
	_ = right.Close()
	return errors.Join(err, <-sent)
}

// throwawayCert is a certificate for try.
func throwawayCert() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
