package server

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// stall is where a connection stops on its way in.
type stall struct {
	first string // what it says, and no more
	times int    // how many of them there are for each place at work
	hello bool   // first is TLS's own; else it is inside
}

func stalls() map[string]stall {
	request := "GET /ws/acme/ag1 HTTP/1.1\r\nHost: x\r\n"
	return map[string]stall{
		"silent":  {"", 5, true},
		"a byte":  {"G", 5, false},
		"headers": {request + "X-Sl", 5, false},
		// net/http waits for half a second when it has refused them.
		"too large": {request + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 80) + "\r\n", 25, false},
		"body": {"POST /generate-token HTTP/1.1\r\nHost: x\r\nX-API-Key: " + testAPIKey +
			"\r\nContent-Length: 100\r\nContent-Type: application/json\r\n\r\n{", 5, false},
		"answers not read": {strings.Repeat("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 700), 2, false},
		"more than asked":  {request + "\r\nmore", 5, false},
		"half a hello":     {tlsHello()[:40], 5, true},
		"hello":            {tlsHello(), 5, true},
	}
}

// tlsHello is the first message of a TLS client.
func tlsHello() string {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		_ = tls.Client(far, &tls.Config{ServerName: "localhost", MinVersion: tls.VersionTLS12}).Handshake()
	}()
	b := make([]byte, 4096)
	n, _ := near.Read(b)
	return string(b[:n])
}

// Whoever stops on the way in, at whatever stage, holds no place at work there: the
// others are let in at once, though all of the former may stay for a minute.
func TestNobodyHoldsPlaces(t *testing.T) {
	for _, secured := range []bool{false, true} {
		for name, s := range stalls() {
			t.Run(name+", TLS "+strconv.FormatBool(secured), func(t *testing.T) {
				h := newHouse(t, func(o *Options) {
					if secured {
						secure(t)(o)
					}
					o.HTTP.LoginDeadline, o.HTTP.ReadHeaderTimeout = time.Minute, time.Minute
				})
				n := s.times * 4 * runtime.GOMAXPROCS(0)
				h.stalled(n, s.first, secured && !s.hello)
				eventually(t, "they are accepted", func() bool {
					accepted, _, _ := (*h.public.bound.Load()).Counts()
					return accepted >= uint64(n)
				})
				began := time.Now()
				for range 5 {
					h.login("ag1", "u1", "", nil)
				}
				if took := time.Since(began); took > 8*time.Second {
					t.Errorf("five logins beside them took %v", took)
				}
			})
		}
	}
}

// stalled connects so many, each of which says first, and nothing more.
func (h *house) stalled(n int, first string, secured bool) {
	var wg sync.WaitGroup
	h.t.Cleanup(wg.Wait)
	for range n {
		nc, err := h.tryDial() // closed when the test is over
		if err != nil {
			h.t.Fatal(err)
		}
		if secured {
			nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		}
		wg.Go(func() { _, _ = io.WriteString(nc, first) })
	}
}

// Whoever finds no room in the lobby is told what a full login queue tells, also
// when its request was there before, and is not parsed.
func TestTurnAway(t *testing.T) {
	h := newHouse(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	request, _ := http.NewRequest(http.MethodGet, "http://x/ws/acme/ag1", http.NoBody)
	if err := request.Write(far); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond) // else it comes when near is closed already
	h.turnAway(near.(*net.TCPConn))
	_ = near.Close()
	_ = far.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer, err := http.ReadResponse(bufio.NewReader(far), request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil || !json.Valid(body) || !answer.Close {
		t.Errorf("%s: %v; closes %v", body, err, answer.Close)
	}
	refusedAs(t, answer.StatusCode, answer.Header, string(body), 503, "Overloaded", "too many logins wait")
	if retry, _ := strconv.Atoi(answer.Header.Get("Retry-After")); retry < 1 || retry > 5 {
		t.Errorf("come back after %d s", retry)
	}
	if n := h.m.refused[gateQueue].Get(); n != 1 {
		t.Errorf("%d refused", n)
	}
}
