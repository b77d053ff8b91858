package bench

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestDoorSuccess(t *testing.T) {
	var mu sync.Mutex
	got := map[string][]byte{}
	collected := 0
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/gc" {
			collected++
			return
		}
		path := r.URL.Query().Get("path")
		got[path] = append(got[path], b...)
	}))
	defer srv.Close()
	book := NewBook(7)
	page := book.Page("acme", "a b")
	d, err := OpenDoor(t.Context(), book, strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := d.Send(t.Context(), page, 2, 300, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(got["/ws/acme/a b"], []byte("\n")), []byte("\n"))
	if len(lines) != 6 || collected != 1 || book.Published() != 6 {
		t.Fatalf("%d frames, %d collections, %d in the book; want 6, 1, 6", len(lines), collected, book.Published())
	}
	for i, l := range lines {
		f, err := parseFrame(l)
		if err != nil || f.Type != frameEvent || f.Seq != uint64(i+1) {
			t.Fatalf("frame %d: %+v, %v", i, f, err)
		}
		if m, err := ParseBody(f.Payload); err != nil || m.Run != 7 || m.N != uint32(i) || m.Sent < m.Due {
			t.Errorf("frame %d: %+v, %v", i, m, err)
		}
	}
}

func TestDoorFailure(t *testing.T) {
	if _, err := OpenDoor(t.Context(), NewBook(1), "127.0.0.1:1"); err == nil {
		t.Error("no error where nobody listens")
	}
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	book := NewBook(1)
	d, err := OpenDoor(t.Context(), book, strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Send(t.Context(), book.Page("c", "a"), 1, 260, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(t.Context()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("Flush: %v, want the status", err)
	}
	if err := d.Close(); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("Close: %v, want the status", err)
	}
}
