package loop

import (
	"bytes"
	"encoding/binary"
	"errors"
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
