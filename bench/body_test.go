package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

func testPage() (*Book, *Page) {
	b := NewBook(7)
	b.Page("other", "agent", "a.b")
	return b, b.Page("acme", "agent", "628@s.whatsapp.net", `quo"te`)
}

func TestBodySuccess(t *testing.T) {
	_, p := testPage()
	f := func(topic uint16, size int) {
		t.Helper()
		want := Mark{Run: 1<<64 - 1, Page: p.index, Topic: topic, N: 1<<32 - 1, K: 7, Due: 1795417291297285854, Sent: 1795417291297285999}
		body := AppendBody(nil, p, want, size)
		var v map[string]any
		if err := json.Unmarshal(body, &v); err != nil {
			t.Fatalf("body %s: %v", body, err)
		}
		if v["company_id"] != "acme" || v["agent_id"] != "agent" || topic > 0 && v["chat_id"] != p.Topics[topic].Chat {
			t.Errorf("body %s", body)
		}
		if size >= 420 && len(body) != size {
			t.Errorf("%d bytes, want %d", len(body), size)
		}
		got, err := ParseBody(body)
		if err != nil || got != want {
			t.Errorf("read back %+v, %v; want %+v", got, err, want)
		}
		// What a gateway adds at the end is no damage.
		if _, err := ParseBody(append(body[:len(body)-1:len(body)-1], `,"event_type":"chat"}`...)); err != nil {
			t.Errorf("with a field added: %v", err)
		}
	}
	f(0, 0)
	f(0, 420)
	f(1, 1000)
	f(2, 600)
}

func TestBodyFailure(t *testing.T) {
	_, p := testPage()
	body := AppendBody(nil, p, Mark{Run: 7, Page: p.index, N: 3}, 500)
	for i := 0; i < bytes.LastIndex(body, []byte(`"}}`)); i++ {
		bad := append([]byte(nil), body...)
		bad[i] ^= 1
		if _, err := ParseBody(bad); err == nil {
			t.Fatalf("byte %d flipped: no error", i)
		}
	}
	f := func(want error, b string) {
		t.Helper()
		if _, err := ParseBody([]byte(b)); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", b, err, want)
		}
	}
	f(ErrForeign, "")
	f(ErrForeign, `{"event_id":"1"}`)
	f(ErrDamaged, `{"bench":"1 `)
	f(ErrDamaged, `{"bench":"1 1 2 3"`)
	f(ErrDamaged, `{"bench":"1 1 99999999999 3 4 5 6 7"`)
	f(ErrDamaged, `{"bench":"1 1 2 3 4 5 6 7","hash":"zz"}`)
}

func FuzzParseBody(f *testing.F) {
	_, p := testPage()
	f.Add(AppendBody(nil, p, Mark{Run: 7, N: 3}, 300))
	f.Add([]byte(`{"bench":"1 1 2 3 4 5 6 7","hash":"`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseBody(b)
		if err == nil && !bytes.Contains(b, appendMark(nil, m)) {
			// Leading zeros are the one other spelling.
			if !bytes.Contains(b, []byte(`"bench":"1 0`)) && !bytes.Contains(b, []byte(" 0")) {
				t.Errorf("%q was read as %+v", b, m)
			}
		}
	})
}
