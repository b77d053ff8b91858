package loop

import (
	"bytes"
	stdflate "compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// FuzzReader feeds bytes whole and in pieces: both must find the same, what is
// found must be legal, and building it again must give the same messages.
func FuzzReader(f *testing.F) {
	f.Add(masked(0x81, "Hello"), uint8(3), false)
	f.Add(join(masked(0x01, "a"), masked(0x89, "x"), masked(0x80, "b")), uint8(1), false)
	f.Add(masked(0x88, "\x03\xe8bye"), uint8(2), false)
	f.Add(NewFrame(ws.OpText, []byte("from a server"), Control).bytes, uint8(5), true)
	f.Add([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint8(4), false)
	f.Add(rawFrame(0x82, make([]byte, 300), testMask), uint8(100), false)
	f.Add(join(masked(0x01, "\xf0\x9f"), masked(0x80, "\x98\x80")), uint8(1), false)
	f.Fuzz(func(t *testing.T, data []byte, piece uint8, client bool) {
		const limit = 4096
		p := newParser(client, limit)
		whole, err, open := parse(p, data, len(data)+1)
		pieces, err2, open2 := parse(p, data, int(piece)+1)
		if !errors.Is(err2, err) || open != open2 || len(whole) != len(pieces) {
			t.Fatalf("whole: %d, %v, open %v; pieces: %d, %v, open %v", len(whole), err, open, len(pieces), err2, open2)
		}
		var again []byte
		for i, m := range whole {
			if pieces[i] != m {
				t.Fatalf("%d: whole %v, pieces %v", i, m, pieces[i])
			}
			switch {
			case len(m.payload) > limit:
				t.Fatalf("message of %d bytes", len(m.payload))
			case m.op == ws.OpText && !utf8.ValidString(m.payload):
				t.Fatalf("bad text %q", m.payload)
			case m.op.IsControl() && len(m.payload) > 125:
				t.Fatalf("control of %d bytes", len(m.payload))
			}
			var mask uint32
			if !client {
				mask = binary.BigEndian.Uint32([]byte{1, 2, byte(i), piece})
			}
			again = append(again, rawFrame(0x80|byte(m.op), []byte(m.payload), mask)...)
		}
		third, err, open := parse(p, again, int(piece)+1)
		if err != nil || open || len(third) != len(whole) {
			t.Fatalf("round trip: %d of %d, %v, open %v", len(third), len(whole), err, open)
		}
		for i := range third {
			if third[i] != whole[i] {
				t.Fatalf("round trip: %v became %v", whole[i], third[i])
			}
		}
	})
}

// FuzzInflate feeds compressed messages: no more than the limit comes out, and
// what comes out is what another implementation makes of it.
func FuzzInflate(f *testing.F) {
	f.Add([]byte(small7692))
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"))
	f.Add([]byte(squeezed(f, string(make([]byte, 1<<20)))))
	f.Add([]byte("\x00"))
	i := newInflater()
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 4096
		got, err := i.inflate(data, limit)
		if len(got) > limit {
			t.Fatalf("%d bytes", len(got))
		}
		want, wrong := io.ReadAll(io.LimitReader(stdflate.NewReader(strings.NewReader(string(data)+lastBlock)), limit+1))
		if err == nil && (wrong != nil || !bytes.Equal(got, want)) {
			t.Fatalf("%q gave %q, want %q, %v", data, got, want, wrong)
		}
		// A broken one may be found to be so by one of them only behind the limit.
		if errors.Is(err, errTooBig) && wrong == nil && len(want) <= limit {
			t.Fatalf("%q is too big, with %d bytes", data, len(want))
		}
	})
}

// FuzzUTF8 compares the stream with the whole.
func FuzzUTF8(f *testing.F) {
	f.Add([]byte("κόσμε😀"), uint8(1))
	f.Add([]byte("\xf4\x90\x80\x80"), uint8(2))
	f.Add([]byte("\xed\xa0\x80"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		var u utf8Stream
		ok := true
		for rest := data; ok && len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			ok = u.write(rest[:n])
			rest = rest[n:]
		}
		if got, want := ok && u.whole(), utf8.Valid(data); got != want {
			t.Fatalf("%q in pieces of %d: %v, want %v", data, int(piece)+1, got, want)
		}
	})
}

// FuzzAllocator appends in random steps.
func FuzzAllocator(f *testing.F) {
	f.Add([]byte{1, 200, 3, 0, 255})
	f.Fuzz(func(t *testing.T, steps []byte) {
		a := NewAllocator()
		p := a.Malloc(0)
		var want []byte
		for i, n := range steps {
			piece := bytes.Repeat([]byte{byte(i)}, int(n)*37)
			want = append(want, piece...)
			if i%2 == 0 {
				p = a.Append(p, piece...)
			} else {
				p = a.AppendString(p, string(piece))
			}
			if other := a.Malloc(int(n)); len(*other) != int(n) {
				t.Fatalf("malloc %d gave %d", n, len(*other))
			} else {
				clear(*other)
				a.Free(other)
			}
		}
		if !bytes.Equal(*p, want) {
			t.Fatal("bytes changed")
		}
		a.Free(p)
	})
}
